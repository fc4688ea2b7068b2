//! The head of a request: what clients really send, checked as nginx checks it, and
//! rewritten so that tiny_http can only read it as one request without a body.

use super::access::Headers;
use super::response::{BodyPart, Framing, Response};
use super::routes;

/// Longest head. Real ones hold some hundred bytes; nginx takes in 32 KiB.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// No method has a longer name: what goes on without a space is no request.
const MAX_METHOD_BYTES: usize = 32;

/// Why a request is refused before anybody looks what it asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The first line is not `METHOD target HTTP/1.1`.
    RequestLine,
    /// It speaks a version of HTTP other than 1.
    Version,
    /// A header line has no name, or a name that is none.
    Header,
    /// A header's value holds a zero byte or a bare carriage return.
    Value,
    /// HTTP/1.1 without `Host`, with two, or with one that is no name.
    Host,
    /// Nobody can know where its body ends.
    Length,
    /// It brings a body.
    Body,
    /// Its head is longer than [`MAX_HEAD_BYTES`].
    TooLarge,
    /// It was begun and not finished in time.
    TimedOut,
    /// The client stopped sending in the middle of it.
    CutShort,
    /// Too many requests wait for PostgreSQL already.
    Overloaded,
    /// tiny_http did not take it.
    Internal,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 12] = [
        Refusal::RequestLine,
        Refusal::Version,
        Refusal::Header,
        Refusal::Value,
        Refusal::Host,
        Refusal::Length,
        Refusal::Body,
        Refusal::TooLarge,
        Refusal::TimedOut,
        Refusal::CutShort,
        Refusal::Overloaded,
        Refusal::Internal,
    ];

    /// Returns the word for this reason.
    pub const fn word(self) -> &'static str {
        self.explained().1
    }

    /// Returns the answer; the connection ends with it.
    pub fn reply(self) -> Response {
        let (status, word, detail) = self.explained();
        match self {
            Refusal::Length => routes::unclear_length(),
            Refusal::Body => routes::no_body_wanted(),
            _ => Response::refusal(status, word, detail).and_close(),
        }
    }

    const fn explained(self) -> (u16, &'static str, &'static str) {
        match self {
            Refusal::RequestLine => (
                400,
                "bad_request_line",
                "begin with a method, a target and HTTP/1.1, separated by spaces",
            ),
            Refusal::Version => (505, "bad_version", "use HTTP/1.1 or HTTP/1.0"),
            Refusal::Header => (
                400,
                "bad_header",
                "write each header on one line, as name, colon and value",
            ),
            Refusal::Value => (
                400,
                "bad_header_value",
                "send no zero byte and no bare carriage return",
            ),
            Refusal::Host => (400, "bad_host", "send one Host header with a host name"),
            Refusal::Length => (400, "unclear_length", ""),
            Refusal::Body => (413, "body_refused", ""),
            Refusal::TooLarge => (
                431,
                "head_too_large",
                "send at most 64 KiB of request line and headers",
            ),
            Refusal::TimedOut => (
                408,
                "request_timed_out",
                "send the whole request within the time limit",
            ),
            Refusal::CutShort => (400, "cut_short", "send the whole request"),
            Refusal::Overloaded => (
                503,
                "overloaded",
                "too many requests wait for PostgreSQL; ask again later",
            ),
            Refusal::Internal => (500, "internal", "pgpair could not read the request"),
        }
    }
}

/// A whole head.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a> {
    /// Bytes that it takes, the empty line at its end included.
    pub length: usize,
    /// How the client wants its answer.
    pub framing: Framing,
    /// Why it is refused although it can be read.
    pub refusal: Option<Refusal>,
    /// What it says of where it comes from.
    pub headers: Headers<'a>,
    method: &'a [u8],
    target: &'a [u8],
    accept: Vec<&'a [u8]>,
}

