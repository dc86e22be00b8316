//! The program `brigandine`. All of its code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    brigandine::begin().unwrap_or_else(|| brigandine::run(std::env::args_os()))
}
