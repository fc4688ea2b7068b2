//! What scrapers ask for and what they are given.

use pgpair::http::exposition::{Document, Format};
use pgpair::http::families::{Basis, Kind, Metric, Unit};

/// By the rules of RFC 9110, 12.5.1: quality by the most specific range; only
/// who names OpenMetrics and wants it no less than text gets it.
pub fn accept(bytes: &[u8]) {
    let header = &*String::from_utf8_lossy(bytes);
    let found = Format::accepted(Some(header));
    assert_eq!(
        found == Format::OpenMetrics,
        wants_openmetrics(header),
        "{header:?}"
    );
    assert_eq!(Format::accepted(None), Format::Text);
    assert_eq!(found, Format::accepted(Some(&header.to_ascii_uppercase())));
}

fn wants_openmetrics(header: &str) -> bool {
    let ranges: Vec<(String, f64)> = header.split(',').map(range).collect();
    let quality = |wanted: &str| {
        let found = ranges.iter().filter(|(range, _)| range == wanted);
        found.map(|(_, quality)| *quality).reduce(f64::max)
    };
    let text = ["text/plain", "text/*", "*/*"]
        .into_iter()
        .find_map(quality);
    quality("application/openmetrics-text")
        .is_some_and(|open| open > 0.0 && open >= text.unwrap_or(0.0))
}

/// A quality that is none counts as 0: nobody asked for that clearly.
fn range(text: &str) -> (String, f64) {
    let mut parts = text.split(';').map(str::trim);
    let name = parts.next().unwrap().to_ascii_lowercase();
    let quality = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("q")
            .then(|| value.trim().to_owned())
    });
    let number = |text: String| {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        let number = text.parse::<f64>().ok().filter(|_| plain)?;
        (number <= 1.0).then_some(number)
    };
    (name, quality.map_or(1.0, |it| number(it).unwrap_or(0.0)))
}

const X: Metric = Metric {
    name: "x",
    kind: Kind::Gauge,
    unit: Unit::Number,
    labels: &["a", "b"],
    help: "Is x.",
    basis: Basis::Itself,
};

/// The labels that a scraper reads are those that were written.
pub fn exposition(bytes: &[u8]) {
    let text = &*String::from_utf8_lossy(bytes);
    let (first, second) = text.split_once('|').unwrap_or((text, ""));
    let mut document = Document::new(Format::Text);
    document
        .family(&X)
        .sample(&[first, second], 1)
        .known(&[second, ""], Some(2))
        .known(&[first, ""], None::<u8>);
    let said = document.finish();
    let lines: Vec<&str> = said.split('\n').collect();
    assert_eq!(lines.len(), 5, "{said:?}");
    assert_eq!(
        sample(lines[2]),
        (vec![("a", first.to_owned()), ("b", second.to_owned())], "1")
    );
    assert_eq!(
        sample(lines[3]),
        (vec![("a", second.to_owned()), ("b", String::new())], "2")
    );
    assert_eq!(lines[4], "");
}

/// Reads `x{name="value",…} number` as the format is defined.
fn sample(line: &str) -> (Vec<(&str, String)>, &str) {
    let mut rest = line.strip_prefix("x{").expect("the name and a brace");
    let mut labels = Vec::new();
    loop {
        let (name, after) = rest.split_once("=\"").expect("a label");
        let mut value = String::new();
        let mut characters = after.chars();
        loop {
            match characters.next().expect("the quote that ends it") {
                '"' => break,
                '\\' => value.push(match characters.next().expect("what is protected") {
                    'n' => '\n',
                    it @ ('\\' | '"') => it,
                    other => panic!("\\{other} is not defined"),
                }),
                other => value.push(other),
            }
        }
        labels.push((name, value));
        rest = characters.as_str();
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None => {
                return (
                    labels,
                    rest.strip_prefix("} ").expect("the end of the labels"),
                );
            }
        }
    }
}