/// Reads the head at the beginning of `bytes`; `None` if its end is not there yet.
///
/// # Errors
///
/// Fails as soon as it is certain that no head that could be answered comes of it.
pub fn parse(bytes: &[u8]) -> Result<Option<Head<'_>>, Refusal> {
    let mut lines = Lines { bytes, at: 0 };
    let Some(first) = lines.next() else {
        return may_be_a_method(bytes).map(|()| None);
    };
    let (method, target, http_1_0) = request_line(first)?;
    let mut fields = Fields::default();
    loop {
        match lines.next() {
            None => return Ok(None),
            Some([] | [b'\r']) => break,
            Some(line) => fields.take(line)?,
        }
    }
    fields.check_host(http_1_0)?;
    let (authority, target) = origin_form(method, target);
    Ok(Some(Head {
        length: lines.at,
        framing: Framing {
            body: body_part(method),
            http_1_0,
            keep_alive: fields.keep_alive(http_1_0),
        },
        refusal: fields.body(),
        headers: Headers {
            authority,
            ..fields.headers
        },
        method,
        target,
        accept: fields.accept,
    }))
}

/// Counts the line ends before a request: clients send some after a body, and
/// nginx passes over them.
pub fn leading_line_ends(bytes: &[u8]) -> usize {
    let ends = bytes.iter().take_while(|it| matches!(it, b'\r' | b'\n'));
    ends.count()
}

/// Says whether an empty line ends in `bytes` after the first `scanned` of them.
pub fn has_end(bytes: &[u8], scanned: usize) -> bool {
    let from = &bytes[scanned.saturating_sub(2)..];
    let mut ends = from.split(|it| *it == b'\n').skip(1);
    // The last piece is no line yet.
    let Some(mut line) = ends.next() else {
        return false;
    };
    for next in ends {
        if matches!(line, [] | [b'\r']) {
            return true;
        }
        line = next;
    }
    false
}

impl Head<'_> {
    /// Appends it as tiny_http takes it: in ASCII, and with nothing that would end
    /// the connection, announce a body or ask for more than an answer.
    pub fn write_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.method);
        out.push(b' ');
        for byte in self.target {
            match byte {
                0x80.. => out.extend_from_slice(format!("%{byte:02X}").as_bytes()),
                _ => out.push(*byte),
            }
        }
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for value in &self.accept {
            out.extend_from_slice(b"Accept: ");
            out.extend(value.iter().map(|byte| match byte {
                b' '..=b'~' => *byte,
                _ => b'?',
            }));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Goes through the lines that have ended, with a line feed or with carriage return
/// and line feed, which stays.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = &self.bytes[self.at..];
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        self.at += length + 1;
        Some(&rest[..length])
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// A method is a token, by RFC 9110.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn may_be_a_method(bytes: &[u8]) -> Result<(), Refusal> {
    let word = bytes.split(|byte| *byte == b' ').next().unwrap_or(bytes);
    let fits = word.len() <= MAX_METHOD_BYTES && word.iter().all(|byte| is_token(*byte));
    fits.then_some(()).ok_or(Refusal::RequestLine)
}

/// Splits the request line; says whether it speaks HTTP/1.0.
fn request_line(line: &[u8]) -> Result<(&[u8], &[u8], bool), Refusal> {
    may_be_a_method(line)?;
    let line = without_cr(line);
    let mut words = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty());
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Refusal::RequestLine);
    };
    // A request that begins with a space has no method.
    let clean = !line.starts_with(b" ") && target.iter().all(|byte| !byte.is_ascii_control());
    if !clean {
        return Err(Refusal::RequestLine);
    }
    Ok((method, target, is_http_1_0(version)?))
}

fn is_http_1_0(version: &[u8]) -> Result<bool, Refusal> {
    let number = version.strip_prefix(b"HTTP/");
    let number = number.ok_or(Refusal::RequestLine)?;
    let [major, b'.', minor @ ..] = number else {
        return Err(Refusal::RequestLine);
    };
    let is_number = matches!(minor.len(), 1..=2) && minor.iter().all(u8::is_ascii_digit);
    match major {
        // A later minor version is answered as the last one that we know.
        b'1' if is_number => Ok(minor.iter().all(|digit| *digit == b'0')),
        b'2'..=b'9' if is_number => Err(Refusal::Version),
        _ => Err(Refusal::RequestLine),
    }
}

fn body_part(method: &[u8]) -> BodyPart {
    match method {
        b"HEAD" => BodyPart::Length,
        b"OPTIONS" => BodyPart::Nothing,
        _ => BodyPart::Whole,
    }
}

