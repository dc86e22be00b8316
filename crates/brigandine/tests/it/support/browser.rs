//! Controls a browser: Chromium without a window, over WebDriver.
//!
//! WebDriver is JSON over HTTP, with one request after the other, so this client is small; see
//! `docs/design/dependencies.md`.

use super::{Process, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// The time limit of one command. A page that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(100);

/// How often the driver is started. It takes a free port of IPv4 and then the same one of IPv6, and ends if another
/// program, such as the driver of another test, has that one.
const STARTS: usize = 8;

/// Starts the driver. Returns its port, too.
fn drive(command: impl Fn() -> Command) -> (Process, String) {
    let mut said = Vec::new();
    for _ in 0..STARTS {
        let driver = Process::start(command());
        while let Some(line) = driver.next_line() {
            if let Some((_, port)) = line.split_once("was started successfully on port ") {
                let port = port.trim_end_matches('.').to_owned();
                return (driver, port);
            }
            said.push(line);
        }
    }
    panic!("the driver of Chromium does not start:\n{}", said.join("\n"));
}

/// Chromium with one tab. When this is dropped, Chromium and its driver end.
pub(crate) struct Browser {
    driver: Process,
    port: String,
    session: String,
}

impl Browser {
    /// Starts Chromium with an empty profile, which it stores at `profile`.
    pub(crate) fn start(profile: &Path) -> Self {
        let command = || {
            let mut command = Command::new("chromedriver");
            command.arg("--port=0").stdin(Stdio::null());
            command
        };
        let found = Command::new("chromedriver").arg("--version").output();
        assert!(
            found.is_ok_and(|done| done.status.success()),
            "this test needs Chromium and its driver (Debian: chromium, chromium-driver); `cargo xtask test` installs \
             them"
        );
        let (driver, port) = drive(command);
        let mut browser = Self { driver, port, session: String::new() };
        let data = format!("--user-data-dir={}", profile.display());
        let capabilities = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"args": [
                "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--disable-crash-reporter", "--hide-scrollbars", data,
            ]},
        }}});
        let made = browser.request("POST", "/session", &capabilities);
        browser.session = made["sessionId"].as_str().expect("a session").to_owned();
        browser
    }

    /// Sends a request to the driver and returns its answer. Panics if the driver refuses the request.
    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, value) = self.ask(method, path, body).expect("the driver answers");
        assert!(status == 200, "{method} {path}: {value:#}");
        value["value"].clone()
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> std::io::Result<(u16, Value)> {
        let mut socket = TcpStream::connect(format!("127.0.0.1:{}", self.port))?;
        socket.set_read_timeout(Some(PATIENCE))?;
        let body = if method == "POST" { body.to_string() } else { String::new() };
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\nconnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        let mut answer = BufReader::new(socket);
        let mut line = String::new();
        answer.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        let mut length = 0;
        while line.trim() != "" {
            line.clear();
            answer.read_line(&mut line)?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut text = vec![0; length];
        answer.read_exact(&mut text)?;
        Ok((status, serde_json::from_slice(&text)?))
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        self.request("POST", &format!("/session/{}{path}", self.session), body)
    }

    /// Runs a command of Chromium's own protocol.
    fn chromium(&self, name: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({"cmd": name, "params": parameters}))
    }

    /// Sets the width of the window.
    pub(crate) fn resize(&self, width: u32) {
        let metrics =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.chromium("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Chooses the colours that the visitor prefers: `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.chromium("Emulation.setEmulatedMedia", &json!({"features": [feature]}));
    }

    /// Allows or forbids scripts on pages.
    pub(crate) fn allow_scripts(&self, yes: bool) {
        self.chromium("Emulation.setScriptExecutionDisabled", &json!({"value": !yes}));
    }

    /// Opens a page and waits until everything that it loads has arrived.
    pub(crate) fn open(&self, address: &str) {
        self.command("/url", &json!({"url": address}));
    }

    /// Runs a script and returns the value of its `return`.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script returns `true`.
    pub(crate) fn wait(&self, script: &str) {
        until(|| self.run(script), |found| *found == Value::Bool(true));
    }

    /// What was written to the console since the last call: errors of scripts, and files that could not be loaded.
    pub(crate) fn console(&self) -> Vec<String> {
        let found = self.command("/se/log", &json!({"type": "browser"}));
        let entries = found.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session. If only the driver were killed, Chromium would stay alive.
        let _ = self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        self.driver.signal("TERM");
    }
}
