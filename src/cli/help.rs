//! `--help`, made from the tables.

use super::table::{COMMANDS, SETTINGS_OF, Usage, exit_codes, switches};

/// Widest line of a description, without its indent.
const WIDTH: usize = 72;

/// Returns the whole `--help`.
pub fn help() -> String {
    let mut text = format!(
        "pgpair {} — tells the truth about a PostgreSQL primary and its standby\n\nUsage:\n",
        env!("CARGO_PKG_VERSION")
    );
    for command in COMMANDS {
        describe(&mut text, &synopsis(command), command.meaning);
    }
    text.push_str("  pgpair --help | --version\n\nSwitches, and the commands that take them:\n");
    for (switch, takers) in switches() {
        let title = format!("--{}, {}", switch.flag, takers.join(", "));
        describe(&mut text, &title, switch.meaning);
    }
    text.push_str("\nA flag wins over its environment variable.\n");
    for (whose, settings) in SETTINGS_OF {
        text.push_str(&format!("\nSettings of {whose}:\n"));
        for setting in settings {
            let value = setting.kind.placeholder();
            let title = format!("--{} {value}, {}", setting.flag, setting.environment);
            let default = setting.default_words();
            let meaning = format!("{} Defaults to {default}.", setting.sentences());
            describe(&mut text, &title, &meaning);
        }
    }
    text.push_str(
        "\nDurations are a number and a unit: 900ms, 1.5s, 2m, 1h.\n\
         check and status take --listen too. The commands that change a pair take --log too;\n\
         they run on the Docker host as root.\n",
    );
    for (commands, codes) in exit_codes() {
        text.push_str(&format!("\nExit codes of {}:\n", commands.join(", ")));
        for (code, meaning) in codes {
            text.push_str(&format!("  {code:<4} {}\n", plain(meaning)));
        }
    }
    text
}

/// Writes a command with what it takes.
pub fn synopsis(command: &Usage) -> String {
    let mut text = format!("pgpair {}", command.words);
    for switch in command.switches {
        text.push_str(&format!(" [--{}]", switch.flag));
    }
    text + " [SETTINGS]" + command.argument.placeholder()
}

/// Writes a title, and below it what there is to say.
fn describe(text: &mut String, title: &str, meaning: &str) {
    text.push_str(&format!("  {title}\n"));
    for line in wrap(&plain(meaning), WIDTH) {
        text.push_str(&format!("        {line}\n"));
    }
}

/// Leaves out the backticks around code.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a first line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.len() + 1 + word.len() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::table;
    use crate::commands::{check, status};

    #[test]
    fn help_lists_all_there_is_and_fits_a_terminal() {
        let text = help();
        for command in COMMANDS {
            assert!(text.contains(&format!("\n  pgpair {} ", command.words)));
            for setting in command.settings() {
                assert!(text.contains(&format!("\n  --{} ", setting.flag)));
                assert!(text.contains(&format!(", {}\n", setting.environment)));
            }
            for switch in command.switches {
                assert!(text.contains(&format!("\n  --{}, ", switch.flag)));
                assert!(table::switches().any(|(it, _)| it == *switch));
            }
        }
        for (command, path) in [
            (table::CHECK, check::DEFAULT_PATH),
            (table::STATUS, status::DEFAULT_PATH),
        ] {
            assert!(command.meaning.contains(&format!("`{path}`")));
        }
        assert!(!text.contains('`'));
        for line in text.lines() {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
