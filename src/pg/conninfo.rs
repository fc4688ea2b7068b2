//! libpq's connection strings: `postgresql://…` and `key=value`.
//!
//! Errors name the parameter, never a value: in a string that is not understood
//! any part may be the password.

use std::collections::BTreeMap;
use std::fmt;

use super::parameters;

/// The parameters of a connection string, each with the last value that it was
/// given, which may be empty.
pub type Parameters = BTreeMap<String, String>;

/// Why a connection string cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub enum ConninfoError {
    /// It holds nothing.
    Empty,
    /// It looks like a URI of something else.
    Scheme,
    /// A `%` that is not followed by two hexadecimal digits, or not UTF-8.
    Percent,
    /// An address in brackets that is empty, does not end, or that something else
    /// than a port follows.
    Bracket,
    /// A word without `=`.
    NoValue,
    /// A parameter of a URI with two `=`.
    TwoValues,
    /// A quoted value that does not end.
    Quote,
    /// A parameter that libpq does not know; its name may be a piece of the password.
    Unknown,
    /// A zero byte.
    Nul,
}

impl fmt::Display for ConninfoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConninfoError::Empty => f.write_str("is empty"),
            ConninfoError::Scheme => {
                f.write_str("must begin with postgresql:// or postgres://, or be key=value pairs")
            }
            ConninfoError::Percent => {
                f.write_str("has a % that two hexadecimal digits of UTF-8 do not follow")
            }
            ConninfoError::Bracket => f.write_str("has a [ without an address and its ]"),
            ConninfoError::NoValue => f.write_str("has a word without = (key=value is needed)"),
            ConninfoError::TwoValues => {
                f.write_str("has a parameter with two = (write the second as %3D)")
            }
            ConninfoError::Quote => f.write_str("has a quoted value that does not end"),
            ConninfoError::Unknown => f.write_str(
                "has a parameter that libpq does not know; use host, port, dbname, user, \
                 password, sslmode, sslrootcert and what else libpq has",
            ),
            ConninfoError::Nul => f.write_str("has a zero byte"),
        }
    }
}

impl std::error::Error for ConninfoError {}

/// Parses a connection string of either form.
///
/// # Errors
///
/// Fails if it is neither, or names a parameter that libpq does not know.
pub fn parse(text: &str) -> Result<Parameters, ConninfoError> {
    if text.contains('\0') {
        return Err(ConninfoError::Nul);
    }
    if text.trim().is_empty() {
        return Err(ConninfoError::Empty);
    }
    let mut schemes = ["postgresql://", "postgres://"].into_iter();
    match schemes.find_map(|scheme| text.strip_prefix(scheme)) {
        Some(rest) => parse_uri(rest),
        None if text.contains("://") && !text.contains('=') => Err(ConninfoError::Scheme),
        None => parse_pairs(text),
    }
}

fn insert(found: &mut Parameters, name: &str, value: String) -> Result<(), ConninfoError> {
    // An old spelling that libpq still takes.
    if name == "requiressl" {
        let mode = if value.starts_with('1') {
            "require"
        } else {
            "prefer"
        };
        found.insert("sslmode".to_owned(), mode.to_owned());
        return Ok(());
    }
    if !parameters::is_known(name) {
        return Err(ConninfoError::Unknown);
    }
    found.insert(name.to_owned(), value);
    Ok(())
}

/// `[user[:password]@][host[:port][,…]][/dbname][?name=value[&…]]`
fn parse_uri(rest: &str) -> Result<Parameters, ConninfoError> {
    let mut found = Parameters::new();
    let (user_info, rest) = match rest.split('/').next().and_then(|it| it.find('@')) {
        Some(at) => (Some(&rest[..at]), &rest[at + 1..]),
        None => (None, rest),
    };
    if let Some(user_info) = user_info {
        let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
        set(&mut found, "user", user)?;
        set(&mut found, "password", password)?;
    }
    let rest = parse_hosts(&mut found, rest)?;
    let (dbname, query) = rest.split_once('?').unwrap_or((rest, ""));
    set(
        &mut found,
        "dbname",
        dbname.strip_prefix('/').unwrap_or(dbname),
    )?;
    if !query.is_empty() {
        parse_query(&mut found, query)?;
    }
    Ok(found)
}

