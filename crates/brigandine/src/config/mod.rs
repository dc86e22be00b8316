//! Files that people write: the server's configuration, specifications and job lists.
//!
//! All three are TOML. One reader parses them and reports all problems of a file together. Each problem has its file,
//! line and column, and says what is wrong and what to write instead. Unknown keys are errors, because a misspelt key
//! must not be ignored silently.

mod circles;
mod diagnostic;
mod document;
pub(crate) mod job_list;
mod json;
mod listing;
mod maps;
mod oidc;
pub(crate) mod packaged;
mod plain;
mod reader;
pub(crate) mod server;
mod shared;
pub(crate) mod specification;
mod value;
mod web;
mod words;

#[cfg(test)]
mod tests;

use std::io::Read;
use std::path::Path;

pub(crate) use circles::circles;
pub(crate) use diagnostic::{Diagnostic, Diagnostics};
pub(crate) use json::{JsonProblem, specifications as json_specifications};
pub(crate) use listing::{settings, without_restart};
pub(crate) use server::{BUILD_USER, LogFormat, MAX_JOBS};
pub use server::{Config, Sandbox};
pub(crate) use shared::INTERVAL_RANGE;
pub(crate) use value::{check_project, parse_duration};
#[cfg(test)]
pub(crate) use web::OWN_PATHS;
pub use web::Web;

use crate::os::file::open_regular;

/// Reads a file and parses its text.
///
/// # Errors
/// The file cannot be read, or has problems.
pub(crate) fn read<T>(
    path: &Path,
    parse: impl FnOnce(&str, &str) -> Result<T, Diagnostics>,
) -> Result<T, Diagnostics> {
    load(path).and_then(|text| parse(&path.display().to_string(), &text))
}

/// Reads the text of a file.
///
/// # Errors
/// The file cannot be read, is too large, or is not UTF-8.
fn load(path: &Path) -> Result<String, Diagnostics> {
    let file = path.display().to_string();
    let whole = |message: String, help: &str| {
        Diagnostics::from(Diagnostic::whole_file(&file, message).help(help))
    };
    let mut bytes = Vec::new();
    let limit = document::FILE_BYTES_MAX as u64;
    let read = open_regular(path).and_then(|opened| opened.take(limit + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let help = match error.kind() {
            std::io::ErrorKind::NotFound => {
                "check the path: of a configuration it starts at that file's folder, of a command line at the current one"
            }
            std::io::ErrorKind::PermissionDenied => "let the server's user read it",
            std::io::ErrorKind::IsADirectory => "name a file in it",
            _ => "check that it is a readable file",
        };
        return Err(whole(format!("the file cannot be read ({error})"), help));
    }
    if bytes.len() > document::FILE_BYTES_MAX {
        let message = format!("the file is larger than {} MiB", document::FILE_BYTES_MAX >> 20);
        return Err(whole(message, "is it the file that was meant?"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let (at, bytes) = (error.utf8_error().valid_up_to(), error.as_bytes());
        let line = bytes[..at].iter().filter(|&&byte| byte == b'\n').count() + 1;
        let message = format!("the file is no UTF-8 text (byte {at}, line {line})");
        whole(message, "save it as UTF-8; TOML knows no other encoding")
    })
}
