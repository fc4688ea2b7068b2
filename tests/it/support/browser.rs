//! A headless Chromium, told what to do over WebDriver: plain HTTP and JSON.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use base64::Engine;
use serde_json::{Value, json};

use super::packages::Daemon;
use super::{eventually, ms};

/// A browser takes its time to start on a busy machine.
const START_AT_MOST: Duration = Duration::from_secs(60);

/// A browser with one window.
pub struct Browser {
    driver: Daemon,
    port: u16,
    session: String,
}

impl Browser {
    pub fn start() -> Browser {
        let driver = Daemon::start("chromedriver", |_| vec!["--port=0".to_owned()]);
        let port = eventually(START_AT_MOST, "the driver listens", || {
            let said = driver.said();
            let (_, rest) = said.split_once("started successfully on port ")?;
            let (port, _) = rest.split_once('.')?;
            port.parse().ok()
        });
        let mut browser = Browser {
            driver,
            port,
            session: String::new(),
        };
        let profile = browser.driver.directory().join("profile");
        let profile = format!("--user-data-dir={}", profile.display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            // It reaches this host and nobody else.
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
            "--window-size=1200,1000",
            &profile,
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": {"binary": "/usr/bin/chromium", "args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = browser.ask("POST", "/session", Some(&wanted));
        let session = made["sessionId"].as_str().expect("a session");
        browser.session = format!("/session/{session}");
        browser
    }

    /// Opens a page.
    pub fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url }));
    }

    pub fn title(&self) -> String {
        let title = self.ask("GET", &format!("{}/title", self.session), None);
        title.as_str().expect("a title").to_owned()
    }

    /// Waits for the page's title; returns how long that took.
    pub fn comes_to_be_titled(&self, title: &str, within: Duration) -> Duration {
        let began = Instant::now();
        let mut last = String::new();
        while began.elapsed() < within {
            last = self.title();
            if last == title {
                return began.elapsed();
            }
            std::thread::sleep(ms(20));
        }
        panic!("{last:?} is not {title:?} after {within:?}");
    }

    /// Runs a script's body in the page and returns what that returns.
    pub fn script(&self, body: &str) -> Value {
        self.post("/execute/sync", &json!({ "script": body, "args": [] }))
    }

    /// Gives the browser itself a command (Chrome's DevTools protocol).
    pub fn command(&self, name: &str, parameters: Value) {
        let what = json!({ "cmd": name, "params": parameters });
        self.post("/goog/cdp/execute", &what);
    }

    /// Returns the console's messages since the last call: errors, and what the
    /// page's policy has kept from happening.
    pub fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" }));
        let entries = entries.as_array().expect("a list");
        entries
            .iter()
            .map(|entry| format!("{}: {}", entry["level"], entry["message"]))
            .collect()
    }

    /// Keeps a picture of the page, for people: `target/screenshots/{name}.png`.
    pub fn screenshot(&self, name: &str) {
        let picture = self.ask("GET", &format!("{}/screenshot", self.session), None);
        let encoded = picture.as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded);
        let bytes = bytes.expect("it is base64");
        assert!(bytes.starts_with(b"\x89PNG"), "it is a PNG");
        let directory = screenshots();
        fs::create_dir_all(&directory).expect("a directory");
        fs::write(directory.join(format!("{name}.png")), bytes).expect("writes");
    }

    fn post(&self, path: &str, what: &Value) -> Value {
        self.ask("POST", &format!("{}{path}", self.session), Some(what))
    }

    fn ask(&self, method: &str, path: &str, what: Option<&Value>) -> Value {
        let body = what.map(Value::to_string).unwrap_or_default();
        let answer = exchange(self.port, method, path, &body)
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let mut answer: Value = serde_json::from_str(&answer).expect("JSON");
        let value = answer["value"].take();
        assert!(value["error"].is_null(), "{method} {path}: {value}");
        value
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // It ends the browser; the driver follows.
        let _ = exchange(self.port, "DELETE", &self.session, "");
    }
}

fn screenshots() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots")
}

/// One request, on a connection of its own. The driver writes its headers
/// without a blank after the colon.
fn exchange(port: u16, method: &str, path: &str, body: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(START_AT_MOST))?;
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n\
         Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut bytes = Vec::new();
    let mut more = [0; 64 * 1024];
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, rest)) = text.split_once("\r\n\r\n") {
            let lower = head.to_lowercase();
            let length = lower
                .lines()
                .find_map(|it| it.strip_prefix("content-length:"));
            let length: Option<usize> = length.and_then(|it| it.trim().parse().ok());
            if length.is_some_and(|length| rest.len() >= length) {
                return Ok(rest.to_owned());
            }
        }
        match stream.read(&mut more)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => bytes.extend_from_slice(&more[..count]),
        }
    }
}