fn parse_query(found: &mut Parameters, query: &str) -> Result<(), ConninfoError> {
    for pair in query.strip_suffix('&').unwrap_or(query).split('&') {
        let (name, value) = pair.split_once('=').ok_or(ConninfoError::NoValue)?;
        if value.contains('=') {
            return Err(ConninfoError::TwoValues);
        }
        let (name, value) = (decode(name)?, decode(value)?);
        // An old spelling that libpq still takes from JDBC URLs.
        match (name.as_str(), value.as_str()) {
            ("ssl", "true") => insert(found, "sslmode", "require".to_owned())?,
            _ => insert(found, &name, value)?,
        }
    }
    Ok(())
}

fn set(found: &mut Parameters, name: &str, value: &str) -> Result<(), ConninfoError> {
    if value.is_empty() {
        return Ok(());
    }
    insert(found, name, decode(value)?)
}

/// Takes `host[:port][,…]` off the front and returns the rest.
fn parse_hosts<'a>(found: &mut Parameters, text: &'a str) -> Result<&'a str, ConninfoError> {
    let mut names = Vec::new();
    let mut ports = Vec::new();
    let mut rest = text;
    loop {
        let (name, after) = take_host(rest)?;
        let (port, after) = match after.strip_prefix(':') {
            Some(after) => after.split_at(after.find(['/', '?', ',']).unwrap_or(after.len())),
            None => ("", after),
        };
        names.push(name);
        ports.push(port);
        match after.strip_prefix(',') {
            Some(more) => rest = more,
            None => {
                rest = after;
                break;
            }
        }
    }
    set(found, "host", &names.join(","))?;
    set(found, "port", &ports.join(","))?;
    Ok(rest)
}

/// Takes a name, or an address in brackets.
fn take_host(text: &str) -> Result<(&str, &str), ConninfoError> {
    let Some(rest) = text.strip_prefix('[') else {
        return Ok(text.split_at(text.find([':', '/', '?', ',']).unwrap_or(text.len())));
    };
    let (address, after) = rest.split_once(']').ok_or(ConninfoError::Bracket)?;
    if address.is_empty() || !(after.is_empty() || after.starts_with([':', '/', '?', ','])) {
        return Err(ConninfoError::Bracket);
    }
    Ok((address, after))
}

fn decode(text: &str) -> Result<String, ConninfoError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        match (digit(), digit()) {
            (Some(high), Some(low)) if (high, low) != (0, 0) => {
                bytes.push(u8::try_from(high * 16 + low).map_err(|_| ConninfoError::Percent)?);
            }
            _ => return Err(ConninfoError::Percent),
        }
    }
    String::from_utf8(bytes).map_err(|_| ConninfoError::Percent)
}

/// What C calls space: nothing else ends a value.
fn is_space(character: char) -> bool {
    matches!(character, ' ' | '\t'..='\r')
}

/// `name = value`, the value perhaps in single quotes, with backslash escapes.
fn parse_pairs(text: &str) -> Result<Parameters, ConninfoError> {
    let mut found = Parameters::new();
    let mut rest = text.trim_start_matches(is_space);
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(ConninfoError::NoValue)?;
        let name = name.trim_end_matches(is_space);
        if name.is_empty() || name.contains(is_space) {
            return Err(ConninfoError::NoValue);
        }
        let (value, after) = take_value(after.trim_start_matches(is_space))?;
        insert(&mut found, name, value)?;
        rest = after.trim_start_matches(is_space);
    }
    Ok(found)
}

