//! The plot: answers a second and 99th percentiles by clients, as SVG.

use std::fmt::Write;

use crate::contender::Program;
use crate::report::{Cell, Report};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 220.0;
/// Room around a panel for its words.
const MARGIN: f64 = 60.0;

/// Steps of the axis of times, which is logarithmic: milliseconds.
const TIMES: [f64; 6] = [0.01, 0.1, 1.0, 10.0, 100.0, 1000.0];

/// Colours that the colour-blind can tell apart, and dashes for print.
const fn stroke(program: Program) -> (&'static str, &'static str) {
    match program {
        Program::Pgpair => ("#0072b2", ""),
        Program::Rival => ("#d55e00", "6 3"),
        Program::RivalGlibc => ("#cc79a7", "2 3"),
    }
}

/// Draws the measurements with PostgreSQL healthy.
pub fn svg(report: &Report) -> String {
    let (width, height) = (
        2.0 * (WIDTH + MARGIN) + MARGIN,
        2.0 * (HEIGHT + MARGIN) + MARGIN,
    );
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (column, path) in ["/health", "/ready"].into_iter().enumerate() {
        let cells: Vec<&Cell> = report
            .cells
            .iter()
            .filter(|cell| cell.path == path && cell.state == "healthy")
            .collect();
        let x = MARGIN + column as f64 * (WIDTH + MARGIN);
        let rates = Panel::of_rates(&cells, x, MARGIN);
        rates.draw(&mut svg, &format!("{path}: answers/s by clients"), &cells);
        let times = Panel::of_times(&cells, x, 2.0 * MARGIN + HEIGHT);
        times.draw(&mut svg, &format!("{path}: p99 in ms by clients"), &cells);
    }
    for (place, program) in Program::ALL.into_iter().enumerate() {
        let x = MARGIN + place as f64 * 180.0;
        let (colour, _) = stroke(program);
        put(
            &mut svg,
            format_args!(
                "<text x=\"{x}\" y=\"24\" fill=\"{colour}\">{}</text>\n",
                program.name()
            ),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// One diagram and its scales.
struct Panel {
    x: f64,
    y: f64,
    clients: Vec<usize>,
    figure: fn(&Cell) -> f64,
    /// From a figure to its height, 0 to 1.
    scale: Box<dyn Fn(f64) -> f64>,
    ticks: Vec<f64>,
}

impl Panel {
    fn of_rates(cells: &[&Cell], x: f64, y: f64) -> Panel {
        let most = cells
            .iter()
            .map(|cell| cell.figures.rate)
            .fold(1.0, f64::max);
        let step = 10_f64.powf(most.log10().floor());
        let step = if most / step < 3.0 { step / 2.0 } else { step };
        let top = (most / step).ceil();
        Panel {
            x,
            y,
            clients: clients(cells),
            figure: |cell| cell.figures.rate,
            scale: Box::new(move |rate| rate / (top * step)),
            ticks: (0..=top as u32)
                .map(|count| f64::from(count) * step)
                .collect(),
        }
    }

    fn of_times(cells: &[&Cell], x: f64, y: f64) -> Panel {
        let (low, high) = (TIMES[0].log10(), TIMES[TIMES.len() - 1].log10());
        Panel {
            x,
            y,
            clients: clients(cells),
            figure: |cell| cell.figures.p99,
            scale: Box::new(move |ms| ((ms.log10() - low) / (high - low)).clamp(0.0, 1.0)),
            ticks: TIMES.to_vec(),
        }
    }

    /// Returns where a figure stands.
    fn at(&self, place: usize, figure: f64) -> (f64, f64) {
        let across = (place as f64 + 0.5) / self.clients.len() as f64;
        let up = (self.scale)(figure);
        (self.x + across * WIDTH, self.y + (1.0 - up) * HEIGHT)
    }

    fn draw(&self, svg: &mut String, title: &str, cells: &[&Cell]) {
        let (x, y) = (self.x, self.y);
        put(
            svg,
            format_args!(
                "<text x=\"{x}\" y=\"{}\" font-weight=\"bold\">{title}</text>\n",
                y - 10.0
            ),
        );
        for tick in &self.ticks {
            let (_, at) = self.at(0, *tick);
            put(
                svg,
                format_args!(
                    "<line x1=\"{x}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\
                     <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{tick}</text>\n",
                    x + WIDTH,
                    x - 5.0,
                    at + 4.0
                ),
            );
        }
        for (place, clients) in self.clients.iter().enumerate() {
            let (at, _) = self.at(place, 1.0);
            let below = y + HEIGHT + 16.0;
            put(
                svg,
                format_args!(
                    "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{clients}</text>\n"
                ),
            );
        }
        for program in Program::ALL {
            self.curve(svg, program, cells);
        }
    }

    fn curve(&self, svg: &mut String, program: Program, cells: &[&Cell]) {
        let of_program = cells.iter().filter(|cell| cell.program == program);
        let points: Vec<(f64, f64)> = of_program
            .enumerate()
            .map(|(place, cell)| self.at(place, (self.figure)(cell)))
            .collect();
        let (colour, dashes) = stroke(program);
        let line: Vec<String> = points
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1}"))
            .collect();
        put(
            svg,
            format_args!(
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"/>\n",
                line.join(" ")
            ),
        );
        for (x, y) in points {
            put(
                svg,
                format_args!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>\n"),
            );
        }
    }
}

fn clients(cells: &[&Cell]) -> Vec<usize> {
    let mut all: Vec<usize> = cells.iter().map(|cell| cell.clients).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn put(svg: &mut String, what: std::fmt::Arguments<'_>) {
    svg.write_fmt(what).expect("text takes all");
}
