//! Asks for a password: at the terminal, which does not show it, or on standard input.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;

use rustix::termios::{
    LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

use super::Failure;
use crate::auth::check_password;

/// The most bytes that are read for a password.
const BYTES_MAX: u64 = 4096;

/// What Ctrl-C, Ctrl-Z and Ctrl-backslash type while they send no signal.
const INTERRUPTS: [u8; 3] = [0x03, 0x1a, 0x1c];

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

/// The line that is typed, without its end.
///
/// # Errors
/// Ctrl-C or a key like it was typed instead.
fn typed(mut terminal: impl Read) -> io::Result<String> {
    let ends = |byte: &u8| *byte == b'\n' || INTERRUPTS.contains(byte);
    let (mut text, mut buffer) = (Vec::new(), [0; 256]);
    while !text.iter().any(ends) && (text.len() as u64) < BYTES_MAX {
        match terminal.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let end = text.iter().position(ends).unwrap_or(text.len());
    if text.get(end).is_some_and(|byte| INTERRUPTS.contains(byte)) {
        return Err(io::Error::other("interrupted; nothing was changed"));
    }
    text.truncate(end);
    String::from_utf8(text).map_err(io::Error::other)
}

fn ask(mut terminal: &File, question: &str) -> io::Result<String> {
    let before = tcgetattr(terminal.as_fd())?;
    let _silent = Silent::begin(terminal, before)?;
    terminal.write_all(question.as_bytes())?;
    let answer = typed(terminal);
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
        // A signal would end this process, and the terminal would never again show what is typed. So Ctrl-C ends the line.
        silent.local_modes.remove(LocalModes::ECHO | LocalModes::ISIG);
        silent.special_codes[SpecialCodeIndex::VEOL] = INTERRUPTS[0];
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
    fn what_is_typed_is_the_password_unless_it_is_interrupted() {
        for (input, wanted) in [
            ("abc\n", Some("abc")),
            (" a b \nc\n", Some(" a b ")),
            ("\tü\n", Some("\tü")),
            ("", Some("")),
            ("abc\u{3}", None),
            ("\u{1a}\n", None),
            ("a\u{1c}b\n", None),
        ] {
            assert_eq!(typed(input.as_bytes()).ok().as_deref(), wanted, "{input:?}");
        }
        assert!(typed("x".repeat(9000).as_bytes()).expect("read").len() < 5000);
        assert!(typed(&b"\xff\n"[..]).is_err());
    }

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
