//! `/build/ID/log/raw`: the unchanged build log, during the build and afterwards.

use std::num::TryFromIntError;
use std::str::FromStr;

use axum::http::HeaderMap;
use axum::response::Response;

use super::parameters::BUILD_ID;
use crate::context::{Context, Reading};
use crate::http::{self, HttpError, Path, Query, Result, Wanted};
use crate::model::Build;
use crate::openapi::{Described, Dialect, Kind, Operation, Parameter};
use crate::store::visible;

/// The media type of logs.
const TEXT: &str = "text/plain; charset=utf-8";

pub(super) fn routes() -> Described<Context> {
    let number = |name, example, about| Parameter::new(name, Kind::Number, example, about);
    let offset =
        Parameter::new("offset", Kind::Range(0, i64::MAX), "0", "The first byte of the answer.");
    let attempt = number("attempt", "1", "The number of an attempt; the last one when absent.");
    let operation = Operation::new(Dialect::Cuirass, "The build log; goes on while the build runs")
        .takes(&[BUILD_ID, offset, attempt])
        .other(200, TEXT, "The log.")
        .other(206, TEXT, "The part that the request's `Range` asks for.")
        .refuses(404, "There is no log; the text says why.")
        .refuses(416, "The range begins past the end.");
    Described::new().get("/build/{id}/log/raw", raw, operation)
}

/// A place in a log: a whole number that is not negative and fits 63 bits, as the sizes in the database do.
struct Offset(u64);

impl FromStr for Offset {
    type Err = TryFromIntError;

    fn from_str(text: &str) -> std::result::Result<Self, TryFromIntError> {
        // What is no number at all is as wrong as a negative one.
        u64::try_from(text.parse::<i64>().unwrap_or(-1)).map(Self)
    }
}

/// The build log from byte `offset` on, of the last attempt or of an earlier one. While the attempt runs, the answer
/// continues until the attempt ends. If the last attempt has ended, requests may ask for ranges of its log.
///
/// # Errors
/// 416: the range begins past the end. 404: there is no log; the message says why.
async fn raw(
    context: Reading,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
) -> Result<Response> {
    let offset = query.parsed::<Offset>("offset")?.map_or(0, |offset| offset.0);
    let attempt: Option<i64> = query.parsed("attempt")?;
    let wanted = id.clone();
    let build = context.read(move |s| visible::build_named(s, &wanted)).await?;
    let build = build.ok_or_else(|| HttpError::no_build(&id))?;
    let number = attempt.unwrap_or(build.attempt);
    // Whether the build's row is about this attempt. If the build waits to be started again, it is about none.
    let last = number == build.attempt && build.has_run();
    let ended = build.status.is_finished() || !last;
    // Once the last attempt has ended, the build has the length and the digest of that attempt's log.
    let tag = (last && ended && !build.log.digest.is_empty()).then(|| http::tag(&build.log.digest));
    let bytes = u64::try_from(build.log.bytes).unwrap_or(0).saturating_sub(offset);
    let wanted = match &tag {
        Some(tag) => http::wanted(&headers, bytes, tag)?,
        None => Wanted::Whole,
    };
    let (from, limit) = match &wanted {
        Wanted::Whole => (offset, u64::MAX),
        Wanted::Part(part) => (offset + part.start, part.end - part.start),
        Wanted::Nothing => (offset, 0),
    };
    let reader = match attempt {
        None => context.logs().open(&build, from).await,
        Some(attempt) => context.logs().open_attempt(&build, attempt, from).await,
    };
    let Some(mut reader) = reader else {
        return Err(HttpError::not_found(match attempt {
            Some(attempt) => format!("Build {} has no attempt {attempt}.", build.id),
            None => without_log(&build),
        }));
    };
    if !ended {
        return Ok(context.follow(Vec::new(), reader, u64::MAX));
    }
    // Read before the answer begins, so that the answer can report a fault of the file.
    if last {
        context.check_log(&build).await?;
    }
    let first = reader.next().await;
    let what = format_args!("The log of build {}", build.id);
    let first = first.map_err(|error| HttpError::unreadable(what, &error))?;
    if reader.is_missing() && (!last || !build.log.path.is_empty()) {
        let what = match last {
            true => {
                format!("The log of build {} is gone: its file is not there any more.", build.id)
            }
            false => format!(
                "Attempt {number} of build {} printed nothing, or its log is gone.",
                build.id
            ),
        };
        return Err(HttpError::not_found(what));
    }
    let mut response = context.follow(first.unwrap_or_default(), reader, limit);
    if let Some(tag) = tag {
        http::describe(&mut response, &wanted, bytes, tag);
    }
    Ok(response)
}

/// Why a build has no log of its own, and which attempts may have one.
fn without_log(build: &Build) -> String {
    let why = build.no_log().unwrap_or_default();
    let before = match build.attempt {
        0 => String::new(),
        last => {
            format!(" `?attempt={last}` has the log of its last attempt, if that printed anything.")
        }
    };
    format!("Build {} has no log. {why}{before}", build.id)
}
