//! Charts as SVG, with bars or lines. Text stays text, and the colours follow the reader's light or dark mode.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 170.0;
const RIGHT: f64 = 110.0;

const STYLE: &str = "\
<style>\
text{font:13px system-ui,sans-serif;fill:#1f2328}.t{font-weight:600;font-size:15px}.q{fill:#59636e;font-size:12px}\
.b{fill:#fff}.g{stroke:#d1d9e0;stroke-width:1}\
.f0{fill:#0b6bcb}.f1{fill:#c2410c}.f2{fill:#15803d}.f3{fill:#9333ea}.f4{fill:#b45309}.f5{fill:#0e7490}\
.f6{fill:#be185d}.f7{fill:#4d7c0f}.f8{fill:#6b7280}.f9{fill:#7c5e10}.f10{fill:#4338ca}.f11{fill:#0f766e}.f12{fill:#a21caf}\
.l{fill:none;stroke-width:1.6}.m{stroke-width:3.2}\
.l0{stroke:#0b6bcb}.l1{stroke:#c2410c}.l2{stroke:#15803d}.l3{stroke:#9333ea}.l4{stroke:#b45309}.l5{stroke:#0e7490}\
.l6{stroke:#be185d}.l7{stroke:#4d7c0f}.l8{stroke:#6b7280}.l9{stroke:#7c5e10}.l10{stroke:#4338ca}.l11{stroke:#0f766e}.l12{stroke:#a21caf}\
@media (prefers-color-scheme:dark){text{fill:#e6edf3}.q{fill:#9da7b1}.b{fill:#0d1117}.g{stroke:#30363d}\
.f0{fill:#58a6ff}.f1{fill:#ff8a4c}.f2{fill:#4ade80}.f3{fill:#c084fc}.f4{fill:#fbbf24}.f5{fill:#22d3ee}\
.f6{fill:#f472b6}.f7{fill:#a3e635}.f8{fill:#9ca3af}.f9{fill:#d6b656}.f10{fill:#a5b4fc}.f11{fill:#5eead4}.f12{fill:#e879f9}\
.l0{stroke:#58a6ff}.l1{stroke:#ff8a4c}.l2{stroke:#4ade80}.l3{stroke:#c084fc}.l4{stroke:#fbbf24}.l5{stroke:#22d3ee}\
.l6{stroke:#f472b6}.l7{stroke:#a3e635}.l8{stroke:#9ca3af}.l9{stroke:#d6b656}.l10{stroke:#a5b4fc}.l11{stroke:#5eead4}.l12{stroke:#e879f9}}\
</style>";
const COLOURS: usize = 13;

/// One bar: its label, its value and its colour.
#[derive(Clone, Debug)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) value: f64,
    pub(crate) colour: usize,
}

impl Bar {
    pub(crate) fn new(label: impl Into<String>, value: f64, colour: usize) -> Self {
        Self { label: label.into(), value, colour }
    }
}

/// Horizontal bars that begin at zero, with the value at the end of each bar.
pub(crate) fn bars(title: &str, note: &str, bars: &[Bar]) -> String {
    const STEP: f64 = 26.0;
    const TOP: f64 = 62.0;
    let height = TOP + STEP * bars.len() as f64 + 14.0;
    let most = bars.iter().map(|bar| bar.value).filter(|v| v.is_finite()).fold(0.0, f64::max);
    let mut svg = begin(height, title, note);
    for (n, bar) in bars.iter().enumerate() {
        let y = TOP + STEP * n as f64;
        let part =
            if most > 0.0 && bar.value.is_finite() { bar.value.max(0.0) / most } else { 0.0 };
        let width = (WIDTH - LEFT - RIGHT) * part;
        let _ = writeln!(
            svg,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}</text>\
             <rect class=\"f{}\" x=\"{LEFT}\" y=\"{:.0}\" width=\"{:.1}\" height=\"18\" rx=\"2\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            LEFT - 8.0,
            y + 14.0,
            escape(&bar.label),
            bar.colour % COLOURS,
            y,
            width.max(1.0),
            LEFT + width + 6.0,
            y + 14.0,
            figure(bar.value)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// A line and its name.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
    pub(crate) colour: usize,
    pub(crate) bold: bool,
}

/// The horizontal axis: the given marks with their texts, or ten equally spaced marks.
#[derive(Clone, Debug)]
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) marks: Vec<(f64, String)>,
}

