//! Whole command lines: a line of the input is an argument, or with a `$` before
//! it a variable of the environment.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use pgpair::cli::{self, Command};
use pgpair::config::Environment;

use super::{MARK, holds_no_password, is_a_plain_line};

/// It runs or is refused in one line with the documented exit code; a password
/// in the places where passwords are is shown nowhere.
pub fn cli(bytes: &[u8]) {
    let mut arguments = Vec::new();
    let mut variables = Vec::new();
    for line in bytes.split(|byte| *byte == b'\n') {
        match line.strip_prefix(b"$") {
            Some(pair) => variables.extend(variable(pair)),
            None if line.is_empty() => {}
            None => arguments.push(OsString::from_vec(line.to_vec())),
        }
    }
    let public = |text: &OsString| !text.to_string_lossy().to_lowercase().contains(MARK);
    let open = variables.iter().filter(|(name, _)| !is_secret(name));
    let clean = arguments.iter().all(public) && open.map(|(_, value)| value).all(public);
    check(&arguments, &variables, clean);

    // Mistakes that bring a password into the arguments.
    let tail = arguments.first().cloned().unwrap_or_default();
    let mistake = |before: &str, after: &str| {
        let mut word = OsString::from(format!("{before}{MARK}"));
        word.push(&tail);
        word.push(after);
        vec![word]
    };
    for before in [
        "postgres://u:",
        "--database-url=postgres://u:",
        "--database-url=host=h password=",
        "--json=postgres://u:",
        "--help=postgres://u:",
        "--version=postgres://u:",
    ] {
        check(&mistake(before, "@h"), &variables, true);
    }
    for command in ["serve", "check", "status", "sevre"] {
        let arguments = [vec![command.into()], mistake("postgres://u:", "@h/d")].concat();
        check(&arguments, &variables, true);
        let arguments = [arguments, mistake("host=h password=", "")].concat();
        check(&arguments, &variables, true);
    }
}

fn is_secret(name: &str) -> bool {
    matches!(name, "DATABASE_URL" | "PGPASSWORD")
}

fn variable(pair: &[u8]) -> Option<(String, OsString)> {
    let at = pair.iter().position(|byte| *byte == b'=')?;
    let name = String::from_utf8(pair[..at].to_vec()).ok()?;
    // Files are read where these say; nothing here is about files.
    let reads = ["HOME", "PGPASSFILE", "PGSSLROOTCERT"].contains(&name.as_str());
    (!reads).then(|| (name, OsString::from_vec(pair[at + 1..].to_vec())))
}

/// `clean` says that no password is where it may be shown.
fn check(arguments: &[OsString], variables: &[(String, OsString)], clean: bool) {
    let clean = clean
        && variables
            .iter()
            .all(|(name, value)| is_secret(name) || !value.to_string_lossy().contains(MARK));
    let environment: Environment = variables.iter().cloned().collect();
    let first = arguments.first().and_then(|word| word.to_str());
    let asks = matches!(first, Some("check" | "status"));
    match cli::parse(arguments.iter().cloned(), &environment) {
        Ok(Command::Print(text)) => assert!(text.ends_with('\n')),
        Ok(command) => {
            let serves = matches!(command, Command::Serve(_));
            assert!(!(serves && asks), "{arguments:?}");
            if clean && serves {
                holds_no_password(&format!("{command:?}"));
            }
        }
        Err(error) => {
            let said = error.to_string();
            let allowed: &[u8] = if asks { &[1] } else { &[1, 2] };
            assert!(allowed.contains(&error.exit_code), "{arguments:?}: {said}");
            if clean {
                is_a_plain_line(&said);
                holds_no_password(&format!("{error:?}"));
            } else {
                assert!(!said.contains(char::is_control), "{said:?}");
            }
        }
    }
}
