//! The commands of which steps consist. Each is printed before it runs, so that it can be run alone.

use std::io::{IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::thread;

/// The command that failed; its own output says why.
pub(crate) struct Failed(pub(crate) String);

/// A program, its arguments, and the variables that are added to its environment.
pub(crate) struct Line {
    program: String,
    words: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

pub(crate) fn cargo(words: &[&str]) -> Line {
    Line::new("cargo", words)
}

impl Line {
    pub(crate) fn new(program: &str, words: &[&str]) -> Self {
        Self {
            program: program.to_owned(),
            words: words.iter().map(ToString::to_string).collect(),
            environment: Vec::new(),
        }
    }

    pub(crate) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.environment.push((name, value.to_owned()));
        self
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.words);
        for (name, value) in &self.environment {
            command.env(name, value);
        }
        command
    }

    /// The line as one would type it in a shell.
    pub(crate) fn shown(&self) -> String {
        let quoted = |text: &String| match text.is_empty() || text.contains(' ') {
            true => format!("'{text}'"),
            false => text.clone(),
        };
        let settings =
            self.environment.iter().map(|(name, value)| format!("{name}={}", quoted(value)));
        let words = std::iter::once(&self.program).chain(&self.words).map(quoted);
        settings.chain(words).collect::<Vec<_>>().join(" ")
    }

    /// Prints the line and runs it.
    pub(crate) fn run(&self) -> Result<(), Failed> {
        println!("xtask: {}", self.shown());
        self.ended(self.command().status())
    }

    /// Runs the line without printing anything. If it fails, the error has what it printed.
    pub(crate) fn quietly(&self) -> Result<(), Failed> {
        output(&mut self.command()).map(drop)
    }

    /// Runs the line, and returns the last lines of the test runners in it. They are printed again at the end of a long
    /// run, where they are easier to find.
    pub(crate) fn run_tests(&self) -> Result<Vec<String>, Failed> {
        println!("xtask: {}", self.shown());
        let mut command = self.command();
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if std::io::stderr().is_terminal() {
            command.env("CARGO_TERM_COLOR", "always");
        }
        let failed = |error| Failed(format!("{}: {error}", self.shown()));
        let mut child = command.spawn().map_err(failed)?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let closing = thread::scope(|scope| {
            // Both pipes are read at the same time. Otherwise a runner that fills the other pipe would wait for ever.
            let err = scope
                .spawn(move || err.map_or_else(Vec::new, |pipe| copy(pipe, std::io::stderr())));
            let mut closing = out.map_or_else(Vec::new, |pipe| copy(pipe, std::io::stdout()));
            closing.extend(err.join().unwrap_or_default());
            closing
        });
        self.ended(child.wait())?;
        // A runner succeeds if no test has the name that it was given.
        if closing.iter().all(|line| line.starts_with("test result: ok. 0 passed")) {
            return Err(Failed(format!("{}: no test ran", self.shown())));
        }
        Ok(closing)
    }

    fn ended(&self, status: std::io::Result<std::process::ExitStatus>) -> Result<(), Failed> {
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(status) => Err(Failed(format!("{} ({status})", self.shown()))),
            Err(error) => Err(Failed(format!("{}: {error}", self.shown()))),
        }
    }
}

/// What a command prints on standard output. If it fails, the error has all that it printed.
pub(crate) fn output(command: &mut Command) -> Result<String, Failed> {
    let done = match command.output() {
        Ok(done) => done,
        Err(error) => return Err(Failed(format!("{command:?}: {error}"))),
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match done.status.success() {
        true => Ok(text(&done.stdout)),
        false => {
            let printed = text(&done.stdout) + &text(&done.stderr);
            Err(Failed(format!("{command:?} ({}):\n{}", done.status, printed.trim_end())))
        }
    }
}

pub(crate) fn succeeds(program: &str, words: &[&str]) -> bool {
    Command::new(program).args(words).output().is_ok_and(|output| output.status.success())
}

/// Copies what a runner prints while it runs, and returns its closing lines.
fn copy(mut from: impl Read, mut to: impl Write) -> Vec<String> {
    let (mut closing, mut line, mut bytes) = (Vec::new(), Vec::new(), [0; 4096]);
    loop {
        let size = match from.read(&mut bytes) {
            Ok(0) => break,
            Ok(size) => size,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        };
        // The runner goes on even if nobody reads the copy, so an error is ignored.
        let _ = to.write_all(&bytes[..size]).and_then(|()| to.flush());
        for &byte in &bytes[..size] {
            match byte {
                b'\n' => closing.extend(closing_line(&std::mem::take(&mut line))),
                // Closing lines are short, so the rest of a long line is not kept.
                _ if line.len() < 1024 => line.push(byte),
                _ => {}
            }
        }
    }
    closing.extend(closing_line(&line));
    closing
}

/// The line without its colours, if it is the line in which a test runner sums up its tests.
fn closing_line(line: &[u8]) -> Option<String> {
    let text = plain(&String::from_utf8_lossy(line));
    // The beginnings of these lines, for nextest, libtest and the workspace's own runners.
    let sums_up = ["Summary [", "test result: ", "fuzz: ", "asan: ", "soak: "];
    let text = text.trim();
    sums_up.iter().any(|start| text.starts_with(start)).then(|| text.to_owned())
}

/// `text` without the escape sequences that colour it.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\u{1b}' => drop(chars.by_ref().find(char::is_ascii_alphabetic)),
            _ => plain.push(char),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_shown_as_a_shell_takes_it() {
        let line = cargo(&["doc", "--features", ""]).with("RUSTDOCFLAGS", "-D warnings");
        assert_eq!(line.shown(), "RUSTDOCFLAGS='-D warnings' cargo doc --features ''");
    }

    #[test]
    fn closing_lines_are_kept_and_all_is_printed() {
        let said =
            "test a ... ok\ntest result: ok. 1 passed\n\u{1b}[1m     Summary\u{1b}[0m [  2s] 3 run";
        let mut printed = Vec::new();
        let closing = copy(said.as_bytes(), &mut printed);
        assert_eq!(closing, ["test result: ok. 1 passed", "Summary [  2s] 3 run"]);
        assert_eq!(printed, said.as_bytes());
    }

    #[test]
    fn a_run_of_tests_that_fails_is_a_failure() {
        let line = Line::new("sh", &["-c", "exit 3"]);
        let Err(Failed(what)) = line.run_tests() else { panic!("it failed") };
        assert!(what.contains("exit status: 3"), "{what}");
    }

    #[test]
    fn a_run_of_no_test_is_a_failure_and_a_run_of_some_beside_it_is_none() {
        let none = "test result: ok. 0 passed; 0 failed";
        let some = "test result: ok. 1 passed; 0 failed";
        let run = |lines: &[&str]| Line::new("printf", &["%s\\n", &lines.join("\n")]).run_tests();
        let Err(Failed(what)) = run(&[none, none]) else { panic!("no test ran") };
        assert!(what.ends_with("no test ran"), "{what}");
        assert!(run(&[none, some]).is_ok());
    }
}