/// Lines with a common horizontal axis. The vertical axis is logarithmic, because waiting times differ by orders of
/// magnitude.
pub(crate) fn lines(title: &str, note: &str, axis: &Axis, lines: &[Line]) -> String {
    const HEIGHT: f64 = 400.0;
    const TOP: f64 = 62.0;
    const BOTTOM: f64 = 350.0;
    const BEGIN: f64 = 64.0;
    let end = WIDTH - 150.0;
    let mut svg = begin(HEIGHT, title, note);
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let xs = points().map(|p| p.0).chain(axis.marks.iter().map(|m| m.0));
    let (x0, x1) = range(xs).unwrap_or((0.0, 1.0));
    let (y0, y1) = range(points().map(|p| p.1).filter(|y| *y > 0.0)).unwrap_or((1.0, 10.0));
    let (low, high) = (y0.log10().floor(), y1.log10().ceil().max(y0.log10().floor() + 1.0));
    let px = |x: f64| BEGIN + (x - x0) / (x1 - x0).max(f64::MIN_POSITIVE) * (end - BEGIN);
    let py = |y: f64| {
        let y = if y > 0.0 { y.log10().max(low) } else { low };
        BOTTOM - (y - low) / (high - low) * (BOTTOM - TOP)
    };
    let mut power = low;
    while power <= high {
        let (value, y) = (10_f64.powf(power), py(10_f64.powf(power)));
        let _ = writeln!(
            svg,
            "<line class=\"g\" x1=\"{BEGIN}\" x2=\"{end}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"q\" x=\"{:.0}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            BEGIN - 6.0,
            y + 4.0,
            figure(value)
        );
        power += 1.0;
    }
    for (x, text) in &axis.marks {
        let _ = writeln!(
            svg,
            "<text class=\"q\" x=\"{:.1}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
            px(*x),
            BOTTOM + 18.0,
            escape(text)
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"q\" x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"middle\">{}</text>",
        (BEGIN + end) / 2.0,
        BOTTOM + 38.0,
        escape(&axis.name)
    );
    for (n, line) in lines.iter().enumerate() {
        let mut path = String::new();
        for (n, (x, y)) in line.points.iter().enumerate() {
            let _ = write!(path, "{}{:.1} {:.1}", if n == 0 { 'M' } else { 'L' }, px(*x), py(*y));
        }
        let (colour, bold) = (line.colour % COLOURS, if line.bold { " m" } else { "" });
        let y = TOP + 8.0 + 20.0 * n as f64;
        let _ = writeln!(
            svg,
            "<path class=\"l l{colour}{bold}\" d=\"{path}\"/>\
             <line class=\"l l{colour}{bold}\" x1=\"{:.0}\" x2=\"{:.0}\" y1=\"{y:.0}\" y2=\"{y:.0}\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\">{}</text>",
            end + 8.0,
            end + 26.0,
            end + 31.0,
            y + 4.0,
            escape(&line.name)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn begin(height: f64, title: &str, note: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" \
         role=\"img\" aria-label=\"{title}\">\n{STYLE}\n\
         <rect class=\"b\" width=\"{WIDTH}\" height=\"{height:.0}\"/>\n\
         <text class=\"t\" x=\"14\" y=\"25\">{title}</text>\n\
         <text class=\"q\" x=\"14\" y=\"45\">{}</text>\n",
        escape(note),
        title = escape(title),
    )
}

fn range(values: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    values.filter(|v| v.is_finite()).fold(None, |range, v| match range {
        None => Some((v, v)),
        Some((low, high)) => Some((low.min(v), high.max(v))),
    })
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A number for tables and plots: with three significant digits, and with its digits in groups of three.
pub(crate) fn figure(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    let decimals = match size {
        s if s == 0.0 || s >= 100.0 => 0,
        s if s >= 10.0 => 1,
        s if s >= 1.0 => 2,
        s if s >= 0.01 => 3,
        _ => 4,
    };
    let text = format!("{value:.decimals$}");
    let (whole, rest) = match text.split_once('.') {
        Some((whole, rest)) => (whole, rest.trim_end_matches('0')),
        None => (text.as_str(), ""),
    };
    let mut grouped = String::new();
    let digits = whole.trim_start_matches('-');
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let sign = if whole.starts_with('-') { "-" } else { "" };
    if rest.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{rest}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_show_three_digits_and_thousands() {
        for (value, text) in [
            (0.0, "0"),
            (1_234_567.0, "1,234,567"),
            (-1234.0, "-1,234"),
            (999.6, "1,000"),
            (12.34, "12.3"),
            (1.5, "1.5"),
            (0.0421, "0.042"),
            (f64::NAN, "–"),
        ] {
            assert_eq!(figure(value), text);
        }
    }

    #[test]
    fn the_longest_bar_fills_the_room_and_others_keep_their_part() {
        let svg = bars("t", "n", &[Bar::new("a", 200.0, 0), Bar::new("b", 50.0, 1)]);
        let room = WIDTH - LEFT - RIGHT;
        assert!(svg.contains(&format!("width=\"{room:.1}\" height=\"18\"")), "{svg}");
        assert!(svg.contains(&format!("width=\"{:.1}\" height=\"18\"", room / 4.0)), "{svg}");
    }

    #[test]
    fn labels_cannot_break_out_of_the_picture() {
        let svg = bars("a < b & \"c\"", "<script>", &[Bar::new("<x>", f64::NAN, 99)]);
        assert!(!svg.contains("<script>") && !svg.contains("<x>"), "{svg}");
        assert!(svg.contains("aria-label=\"a &lt; b &amp; &quot;c&quot;\""), "{svg}");
    }

    #[test]
    fn lines_without_points_or_with_one_value_are_drawn_without_nonsense() {
        let axis = Axis { name: "x".to_owned(), marks: Vec::new() };
        let line = |points| Line { name: "l".to_owned(), points, colour: 0, bold: true };
        for points in [vec![], vec![(1.0, 0.0)], vec![(1.0, 5.0), (1.0, 5.0)]] {
            let svg = lines("t", "n", &axis, &[line(points)]);
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        }
    }
}
