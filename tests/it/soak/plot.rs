//! Draws a run: one panel a column, and the faults as bands behind them.

use std::fmt::Write as _;

use super::record::{Band, COLUMNS, Sample};

const WIDTH: f64 = 1_000.0;
const LEFT: f64 = 130.0;
const PANEL: f64 = 130.0;
const GAP: f64 = 24.0;

/// Returns the picture as an SVG document.
pub fn draw(samples: &[Sample], faults: &[Band]) -> String {
    let height = COLUMNS.len() as f64 * (PANEL + GAP) + 2.0 * GAP;
    let last = samples.last().map_or(1.0, |sample| sample.at.as_secs_f64());
    let x = |seconds: f64| LEFT + seconds / last * (WIDTH - LEFT - GAP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for band in faults {
        let [from, until] = [band.from, band.until].map(|at| x(at.as_secs_f64().min(last)));
        let _ = writeln!(
            svg,
            "<rect x=\"{from:.1}\" y=\"{GAP}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#f4c7a1\" \
             fill-opacity=\"0.5\"><title>{}</title></rect>",
            (until - from).max(1.0),
            height - 3.0 * GAP,
            band.what
        );
    }
    for (column, name) in COLUMNS.iter().enumerate() {
        panel(&mut svg, samples, column, name, &x);
    }
    let _ = writeln!(
        svg,
        "<text x=\"{LEFT}\" y=\"{:.0}\">0 s</text>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{last:.0} s; faults are shaded</text>\n</svg>",
        height - GAP / 2.0,
        WIDTH - GAP,
        height - GAP / 2.0
    );
    svg
}

fn panel(svg: &mut String, samples: &[Sample], column: usize, name: &str, x: &dyn Fn(f64) -> f64) {
    let top = GAP + column as f64 * (PANEL + GAP);
    let most = samples
        .iter()
        .map(|it| it.used[column])
        .max()
        .unwrap_or(1)
        .max(1);
    let y = |value: u64| top + PANEL - value as f64 / (most as f64 * 1.1) * PANEL;
    let points: Vec<String> = samples
        .iter()
        .map(|it| format!("{:.1},{:.1}", x(it.at.as_secs_f64()), y(it.used[column])))
        .collect();
    let bottom = top + PANEL;
    let _ = writeln!(
        svg,
        "<path d=\"M{LEFT},{top} V{bottom} H{:.0}\" fill=\"none\" stroke=\"#888\"/>\n\
         <text x=\"8\" y=\"{:.0}\">{name}</text>\n\
         <text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{most}</text>\n\
         <text x=\"{:.0}\" y=\"{bottom}\" text-anchor=\"end\">0</text>\n\
         <polyline points=\"{}\" fill=\"none\" stroke=\"#1f5f99\" stroke-width=\"1.5\"/>",
        WIDTH - GAP,
        top + PANEL / 2.0,
        LEFT - 6.0,
        y(most) + 4.0,
        LEFT - 6.0,
        points.join(" ")
    );
}
