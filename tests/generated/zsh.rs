//! Completions of zsh.

use std::fmt::Write;

use pgpair::cli::table::{Argument, COMMANDS, SERVE, Usage};
use pgpair::config::settings::{Kind, Setting};

use crate::{brief, plain};

/// Returns the file.
pub fn completions() -> String {
    let mut text = "#compdef pgpair\n# Completions of pgpair for zsh, made by make generate.\n\n\
                    _pgpair() {\n    local curcontext=$curcontext state line ret=1\n"
        .to_owned();
    text += "    typeset -A opt_args\n    _arguments -C \\\n";
    text += &flags(&SERVE, 8);
    text += "        '(- *)'{-h,--help}'[Show all commands and settings.]' \\\n";
    text += "        '(- *)'{-V,--version}'[Show the version.]' \\\n";
    text += "        '1: :->command' \\\n        '*:: :->argument' && return 0\n";
    text += "    case $state in\n        command)\n            local -a commands=(\n";
    for command in COMMANDS.iter().filter(|it| it.first() == it.words) {
        let _ = writeln!(
            text,
            "                {}",
            described(command, command.words)
        );
    }
    text += "            )\n            _describe command commands && ret=0\n            ;;\n";
    text += "        argument)\n            case $words[1] in\n";
    for command in COMMANDS.iter().filter(|it| it.first() == it.words) {
        let _ = writeln!(text, "                {})", command.words);
        text += &arguments(command);
        text += "                    ;;\n";
    }
    text += "            esac\n            ;;\n    esac\n    return ret\n}\n\n_pgpair \"$@\"\n";
    text
}

/// Completes what follows a command; below `guard` there are more words.
fn arguments(command: &Usage) -> String {
    let below: Vec<_> = COMMANDS
        .iter()
        .filter(|it| it.first() == command.words && it.words != command.words)
        .collect();
    let mut text = "                    _arguments -C \\\n".to_owned();
    text += &flags(command, 24);
    if below.is_empty() {
        let _ = writeln!(
            text,
            "                        {} && ret=0",
            argument(command)
        );
        return text;
    }
    text += "                        '1: :->word' \\\n";
    text += "                        '*:: :->rest' && return 0\n";
    text += "                    case $state in\n                        word)\n";
    text += "                            local -a below=(\n";
    for it in &below {
        let (_, word) = it.words.split_once(' ').expect("two words");
        let _ = writeln!(
            text,
            "                                {}",
            described(it, word)
        );
    }
    text += "                            )\n";
    text += "                            _describe command below && ret=0\n";
    text += "                            ;;\n                        rest)\n";
    text += "                            case $words[1] in\n";
    for it in &below {
        let (_, word) = it.words.split_once(' ').expect("two words");
        let _ = writeln!(text, "                                {word})");
        text += "                                    _arguments \\\n";
        text += &flags(it, 40);
        let _ = writeln!(
            text,
            "                                        {} && ret=0",
            argument(it)
        );
        text += "                                    ;;\n";
    }
    text += "                            esac\n                            ;;\n";
    text + "                    esac\n"
}

fn described(command: &Usage, word: &str) -> String {
    let meaning = plain(command.meaning);
    let first = meaning.split_inclusive('.').next().unwrap_or_default();
    format!("'{word}:{}'", quoted(first).replace(':', "\\:"))
}

fn argument(command: &Usage) -> &'static str {
    match command.argument {
        Argument::None => "'*: :'",
        Argument::Url => "'1:URL:_urls'",
        Argument::Node => "'1:NODE:(a b)'",
        Argument::Pause => "'1:DURATION (900ms, 1.5s, 2m, 1h):' '2:UNTIL (seconds since 1970):'",
        Argument::Until => "'1:UNTIL (seconds since 1970):'",
    }
}

fn flags(command: &Usage, indent: usize) -> String {
    let indent = " ".repeat(indent);
    let mut text = String::new();
    for switch in command.switches {
        let meaning = bracketed(&plain(switch.meaning));
        let _ = writeln!(text, "{indent}'--{}[{meaning}]' \\", switch.flag);
    }
    for setting in command.settings() {
        let meaning = bracketed(&brief(setting));
        let value = value(setting);
        let _ = writeln!(text, "{indent}'--{}=[{meaning}]:{value}' \\", setting.flag);
    }
    text
}

fn value(setting: &Setting) -> String {
    let name = setting.kind.placeholder().replace(':', "\\:");
    match setting.kind {
        Kind::Word(words) => format!("{}:({})", setting.flag, words.join(" ")),
        Kind::File | Kind::Program => format!("{name}:_files"),
        Kind::Folder => format!("{name}:_files -/"),
        _ => format!("{name}:"),
    }
}

fn bracketed(text: &str) -> String {
    quoted(text).replace('[', "\\[").replace(']', "\\]")
}

fn quoted(text: &str) -> String {
    text.replace('\'', "'\\''")
}
