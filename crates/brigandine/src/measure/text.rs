//! The text format in which Prometheus reads figures, version 0.0.4.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format>

use std::fmt::{Display, Write};

use super::Histogram;

/// The kind of a family of figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only grows while the process runs. The name ends in `_total`.
    Counter,
    /// May grow and fall.
    Gauge,
    /// How many values were at most as large as each of some bounds.
    Histogram,
    /// Quantiles, with the sum and the number of values.
    Summary,
}

/// A label and its value.
pub(crate) type Label<'v> = (&'static str, &'v str);

/// An answer that is being written.
#[derive(Debug, Default)]
pub(crate) struct Text {
    text: String,
}

impl Text {
    /// The value of the header `content-type`.
    pub(crate) const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family. All its samples must follow before the next family begins.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Summary => "summary",
        };
        let help = Escaped(help, false);
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
        Family { text: self, name }
    }

    /// A family with one sample.
    pub(crate) fn one(&mut self, name: &'static str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// The whole text.
    pub(crate) fn end(self) -> String {
        self.text
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{line}");
    }
}

/// A family of figures whose samples are being written.
pub(crate) struct Family<'t> {
    text: &'t mut Text,
    name: &'static str,
}

impl Family<'_> {
    /// A sample.
    pub(crate) fn sample(&mut self, labels: &[Label<'_>], value: impl Display) {
        self.part("", labels, value);
    }

    /// The samples of a histogram.
    pub(crate) fn histogram(&mut self, labels: &[Label<'_>], histogram: &Histogram) {
        let (buckets, count) = histogram.read();
        for (bound, up_to) in buckets {
            self.part("_bucket", &with(labels, ("le", &bound.to_string())), up_to);
        }
        self.part("_bucket", &with(labels, ("le", "+Inf")), count);
        self.part("_sum", labels, histogram.sum());
        self.part("_count", labels, count);
    }

    /// The samples of a summary: the quantiles, the sum of the values, and how many values there were.
    pub(crate) fn summary(
        &mut self,
        labels: &[Label<'_>],
        quantiles: &[(&str, f64)],
        sum: f64,
        count: u64,
    ) {
        for (quantile, value) in quantiles {
            self.part("", &with(labels, ("quantile", quantile)), value);
        }
        self.part("_sum", labels, sum);
        self.part("_count", labels, count);
    }

    fn part(&mut self, end: &str, labels: &[Label<'_>], value: impl Display) {
        let name = self.name;
        let mut all = String::new();
        for (label, value) in labels {
            let between = if all.is_empty() { "{" } else { "," };
            let _ = write!(all, "{between}{label}=\"{}\"", Escaped(value, true));
        }
        if !all.is_empty() {
            all.push('}');
        }
        self.text.line(format_args!("{name}{end}{all} {value}"));
    }
}

/// The labels, and another one.
fn with<'v>(labels: &[Label<'v>], more: Label<'v>) -> Vec<Label<'v>> {
    labels.iter().copied().chain([more]).collect()
}

/// A text in which backslashes and ends of lines are escaped, and quotation marks if it stands between such marks.
struct Escaped<'t>(&'t str, bool);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '\\' => f.write_str("\\\\")?,
                '\n' => f.write_str("\\n")?,
                '"' if self.1 => f.write_str("\\\"")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Histogram, Kind, Text};
    use std::time::Duration;

    #[test]
    fn help_and_labels_are_escaped_as_the_format_says() {
        let mut text = Text::default();
        let mut family = text.family("a_total", Kind::Counter, "One \\ two\nthree \"four\"");
        family.sample(&[("label", "x\\y\n\"z\" é"), ("other", "")], 3);
        family.sample(&[], 0.25);
        assert_eq!(
            text.end(),
            "# HELP a_total One \\\\ two\\nthree \"four\"\n# TYPE a_total counter\n\
             a_total{label=\"x\\\\y\\n\\\"z\\\" é\",other=\"\"} 3\na_total 0.25\n"
        );
    }

    #[test]
    fn a_histogram_ends_with_all_values_and_a_summary_with_their_number() {
        let histogram = Histogram::new(&[0.5, 1.0]);
        histogram.record(Duration::from_millis(250));
        histogram.record(Duration::from_secs(2));
        let mut text = Text::default();
        text.family("h_seconds", Kind::Histogram, "H").histogram(&[("of", "a")], &histogram);
        text.family("s", Kind::Summary, "S").summary(&[], &[("0.5", 1.5)], 4.5, 3);
        assert_eq!(
            text.end(),
            "# HELP h_seconds H\n# TYPE h_seconds histogram\nh_seconds_bucket{of=\"a\",le=\"0.5\"} 1\n\
             h_seconds_bucket{of=\"a\",le=\"1\"} 1\nh_seconds_bucket{of=\"a\",le=\"+Inf\"} 2\n\
             h_seconds_sum{of=\"a\"} 2.25\nh_seconds_count{of=\"a\"} 2\n# HELP s S\n# TYPE s summary\n\
             s{quantile=\"0.5\"} 1.5\ns_sum 4.5\ns_count 3\n"
        );
    }
}
