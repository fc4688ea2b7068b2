//! Completions of fish.

use std::fmt::Write;

use pgpair::cli::table::{self, Argument, COMMANDS, Usage};
use pgpair::config::settings::{Kind, Setting};

use crate::{brief, plain};

/// Where no command was typed yet, which is serve.
const NONE: &str = "__fish_use_subcommand";

/// Returns the file.
pub fn completions() -> String {
    let mut text = "# Completions of pgpair for fish, made by make generate.\n\n\
                    complete -c pgpair -f\n\
                    complete -c pgpair -s h -l help -d 'Show all commands and settings.'\n\
                    complete -c pgpair -s V -l version -d 'Show the version.'\n\n"
        .to_owned();
    for command in COMMANDS {
        let meaning = plain(command.meaning);
        let first = meaning.split_inclusive('.').next().unwrap_or_default();
        let (when, word) = match command.words.split_once(' ') {
            None => (NONE.to_owned(), command.words),
            Some((above, word)) => (format!("{}; and not {}", seen(above), below(above)), word),
        };
        add(&mut text, &when, &format!("-a {word}"), first);
    }
    let nodes = COMMANDS.iter().filter(|it| it.argument == Argument::Node);
    let nodes: Vec<&str> = nodes.map(|it| it.words).collect();
    add(&mut text, &seen(&nodes.join(" ")), "-a 'a b'", "NODE");
    text.push('\n');
    for (switch, _) in table::switches() {
        let when = takers(switch.flag);
        add(
            &mut text,
            &when,
            &format!("-l {}", switch.flag),
            &plain(switch.meaning),
        );
    }
    text.push('\n');
    for setting in table::SETTINGS_OF.iter().flat_map(|(_, it)| it.iter()) {
        let option = format!("-l {} {}", setting.flag, value(setting));
        add(&mut text, &takers(setting.flag), &option, &brief(setting));
    }
    text
}

fn add(text: &mut String, when: &str, what: &str, meaning: &str) {
    let meaning = meaning.replace('\\', "\\\\").replace('\'', "\\'");
    let _ = writeln!(text, "complete -c pgpair -n '{when}' {what} -d '{meaning}'");
}

fn seen(words: &str) -> String {
    format!("__fish_seen_subcommand_from {words}")
}

/// Says that one of the words below a command was typed.
fn below(above: &str) -> String {
    let words = COMMANDS.iter().filter_map(|it| it.words.split_once(' '));
    let words: Vec<&str> = words.filter(|it| it.0 == above).map(|it| it.1).collect();
    seen(&words.join(" "))
}

/// Says that a command was typed that takes a flag.
fn takers(flag: &str) -> String {
    let is_below = |it: &&Usage, above: &str| it.first() == above && it.words != above;
    let mut words = Vec::new();
    for command in COMMANDS.into_iter().filter(|it| it.takes(flag)) {
        let mut all = COMMANDS.into_iter();
        if command.first() != command.words {
            let (_, word) = command.words.split_once(' ').expect("two words");
            let is_aboves = all.any(|it| it.words == command.first() && it.takes(flag));
            words.extend((!is_aboves).then_some(word));
        } else if all.any(|it| is_below(&it, command.words) && !it.takes(flag)) {
            // fish has no brackets: nothing may follow an "and".
            assert!(words.is_empty(), "--{flag}");
            return format!("{}; and not {}", seen(command.words), below(command.words));
        } else {
            words.push(command.words);
        }
    }
    match words.contains(&"serve") {
        true => format!("{NONE}; or {}", seen(&words.join(" "))),
        false => seen(&words.join(" ")),
    }
}

fn value(setting: &Setting) -> String {
    match setting.kind {
        Kind::Word(words) => format!("-x -a '{}'", words.join(" ")),
        Kind::File | Kind::Program => "-r -F".to_owned(),
        Kind::Folder => "-x -a '(__fish_complete_directories)'".to_owned(),
        _ => "-x".to_owned(),
    }
}
