//! `brigandine completions SHELL` and `brigandine man`: what the command line says of itself, in the form in which shells
//! and `man` read it.

use std::io::Write;

use clap::CommandFactory;

use super::{Failure, file_failed};
use crate::cli::{self, Cli};

/// The name of the program, also where it was started under another one.
const PROGRAM: &str = "brigandine";

/// Prints the completions for a shell.
///
/// # Errors
/// Standard output cannot be written.
pub(crate) fn completions(arguments: &cli::Completions) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), PROGRAM, &mut script);
    print(&script)
}

/// Prints the manual page of the program, or writes a page for it and one for each command into a folder.
///
/// # Errors
/// Standard output or the folder cannot be written.
pub(crate) fn man(arguments: &cli::Man) -> Result<(), Failure> {
    let Some(folder) = &arguments.directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command())
            .render(&mut page)
            .map_err(|error| Failure::failed(format!("the page cannot be made: {error}")))?;
        return print(&page);
    };
    std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder))
        .map_err(|error| file_failed(folder, &error))
}

/// Prints a text. A closed pipe is not an error.
fn print(text: &[u8]) -> Result<(), Failure> {
    match std::io::stdout().write_all(text) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
