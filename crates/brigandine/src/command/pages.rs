//! `brigandine completions SHELL` and `brigandine man`: what the command line says of itself, in the form in which shells
//! and `man` read it.

use std::io::{self, Write};
use std::path::Path;

use clap::{Command, CommandFactory};

use super::Failure;
use crate::cli::{self, Cli};
use crate::model::version;

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
        let page = page(&Cli::command());
        let page =
            page.map_err(|error| Failure::failed(format!("the page cannot be made: {error}")))?;
        return print(page.as_bytes());
    };
    let mut program = Cli::command().disable_help_subcommand(true);
    program.build();
    std::fs::create_dir_all(folder).and_then(|()| write_pages(&program, folder)).map_err(|error| {
        let folder = folder.display();
        Failure::failed(format!("the manual pages cannot be written into {folder}: {error}"))
    })
}

/// Writes the page of a command, and those of the commands below it.
fn write_pages(command: &Command, folder: &Path) -> io::Result<()> {
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        write_pages(inner, folder)?;
    }
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    std::fs::write(folder.join(format!("{name}.1")), page(command)?)
}

/// The manual page of a command.
fn page(command: &Command) -> io::Result<String> {
    let man = clap_mangen::Man::new(command.clone()).source(format!("{PROGRAM} {}", version()));
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut page = String::from_utf8(page).map_err(io::Error::other)?;
    // What clap has as one text behind the help.
    for (text, heading) in [
        (".SH EXTRA\nExit status:\n", ".SH \"EXIT STATUS\"\n"),
        ("\nRUST_LOG chooses", "\n.SH ENVIRONMENT\nRUST_LOG chooses"),
    ] {
        page = page.replace(text, heading);
    }
    // The synopsis has the options without their values.
    let synopsis = page.find(".SH SYNOPSIS\n").and_then(|begin| {
        let end = page[begin + 1..].find("\n.SH ")? + begin + 1;
        Some(begin..end)
    });
    if let Some(range) = synopsis {
        let mut text = page[range.clone()].to_owned();
        for option in command.get_opts() {
            let names = option.get_value_names().unwrap_or_default();
            if let (Some(long), false) = (option.get_long(), names.is_empty()) {
                let long = format!("\\fB\\-\\-{}\\fR", long.replace('-', "\\-"));
                text = text.replace(&long, &format!("{long} \\fI{}\\fR", names.join(" ")));
            }
        }
        page.replace_range(range, &text);
    }
    Ok(page)
}

/// Prints a text. A closed pipe is not an error.
fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("standard output cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