fn take_value(text: &str) -> Result<(String, &str), ConninfoError> {
    let (quoted, body) = match text.strip_prefix('\'') {
        Some(body) => (true, body),
        None => (false, text),
    };
    let mut value = String::new();
    let mut characters = body.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            '\'' if quoted => return Ok((value, &body[at + 1..])),
            space if !quoted && is_space(space) => return Ok((value, &body[at..])),
            other => value.push(other),
        }
    }
    if quoted {
        return Err(ConninfoError::Quote);
    }
    Ok((value, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        match parse(text) {
            Ok(found) => found
                .iter()
                .map(|(name, value)| format!("{name}={value}"))
                .collect::<Vec<_>>()
                .join(" "),
            Err(error) => format!("{error:?}"),
        }
    }

    #[test]
    fn uris_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("postgresql://", ""),
            ("postgres://h", "host=h"),
            ("postgresql://h:1/d", "dbname=d host=h port=1"),
            ("postgresql://u@h/d", "dbname=d host=h user=u"),
            ("postgresql://u:p@h", "host=h password=p user=u"),
            ("postgresql://u:p%40%3A@h", "host=h password=p@: user=u"),
            (
                "postgresql://u:p?x@h?port=1",
                "host=h password=p?x port=1 user=u",
            ),
            ("postgresql://a,b/d", "dbname=d host=a,b port=,"),
            ("postgresql://a:1,b:2", "host=a,b port=1,2"),
            ("postgresql://a:1,b", "host=a,b port=1,"),
            ("postgresql://[::1]:1/d", "dbname=d host=::1 port=1"),
            ("postgresql://[::1],b", "host=::1,b port=,"),
            ("postgresql://%2Frun/d", "dbname=d host=/run"),
            (
                "postgresql:///d?host=/run&port=1",
                "dbname=d host=/run port=1",
            ),
            ("postgresql://h?sslmode=require", "host=h sslmode=require"),
            ("postgresql://h?ssl=true", "host=h sslmode=require"),
            (
                "postgresql://h/d?keepalives=1",
                "dbname=d host=h keepalives=1",
            ),
            ("postgresql://h/?user=u%20x", "host=h user=u x"),
            ("postgresql://h?password=&port=", "host=h password= port="),
            ("postgresql://h/d/e?user=u?v", "dbname=d/e host=h user=u?v"),
            ("postgresql://[a/b?c]:1/d", "dbname=d host=a/b?c port=1"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn pairs_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("host=h port=1", "host=h port=1"),
            ("  host = h  ", "host=h"),
            ("password='a b' user=u", "password=a b user=u"),
            (r"password='a\'b\\c'", r"password=a'b\c"),
            (r"password=a\ b", "password=a b"),
            ("host=a,b", "host=a,b"),
            ("password=''", "password="),
            ("sslmode=require sslmode=", "sslmode="),
            ("requiressl=1", "sslmode=require"),
            ("requiressl=0", "sslmode=prefer"),
            ("password=p=q", "password=p=q"),
            ("host='postgres://x'", "host=postgres://x"),
            ("password=a\u{a0}b\x0bhost=h", "host=h password=a\u{a0}b"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_without_a_value() {
        for (text, expected) in [
            ("", "Empty"),
            ("  ", "Empty"),
            ("mysql://u:hunter2@h", "Scheme"),
            ("postgresql://u:hunter2%@h", "Percent"),
            ("postgresql://u:hunter2%zz@h", "Percent"),
            ("postgresql://u:hunter2%00@h", "Percent"),
            ("postgresql://[::1", "Bracket"),
            ("postgresql://[]", "Bracket"),
            ("postgresql://[::1]5", "Bracket"),
            ("postgresql://h?hunter2", "NoValue"),
            ("postgresql://h?user=u&&port=1", "NoValue"),
            ("postgresql://h?password=hunter2=", "TwoValues"),
            ("host=h password=my hunter=x", "Unknown"),
            ("hunter2", "NoValue"),
            ("host=h hunter2", "NoValue"),
            ("password='hunter2", "Quote"),
            ("postgresql://h?Hunter2=x", "Unknown"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
            let said = parse(text).expect_err("refused").to_string();
            assert!(!said.to_lowercase().contains("hunter2"), "{text}: {said}");
        }
    }
}
