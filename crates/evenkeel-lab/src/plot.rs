//! Line plots on logarithmic axes, as SVG: costs and connections both span orders of magnitude.

use std::fmt::Write as _;

/// One line of a panel.
pub(crate) struct Line {
    pub(crate) name: String,
    /// In order of x; both positive.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Axes with lines.
pub(crate) struct Panel {
    pub(crate) title: String,
    /// What the x axis shows.
    pub(crate) x: String,
    pub(crate) lines: Vec<Line>,
}

/// Told apart also by those who see no red or green (Okabe and Ito, and a grey instead of their yellow).
const COLOURS: [&str; 8] =
    ["#000000", "#e69f00", "#d55e00", "#56b4e9", "#0072b2", "#009e73", "#cc79a7", "#999999"];
/// The size of a panel's axes in pixels, and the room around them.
const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 50.0;
const TOP: f64 = 84.0;
const BELOW: f64 = 84.0;

/// A logarithmic axis over whole steps of 1, 2 and 5.
struct Axis {
    low: f64,
    high: f64,
    length: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, length: f64) -> Axis {
        let (low, high) = values.fold((f64::INFINITY, 0.0_f64), |(l, h), v| (l.min(v), h.max(v)));
        if low > high {
            return Axis { low: 1.0, high: 10.0, length };
        }
        let (low, high) = (step_below(low), step_above(high));
        Axis { low, high: if high > low { high } else { low * 10.0 }, length }
    }

    fn place(&self, value: f64) -> f64 {
        (value / self.low).ln() / (self.high / self.low).ln() * self.length
    }

    fn ticks(&self) -> Vec<f64> {
        let mut ticks = vec![self.low];
        while let Some(last) = ticks.last().copied().filter(|last| *last < self.high * 0.999) {
            ticks.push(step_above(last * 1.01));
        }
        ticks
    }
}

/// The least of ..., 1, 2, 5, 10, 20, ... that is not below `value`.
fn step_above(value: f64) -> f64 {
    let ten = 10.0_f64.powf((value * 1.000_001).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|s| s * ten);
    steps.into_iter().find(|s| *s >= value * 0.999_999).unwrap_or(steps[3])
}

/// The greatest of them that is not above `value`.
fn step_below(value: f64) -> f64 {
    let ten = 10.0_f64.powf((value * 1.000_001).log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|s| s * ten);
    steps.into_iter().find(|s| *s <= value * 1.000_001).unwrap_or(steps[2])
}

/// Panels side by side, on one y axis scale, with one legend.
pub(crate) fn svg(title: &str, note: &str, panels: &[Panel]) -> String {
    let all = || panels.iter().flat_map(|p| &p.lines).flat_map(|l| &l.points);
    let y = Axis::over(all().map(|p| p.1), HEIGHT);
    let width = panels.len() as f64 * (WIDTH + LEFT) + 30.0;
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="#fff"/>
<text x="{LEFT}" y="24" font-size="16" font-weight="bold">{}</text>
<text x="{LEFT}" y="42" fill="#666">{}</text>
"##,
        TOP + HEIGHT + BELOW,
        escape(title),
        escape(note)
    );
    for (i, panel) in panels.iter().enumerate() {
        let x = Axis::over(panel.lines.iter().flat_map(|l| &l.points).map(|p| p.0), WIDTH);
        draw(&mut out, panel, LEFT + i as f64 * (WIDTH + LEFT), &x, &y);
    }
    let names = panels.first().map_or(&[][..], |p| &p.lines);
    let each = ((width - LEFT) / names.len().max(1) as f64).min(145.0);
    for (i, line) in names.iter().enumerate() {
        let (at, colour) = (LEFT + i as f64 * each, COLOURS[i % COLOURS.len()]);
        let from = TOP + HEIGHT + BELOW - 20.0;
        let _ = writeln!(
            out,
            r#"<path d="M{at} {from}h22" stroke="{colour}" stroke-width="2"/><text x="{}" y="{}">{}</text>"#,
            at + 28.0,
            from + 4.0,
            escape(&line.name)
        );
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, panel: &Panel, left: f64, x: &Axis, y: &Axis) {
    let bottom = TOP + HEIGHT;
    let _ = writeln!(out, r#"<text x="{left}" y="{}">{}</text>"#, TOP - 12.0, escape(&panel.title));
    for tick in x.ticks() {
        let at = left + x.place(tick);
        let _ = writeln!(
            out,
            r##"<path d="M{at:.1} {TOP}V{bottom}" stroke="#e4e4e4"/><text x="{at:.1}" y="{}" text-anchor="middle">{}</text>"##,
            bottom + 18.0,
            short(tick)
        );
    }
    for tick in y.ticks() {
        let at = bottom - y.place(tick);
        let _ = writeln!(
            out,
            r##"<path d="M{left} {at:.1}h{WIDTH}" stroke="#e4e4e4"/><text x="{}" y="{:.1}" text-anchor="end">{}</text>"##,
            left - 6.0,
            at + 4.0,
            short(tick)
        );
    }
    let middle = left + WIDTH / 2.0;
    let _ = writeln!(
        out,
        r#"<text x="{middle}" y="{}" text-anchor="middle">{}</text>"#,
        bottom + 38.0,
        escape(&panel.x)
    );
    for (i, line) in panel.lines.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let places = line.points.iter().map(|(px, py)| (left + x.place(*px), bottom - y.place(*py)));
        let places: Vec<_> = places.map(|(px, py)| format!("{px:.1},{py:.1}")).collect();
        let _ = writeln!(
            out,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2"/>"#,
            places.join(" ")
        );
        for (px, py) in places.iter().filter_map(|p| p.split_once(',')) {
            let _ = writeln!(out, r#"<circle cx="{px}" cy="{py}" r="3" fill="{colour}"/>"#);
        }
    }
}

/// `5,000` as `5k`, and no more digits than a step has.
fn short(value: f64) -> String {
    if value >= 1000.0 { format!("{}k", value / 1000.0) } else { format!("{}", (value * 1e6).round() / 1e6) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_steps_around_the_values() {
        let axis = Axis::over([9.0, 10_000.0].into_iter(), 100.0);
        let ticks: Vec<_> = axis.ticks().into_iter().map(short).collect();
        assert_eq!(ticks, ["5", "10", "20", "50", "100", "200", "500", "1k", "2k", "5k", "10k"]);
        assert!(axis.place(5.0).abs() < 1e-9 && (axis.place(10_000.0) - 100.0).abs() < 1e-9);
    }

    #[test]
    fn one_value_and_none_have_an_axis() {
        for values in [vec![], vec![10.0], vec![0.3]] {
            let axis = Axis::over(values.into_iter(), 1.0);
            assert!(axis.high > axis.low && axis.ticks().len() >= 2);
        }
    }

    #[test]
    fn names_are_escaped() {
        let line = Line { name: "a<b".to_owned(), points: vec![(1.0, 1.0), (10.0, 3.0)] };
        let panel = Panel { title: "t".to_owned(), x: "x".to_owned(), lines: vec![line] };
        let text = svg("A & B", "", &[panel]);
        assert!(text.contains("a&lt;b") && text.contains("A &amp; B") && !text.contains("a<b"));
    }
}
