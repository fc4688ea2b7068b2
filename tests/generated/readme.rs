//! README's tables, each between its markers.

use pgpair::cli::table::{self, CHECK, COMMANDS, ExitCode, SERVE, STATUS, SWITCHOVER};
use pgpair::config::settings::{DefaultValue, GUARD_SETTINGS, PAIR_SETTINGS, SETTINGS, Setting};
use pgpair::http::families::{FAMILIES, Metric};

/// Returns README with every table as it would be made now.
pub fn readme(old: &str) -> String {
    let tables = [
        ("settings of the probe", settings(&SETTINGS, "")),
        (
            "settings of the pair",
            settings(&PAIR_SETTINGS, "") + &rows(&GUARD_SETTINGS, " (guard)"),
        ),
        ("exit codes of the probe", exit_codes_of_the_probe()),
        ("exit codes of the pair", exit_codes_of_the_pair()),
        ("metrics", metrics()),
    ];
    let mut text = old.to_owned();
    for (name, table) in tables {
        let begin = format!("<!-- {name}: by make generate -->\n");
        let end = format!("<!-- end of {name} -->");
        let (before, rest) = text.split_once(&begin).expect(&begin);
        let (_, after) = rest.split_once(&end).expect(&end);
        text = format!("{before}{begin}\n{table}\n{end}{after}");
    }
    text
}

fn settings(settings: &[&Setting], whose: &str) -> String {
    let head = "| environment | flag | meaning | default |\n| --- | --- | --- | --- |\n";
    head.to_owned() + &rows(settings, whose)
}

fn rows(settings: &[&Setting], whose: &str) -> String {
    let row = |setting: &&Setting| {
        let default = match setting.default {
            DefaultValue::Value(text) => format!("`{text}`"),
            _ => setting.default_words().to_owned(),
        };
        format!(
            "| `{}` | `--{}`{whose} | {} | {default} |\n",
            setting.environment,
            setting.flag,
            setting.sentences()
        )
    };
    settings.iter().map(row).collect()
}

fn exit_codes_of_the_probe() -> String {
    let columns = [&SERVE, &CHECK, &STATUS];
    let mut codes: Vec<u8> = Vec::new();
    codes.extend(columns.iter().flat_map(|it| it.exit_codes).map(|it| it.0));
    codes.sort_unstable();
    codes.dedup();
    let names = columns.map(|it| format!("`pgpair {}{}`", it.words, it.argument.placeholder()));
    let mut text = format!("| exit code | {} |\n", names.join(" | "));
    text += "| --- | --- | --- | --- |\n";
    for code in codes {
        let cells = columns.map(|it| meaning(it.exit_codes, code).to_owned());
        text += &format!("| {code} | {} |\n", cells.join(" | "));
    }
    text
}

fn meaning(codes: &[ExitCode], code: u8) -> &'static str {
    let found = codes.iter().find(|it| it.0 == code);
    found.map_or("", |it| it.1)
}

fn exit_codes_of_the_pair() -> String {
    let mut text = "| exit code | meaning |\n| --- | --- |\n".to_owned();
    for (code, meaning) in SWITCHOVER.exit_codes {
        text += &format!("| {code} | {meaning} |\n");
    }
    text
}

fn metrics() -> String {
    let mut text = "| metric | type, unit | meaning | rests on |\n".to_owned();
    text += "| --- | --- | --- | --- |\n";
    text + &FAMILIES.into_iter().map(family).collect::<String>()
}

fn family(metric: &Metric) -> String {
    let labels = match metric.labels {
        [] => String::new(),
        labels => format!("{{{}}}", labels.join(",")),
    };
    format!(
        "| `{}{labels}` | {}, {} | {} | {} |\n",
        metric.name,
        metric.kind.word(),
        metric.unit.word(),
        metric.help,
        metric.basis.words()
    )
}

/// The two tables of exit codes are all there are.
#[test]
fn every_command_ends_as_one_of_the_tables_says() {
    // The last is that of inspect, which changes nothing.
    assert_eq!(table::exit_codes().count(), 5);
    let of_a_pair = |it: &&table::Usage| it.exit_codes == SWITCHOVER.exit_codes;
    assert_eq!(
        COMMANDS.into_iter().filter(of_a_pair).count(),
        COMMANDS.len() - 4
    );
}
