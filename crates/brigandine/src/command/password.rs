//! Asks for a password: at the terminal, which does not show it, or on standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::Failure;
use crate::auth::check_password;

/// The most bytes that are read for a password.
const BYTES_MAX: u64 = 4096;

/// Reads a new password for `name`: twice from the terminal, or the first line of standard input if that is no terminal.
///
/// # Errors
/// There is no password, it may not be one, or the second one is another.
pub(super) fn new_password(name: &str) -> Result<String, Failure> {
    let failed =
        |error: io::Error| Failure::failed(format!("the password cannot be read: {error}"));
    let input = io::stdin();
    let password = if io::IsTerminal::is_terminal(&input) {
        let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(failed)?;
        let first = ask(&terminal, &format!("New password of {name}: ")).map_err(failed)?;
        check_password(&first).map_err(Failure::failed)?;
        if ask(&terminal, "The same again: ").map_err(failed)? != first {
            return Err(Failure::failed("the two passwords are not the same; nothing was changed"));
        }
        first
    } else {
        line(input.lock()).map_err(failed)?
    };
    check_password(&password).map_err(Failure::failed)?;
    Ok(password)
}

/// The first line, without its end.
fn line(input: impl Read) -> io::Result<String> {
    let mut text = String::new();
    BufReader::new(input.take(BYTES_MAX)).read_line(&mut text)?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn ask(mut terminal: &File, question: &str) -> io::Result<String> {
    let before = tcgetattr(terminal.as_fd())?;
    let _silent = Silent::begin(terminal, before)?;
    terminal.write_all(question.as_bytes())?;
    let answer = line(terminal);
    // The end of the line was not shown either.
    terminal.write_all(b"\n")?;
    answer
}

/// A terminal that does not show what is typed, until this is dropped.
struct Silent<'t> {
    terminal: &'t File,
    before: Termios,
}

impl<'t> Silent<'t> {
    fn begin(terminal: &'t File, before: Termios) -> io::Result<Self> {
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal.as_fd(), OptionalActions::Flush, &silent)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent<'_> {
    fn drop(&mut self) {
        // The terminal may be gone, and then there is nothing to restore.
        let _ = tcsetattr(self.terminal.as_fd(), OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_the_password() {
        for (input, wanted) in
            [("abc\n", "abc"), ("abc", "abc"), (" a b \r\nc\n", " a b "), ("", ""), ("\n", "")]
        {
            assert_eq!(line(input.as_bytes()).expect("read"), wanted, "{input:?}");
        }
        assert_eq!(line("x".repeat(5000).as_bytes()).expect("read").len(), 4096);
        assert!(line(&b"\xff\n"[..]).is_err());
    }
}
