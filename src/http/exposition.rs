//! Prometheus's text format and OpenMetrics: names, labels, values.

use std::fmt::{Display, Write};

use super::families::Metric;

/// The two formats that scrapers ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The text format 0.0.4.
    Text,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// Chooses by the request's `Accept` header: OpenMetrics for who names it and
    /// wants it no less than text.
    pub fn accepted(header: Option<&str>) -> Format {
        let header = header.unwrap_or("");
        let open = quality(header, "application/openmetrics-text").unwrap_or(0.0);
        let text = ["text/plain", "text/*", "*/*"];
        let text = text.into_iter().find_map(|range| quality(header, range));
        if open > 0.0 && open >= text.unwrap_or(0.0) {
            Format::OpenMetrics
        } else {
            Format::Text
        }
    }

    /// Returns the `Content-Type` of a document in this format.
    pub const fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Returns how much an `Accept` header wants a media range, 0 to 1, if it names it;
/// the most, if it does so more than once. What is no number counts as 0.
fn quality(header: &str, range: &str) -> Option<f32> {
    let wanted = |entry: &str| {
        let mut parts = entry.split(';').map(str::trim);
        let named = parts.next()?.eq_ignore_ascii_case(range);
        let given = parts.find_map(|parameter| {
            let (name, value) = parameter.split_once('=')?;
            let is_quality = name.trim().eq_ignore_ascii_case("q");
            is_quality.then(|| value.trim())
        });
        named.then(|| given.map_or(1.0, number))
    };
    header.split(',').filter_map(wanted).reduce(f32::max)
}

fn number(text: &str) -> f32 {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let number = text.parse().ok().filter(|number| plain && *number <= 1.0);
    number.unwrap_or(0.0)
}

/// A document that grows family by family. A family without a sample is left
/// out: what is unknown is not there.
pub struct Document {
    format: Format,
    text: String,
}

/// One family, while it is written.
pub struct Family<'a> {
    document: &'a mut Document,
    metric: &'static Metric,
    begun: bool,
}

impl Document {
    /// Begins an empty document.
    pub fn new(format: Format) -> Document {
        Document {
            format,
            text: String::with_capacity(16 * 1024),
        }
    }

    /// Begins a family.
    pub fn family(&mut self, metric: &'static Metric) -> Family<'_> {
        Family {
            document: self,
            metric,
            begun: false,
        }
    }

    /// Ends the document.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

impl Family<'_> {
    /// Writes one sample: the values of the family's labels, in their order, and its own.
    pub fn sample(&mut self, labels: &[&str], value: impl Display) -> &mut Self {
        self.begin();
        self.line("", labels, None, value);
        self
    }

    /// Writes one sample if its value is known.
    pub fn known(&mut self, labels: &[&str], value: Option<impl Display>) -> &mut Self {
        if let Some(value) = value {
            self.sample(labels, value);
        }
        self
    }

    /// Writes a histogram: `counts` by `bounds`, one more above them all, and
    /// the sum of what was counted.
    pub fn histogram(
        &mut self,
        labels: &[&str],
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) -> &mut Self {
        self.begin();
        let mut so_far = 0;
        for (place, count) in counts.iter().enumerate() {
            so_far += count;
            let bound = bounds.get(place).map_or("+Inf".to_owned(), f64::to_string);
            self.line("_bucket", labels, Some(&bound), so_far);
        }
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, so_far);
        self
    }

    fn begin(&mut self) {
        if self.begun {
            return;
        }
        self.begun = true;
        let Metric {
            name, kind, help, ..
        } = self.metric;
        // In OpenMetrics a counter's family has the name without its suffix.
        let name = match self.document.format {
            Format::OpenMetrics => name.trim_end_matches("_total"),
            Format::Text => name,
        };
        let (text, kind) = (&mut self.document.text, kind.word());
        let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn line(&mut self, suffix: &str, labels: &[&str], bound: Option<&str>, value: impl Display) {
        let Metric {
            name,
            labels: names,
            ..
        } = self.metric;
        debug_assert_eq!(names.len(), labels.len(), "labels of {name}");
        let text = &mut self.document.text;
        text.push_str(name);
        text.push_str(suffix);
        let named = names.iter().copied().zip(labels.iter().copied());
        let all = named.chain(bound.map(|bound| ("le", bound)));
        let mut before = '{';
        for (name, value) in all {
            text.push(before);
            let _ = write!(text, "{name}=\"{}\"", escaped(value));
            before = ',';
        }
        if before == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {value}");
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::super::families::{Basis, Kind, Unit};
    use super::*;

    const X: Metric = Metric {
        name: "x_total",
        kind: Kind::Counter,
        unit: Unit::Number,
        labels: &["a", "b"],
        help: "Counts x.",
        basis: Basis::Itself,
    };
    const UNKNOWN: Metric = Metric {
        name: "unknown",
        kind: Kind::Gauge,
        labels: &[],
        ..X
    };
    const H: Metric = Metric {
        name: "h_seconds",
        kind: Kind::Histogram,
        labels: &["p"],
        help: "Times h.",
        ..X
    };

    fn document(format: Format) -> String {
        let mut document = Document::new(format);
        document.family(&X).sample(&["q\"\\\n", "2"], 3);
        document.family(&UNKNOWN).known(&[], None::<u64>);
        document
            .family(&H)
            .histogram(&["/"], &[0.5, 1.0], &[1, 0, 2], 7.5);
        document.finish()
    }

    #[test]
    fn the_text_format_is_as_prometheus_wants_it() {
        assert_eq!(
            document(Format::Text),
            "# HELP x_total Counts x.\n# TYPE x_total counter\nx_total{a=\"q\\\"\\\\\\n\",b=\"2\"} 3\n\
             # HELP h_seconds Times h.\n# TYPE h_seconds histogram\n\
             h_seconds_bucket{p=\"/\",le=\"0.5\"} 1\nh_seconds_bucket{p=\"/\",le=\"1\"} 1\n\
             h_seconds_bucket{p=\"/\",le=\"+Inf\"} 3\nh_seconds_sum{p=\"/\"} 7.5\n\
             h_seconds_count{p=\"/\"} 3\n"
        );
    }

    #[test]
    fn openmetrics_names_the_family_without_total_and_ends() {
        let text = document(Format::OpenMetrics);
        assert!(text.starts_with("# HELP x Counts x.\n# TYPE x counter\nx_total{"));
        assert!(text.ends_with("\n# EOF\n"));
    }

    #[test]
    fn the_format_is_chosen_by_accept() {
        for (header, expected) in [
            (None, Format::Text),
            (Some("*/*"), Format::Text),
            (
                Some("application/openmetrics-text;version=1.0.0,text/plain;q=0.5"),
                Format::OpenMetrics,
            ),
        ] {
            assert_eq!(Format::accepted(header), expected, "{header:?}");
        }
    }
}
