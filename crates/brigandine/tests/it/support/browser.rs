//! A browser that is told what to do: Chromium by WebDriver, without a window.
//!
//! WebDriver is JSON over HTTP, one request after the other, so the client is small; see
//! `docs/design/dependencies.md`.

use super::{Process, until};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// For one command; a page that takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(100);

/// Chromium with one tab. Ends with its driver.
pub(crate) struct Browser {
    driver: Process,
    port: String,
    session: String,
}

impl Browser {
    /// Starts one with nothing remembered; `profile` is where it keeps what it needs.
    pub(crate) fn start(profile: &Path) -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null());
        let found = Command::new("chromedriver").arg("--version").output();
        assert!(
            found.is_ok_and(|done| done.status.success()),
            "this test needs Chromium and its driver (Debian: chromium, chromium-driver); `cargo xtask test` installs \
             them"
        );
        let driver = Process::start(command);
        let started = "was started successfully on port ";
        let port = loop {
            let line = driver.line();
            if let Some((_, port)) = line.split_once(started) {
                break port.trim_end_matches('.').to_owned();
            }
        };
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

    /// Asks the driver; what it gives, or its refusal as a panic.
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

    /// A command of Chromium's own protocol.
    fn chromium(&self, name: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({"cmd": name, "params": parameters}))
    }

    /// Makes the window this wide.
    pub(crate) fn resize(&self, width: u32) {
        let metrics =
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.chromium("Emulation.setDeviceMetricsOverride", &metrics);
    }

    /// Lets pages run scripts, or not.
    pub(crate) fn allow_scripts(&self, yes: bool) {
        self.chromium("Emulation.setScriptExecutionDisabled", &json!({"value": !yes}));
    }

    /// Opens a page and waits until all that it loads is there.
    pub(crate) fn open(&self, address: &str) {
        self.command("/url", &json!({"url": address}));
    }

    /// What a script's `return` gives.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until a script gives something that is true.
    pub(crate) fn wait(&self, script: &str) {
        until(|| self.run(script), |found| *found == Value::Bool(true));
    }

    /// What was written to the console since the last time: errors of scripts, files that could not be loaded.
    pub(crate) fn console(&self) -> Vec<String> {
        let found = self.command("/se/log", &json!({"type": "browser"}));
        let entries = found.as_array().cloned().unwrap_or_default();
        entries.iter().map(|entry| format!("{} {}", entry["level"], entry["message"])).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Chromium ends with its session, and would outlive a driver that is killed.
        let _ = self.ask("DELETE", &format!("/session/{}", self.session), &Value::Null);
        self.driver.signal("TERM");
    }
}
