//! The names, systems, patterns and lengths that a job may have.

use crate::model::{ARGUMENT_BYTES_MAX, is_steering, one_line, script};
use std::collections::BTreeMap;

/// The most bytes of the name of a job or a package, and of the name under which a build sees the output of another
/// job, which is a file's name.
pub(super) const NAME_BYTES_MAX: usize = 200;
const SYSTEM_BYTES_MAX: usize = 100;
/// The most entries in a list of a job.
pub(super) const ENTRIES_MAX: usize = 10_000;
const PATTERN_BYTES_MAX: usize = 4096;
/// The most bytes of all arguments and variables of a command.
const ARGUMENTS_BYTES_MAX: usize = 1_000_000;

pub(super) fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err("a job has an empty name".to_owned());
    }
    if name.len() > NAME_BYTES_MAX {
        return Err(format!("a job's name has {} bytes; {NAME_BYTES_MAX} may be", name.len()));
    }
    if name.chars().any(char::is_whitespace) {
        return Err(format!("job `{}` has a blank in its name", name.escape_debug()));
    }
    if name.chars().any(is_steering) {
        let name = one_line(name, NAME_BYTES_MAX);
        return Err(format!("job `{name}` has a control character in its name"));
    }
    Ok(())
}

/// A system is a part of addresses and of a job's identity, so a long one is refused rather than cut.
pub(super) fn check_system(system: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._+-".contains(&byte);
    if system.is_empty() || system.len() > SYSTEM_BYTES_MAX || !system.bytes().all(plain) {
        return Err(format!(
            "`{}` is no system; one has letters, digits and `._+-`, at most {SYSTEM_BYTES_MAX}",
            one_line(system, NAME_BYTES_MAX)
        ));
    }
    Ok(())
}

pub(super) fn check_nix_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || name.chars().any(is_steering) {
        return Err(format!(
            "`nix_name` is `{}`; it has 1 to {NAME_BYTES_MAX} bytes, and no control characters",
            one_line(name, NAME_BYTES_MAX)
        ));
    }
    Ok(())
}

pub(super) fn check_patterns(what: &str, patterns: &[String]) -> Result<(), String> {
    if patterns.len() > ENTRIES_MAX {
        return Err(format!("{what} has {} patterns; {ENTRIES_MAX} may be", patterns.len()));
    }
    match patterns.iter().find(|pattern| pattern.len() > PATTERN_BYTES_MAX) {
        Some(long) => Err(format!(
            "{what} has a pattern of {} bytes; {PATTERN_BYTES_MAX} may be: {}",
            long.len(),
            one_line(long, NAME_BYTES_MAX)
        )),
        None => Ok(()),
    }
}

/// The kernel bounds the length of each argument. It bounds the length of all arguments by a quarter of the stack's
/// limit, which is 2 MiB by default. A command beyond these bounds could never be started.
pub(super) fn check_lengths(
    argv: &[String],
    environment: &BTreeMap<String, String>,
) -> Result<(), String> {
    let advice = "keep it in a file of the repository";
    let script = script(argv).is_some();
    let words = argv.iter().take(if script { 0 } else { argv.len() });
    if let Some(long) = words.clone().find(|word| word.len() > ARGUMENT_BYTES_MAX) {
        return Err(format!(
            "an argument of `command` has {} bytes, and the kernel takes {ARGUMENT_BYTES_MAX}: {advice}",
            long.len()
        ));
    }
    let bytes = |(name, value): (&String, &String)| name.len() + 1 + value.len();
    if let Some(long) = environment.iter().find(|pair| bytes(*pair) > ARGUMENT_BYTES_MAX) {
        return Err(format!(
            "the variable `{}` has {} bytes with its name, and the kernel takes {ARGUMENT_BYTES_MAX}: {advice}",
            one_line(long.0, NAME_BYTES_MAX),
            bytes(long)
        ));
    }
    // For each argument and variable, the kernel also counts a zero byte and a pointer.
    let all = words.map(|word| word.len() + 9).sum::<usize>()
        + environment.iter().map(|pair| bytes(pair) + 9).sum::<usize>();
    if all > ARGUMENTS_BYTES_MAX {
        return Err(format!(
            "`command` and its variables have {all} bytes altogether, and {ARGUMENTS_BYTES_MAX} may be: {advice}"
        ));
    }
    Ok(())
}
