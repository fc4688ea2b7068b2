//! Completions of bash.

use std::fmt::Write;

use pgpair::cli::table::{self, Argument, COMMANDS, SERVE, Usage};
use pgpair::config::settings::{Kind, Setting};

/// `=` is among bash's word breaks, so that it is a word of its own in `--flag=value`.
const HEAD: &str = "# shellcheck shell=bash
# Completions of pgpair for bash, made by make generate.

_pgpair() {
    local cur=${COMP_WORDS[COMP_CWORD]} command='' flag='' words='' flags='' at
    for ((at = 1; at < COMP_CWORD; at++)); do
        case ${COMP_WORDS[at]} in
            ";

const MIDDLE: &str = ")
                flag=${COMP_WORDS[at]}
                [[ ${COMP_WORDS[at + 1]} != = ]] || at=$((at + 1))
                at=$((at + 1))
                [ \"$at\" -ge \"$COMP_CWORD\" ] || flag=''
                ;;
            -*) ;;
            *) command+=\"${command:+ }${COMP_WORDS[at]}\" ;;
        esac
    done
    [ \"$cur\" != = ] || cur=''
    case $flag in
        '')
            case $command in
";

const END: &str = "    esac
    [[ $cur != -* ]] || words=$flags
    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")
}

complete -F _pgpair pgpair
";

/// Returns the file.
pub fn completions() -> String {
    let mut text = HEAD.to_owned();
    text += &settings().map(flag).collect::<Vec<_>>().join(" | ");
    text += MIDDLE;
    let firsts = COMMANDS.iter().filter(|it| it.first() == it.words);
    let firsts: Vec<&str> = firsts.map(|it| it.words).collect();
    let (firsts, all) = (firsts.join(" "), flags(&SERVE));
    let _ = writeln!(
        text,
        "                '') words='{firsts}' flags='{all}' ;;"
    );
    // The longer ones first, as they begin with the shorter.
    for command in COMMANDS.iter().rev() {
        let (name, all) = (command.words, flags(command));
        let pattern = name.replace(' ', "\\ ");
        let _ = writeln!(text, "                {pattern}*)");
        let _ = writeln!(text, "                    flags='{all}'");
        match arguments(command) {
            words if words.is_empty() => {}
            words => {
                let first = format!("[ \"$command\" != {name} ] || words='{words}'");
                let _ = writeln!(text, "                    {first}");
            }
        }
        text += "                    ;;\n";
    }
    text += "            esac\n            ;;\n";
    for setting in settings() {
        if let Some(action) = value(setting) {
            let _ = writeln!(text, "        {}) {action} ;;", flag(setting));
        }
    }
    text + END
}

/// Lists every setting once.
fn settings() -> impl Iterator<Item = &'static Setting> {
    table::SETTINGS_OF
        .into_iter()
        .flat_map(|(_, it)| it)
        .copied()
}

fn flag(setting: &Setting) -> String {
    format!("--{}", setting.flag)
}

fn flags(command: &Usage) -> String {
    let settings = command.settings().map(|it| it.flag);
    let all = command.switches.iter().map(|it| it.flag).chain(settings);
    let all = all.chain(["help", "version"]);
    all.map(|flag| format!("--{flag}"))
        .collect::<Vec<_>>()
        .join(" ")
}

fn arguments(command: &Usage) -> String {
    let words: Vec<&str> = COMMANDS
        .iter()
        .filter_map(|it| it.words.strip_prefix(command.words)?.strip_prefix(' '))
        .collect();
    match command.argument {
        Argument::Node => "a b".to_owned(),
        _ => words.join(" "),
    }
}

fn value(setting: &Setting) -> Option<String> {
    let compgen = |flag| format!("mapfile -t COMPREPLY < <(compgen {flag} -- \"$cur\"); return");
    match setting.kind {
        Kind::Word(words) => Some(format!("words='{}'", words.join(" "))),
        Kind::File => Some(compgen("-f")),
        Kind::Folder => Some(compgen("-d")),
        Kind::Program => Some(compgen("-c")),
        _ => None,
    }
}
