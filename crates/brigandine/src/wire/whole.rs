//! Whole numbers in the bodies of requests. In JSON, 7.0 is as whole as 7, and some programs write their numbers so.

use std::fmt;

use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// The largest whole number that is exact however the parser reads the digits `….0`, all of which fit 53 bits.
const EXACT_MAX: f64 = 900_719_925_474_099.0;

/// A whole number of 64 bits. One that is written with a fraction is at most [`EXACT_MAX`], so that none is taken for
/// another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(super) struct Whole(pub(super) i64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Number)
    }
}

/// Reads a number of JSON.
struct Number;

impl Visitor<'_> for Number {
    type Value = Whole;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of 64 bits")
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Whole, E> {
        Ok(Whole(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Whole, E> {
        let refused = |_| E::invalid_value(Unexpected::Unsigned(value), &self);
        i64::try_from(value).map(Whole).map_err(refused)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Whole, E> {
        let is_whole = value.fract().abs() <= 0.0 && value.abs() <= EXACT_MAX;
        let whole = if is_whole { format!("{value:.0}").parse().ok() } else { None };
        whole.map(Whole).ok_or_else(|| E::invalid_value(Unexpected::Float(value), &self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_whole_however_it_is_written() {
        for (text, wanted) in [
            ("7", Some(7)),
            ("-7", Some(-7)),
            ("7.0", Some(7)),
            ("-7.000", Some(-7)),
            ("-0.0", Some(0)),
            ("7e2", Some(700)),
            ("9223372036854775807", Some(i64::MAX)),
            ("-9223372036854775808", Some(i64::MIN)),
            ("-900719925474099.0", Some(-900_719_925_474_099)),
            ("900719925474100.0", None),
            // It does not fit, and comes as a floating-point number that would.
            ("-9223372036854775809", None),
            ("9223372036854775808", None),
            ("9223372036854775807.0", None),
            ("1e300", None),
            ("7.5", None),
            ("1e-300", None),
            ("\"7\"", None),
            ("null", None),
            ("true", None),
        ] {
            let read = serde_json::from_str::<Whole>(text);
            assert_eq!(read.as_ref().ok(), wanted.map(Whole).as_ref(), "{text}: {read:?}");
        }
    }
}