/// Splits a target into host and path with query: it may hold scheme and host, as to a
/// proxy, and a fragment. `OPTIONS *`, which asks about the whole server, is a
/// check as `OPTIONS /` is.
fn origin_form<'a>(method: &[u8], target: &'a [u8]) -> (Option<&'a [u8]>, &'a [u8]) {
    if (method, target) == (b"OPTIONS", b"*") {
        return (None, b"/");
    }
    let path = target.split(|byte| *byte == b'#').next().unwrap_or(target);
    let Some(scheme) = path.iter().position(|byte| *byte == b':') else {
        return (None, path);
    };
    let of_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    let named = scheme > 0 && path[..scheme].iter().all(of_scheme);
    match path[scheme..].strip_prefix(b"://") {
        Some(rest) if named => match rest.iter().position(|byte| *byte == b'/') {
            Some(at) => (Some(&rest[..at]), &rest[at..]),
            None => (Some(rest), b"/"),
        },
        _ => (None, path),
    }
}

/// What the headers say, as far as it matters to us.
struct Fields<'a> {
    hosts: usize,
    host_is_good: bool,
    headers: Headers<'a>,
    closes: bool,
    keeps_alive: bool,
    length: Option<&'a [u8]>,
    length_is_clear: bool,
    encoded: bool,
    accept: Vec<&'a [u8]>,
}

impl Default for Fields<'_> {
    fn default() -> Self {
        Fields {
            hosts: 0,
            host_is_good: true,
            headers: Headers::default(),
            closes: false,
            keeps_alive: false,
            length: None,
            length_is_clear: true,
            encoded: false,
            accept: Vec::new(),
        }
    }
}

impl<'a> Fields<'a> {
    fn take(&mut self, line: &'a [u8]) -> Result<(), Refusal> {
        let line = without_cr(line);
        // Without a colon it has a name and no value, says nginx.
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = line.split_at(colon.unwrap_or(line.len()));
        let is_bad = |byte: &u8| *byte <= b' ' || *byte == 0x7f;
        if name.is_empty() || name.iter().any(is_bad) {
            return Err(Refusal::Header);
        }
        if value.iter().any(|byte| matches!(byte, 0 | b'\r')) {
            return Err(Refusal::Value);
        }
        self.know(name, value.strip_prefix(b":").unwrap_or(value).trim_ascii());
        Ok(())
    }

    fn know(&mut self, name: &[u8], value: &'a [u8]) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        if is("Host") {
            self.hosts += 1;
            self.headers.host = Some(value);
            self.host_is_good &= !value
                .iter()
                .any(|it| it.is_ascii_control() || b" /".contains(it));
        } else if is("Connection") {
            let tokens = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
            for token in tokens {
                self.closes |= token.eq_ignore_ascii_case(b"close");
                self.keeps_alive |= token.eq_ignore_ascii_case(b"keep-alive");
            }
        } else if is("Content-Length") {
            let digits = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
            self.length_is_clear &= digits && self.length.is_none_or(|first| first == value);
            self.length.get_or_insert(value);
        } else if is("Transfer-Encoding") {
            self.encoded = true;
        } else if is("Accept") {
            self.accept.push(value);
        } else if is("Sec-Fetch-Site") {
            // Browsers send one; of two, one that lets in lets nobody in.
            let first = self.headers.fetch_site;
            self.headers.fetch_site = first.map_or(Some(value), |_| Some(b"several"));
        } else if is("Origin") || is("Referer") || is("Accept-Language") {
            self.headers.of_a_browser = true;
        }
    }

    fn check_host(&self, http_1_0: bool) -> Result<(), Refusal> {
        let enough = self.hosts == 1 || (http_1_0 && self.hosts == 0);
        (enough && self.host_is_good)
            .then_some(())
            .ok_or(Refusal::Host)
    }

    fn keep_alive(&self, http_1_0: bool) -> bool {
        !self.closes && (!http_1_0 || self.keeps_alive)
    }

    fn body(&self) -> Option<Refusal> {
        let announced = self.length.is_some();
        if !self.length_is_clear || (self.encoded && announced) {
            return Some(Refusal::Length);
        }
        let empty = self
            .length
            .is_none_or(|text| text.iter().all(|digit| *digit == b'0'));
        (self.encoded || !empty).then_some(Refusal::Body)
    }
}

#[cfg(test)]
mod tests;
