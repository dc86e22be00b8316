//! `lockkeeper`: inspects a database file, copies it, checkpoints its WAL, and measures a disk.
//!
//! For operators. It can run beside the program that has the file open, because it opens the file only through SQLite.
//! `inspect` changes nothing, and no command leaves a file behind.
//!
//! ```sh
//! cargo run --release -p lockkeeper --example lockkeeper -- inspect app.db
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::{Value, json};

mod bench;
mod copy;
mod file;
mod stop;
#[cfg(test)]
mod tests;

use stop::Stop;

#[derive(Parser)]
#[command(
    name = "lockkeeper",
    about = "Looks after SQLite files, beside the programs that use them",
    after_help = "Exit status: 0 all is well, 1 it is not or could not be done, 2 wrong arguments. Ctrl-C \
                  stops and cleans up."
)]
struct Arguments {
    /// Answer in JSON, on one line
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// What is in a file: versions, WAL, who has it open, whether it is whole; changes nothing
    Inspect {
        file: PathBuf,
        /// Do not check the whole file, which reads all of it
        #[arg(long)]
        quick: bool,
    },
    /// Copy a file that may be in use; the copy is checked and renamed into place
    Backup { file: PathBuf, to: PathBuf },
    /// Put a backup in the place of a file that nobody uses; a damaged backup is refused
    Restore { from: PathBuf, file: PathBuf },
    /// Fold the WAL back into the file and empty it, waiting for readers
    Checkpoint {
        file: PathBuf,
        /// How long to wait for readers and the writer
        #[arg(long, value_name = "MS", default_value_t = 5000)]
        timeout_ms: u64,
    },
    /// Measure durable writes, and a backup beside them, on a new file in a directory
    Bench {
        dir: PathBuf,
        #[arg(long, default_value_t = 64)]
        writers: usize,
        #[arg(long, default_value_t = 3)]
        seconds: u64,
        /// Size of the file that is backed up
        #[arg(long, value_name = "MIB", default_value_t = 64)]
        mib: usize,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let stop = Stop::default();
    stop.listen();
    run(&arguments, &stop)
}

fn run(Arguments { json, command }: &Arguments, stop: &Stop) -> ExitCode {
    match execute(command, stop) {
        Ok(Answer { facts, good }) => {
            match json {
                true => println!("{facts}"),
                false => print_facts(&facts),
            }
            if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            match json {
                true => println!("{}", json!({ "error": error.to_string() })),
                false => eprintln!("lockkeeper: {error}"),
            }
            ExitCode::FAILURE
        }
    }
}

fn execute(command: &Command, stop: &Stop) -> Outcome {
    match command {
        Command::Inspect { file, quick } => file::inspect(file, *quick, stop),
        Command::Backup { file, to } => copy::backup(file, to, stop),
        Command::Restore { from, file } => copy::restore(from, file, stop),
        Command::Checkpoint { file, timeout_ms } => {
            file::checkpoint(file, Duration::from_millis(*timeout_ms))
        }
        Command::Bench { dir, writers, seconds, mib } => {
            let time = Duration::from_secs((*seconds).max(1));
            bench::bench(dir, (*writers).max(1), time, (*mib).max(1), stop)
        }
    }
}

/// The result of a command. If all is well, the exit status is 0.
struct Answer {
    /// A JSON object.
    facts: Value,
    good: bool,
}

type Outcome = Result<Answer, Failure>;

/// The message names the path and says what to do.
type Failure = Box<dyn Error + Send + Sync>;

fn print_facts(facts: &Value) {
    let facts = || facts.as_object().into_iter().flatten();
    let width = facts().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, value) in facts() {
        let name = name.replace('_', " ");
        match value {
            Value::Array(items) if items.is_empty() => println!("{name:width$}  none"),
            Value::Array(items) => {
                for (n, item) in items.iter().enumerate() {
                    println!("{:width$}  {}", if n == 0 { &name } else { "" }, plain(item));
                }
            }
            value => println!("{name:width$}  {}", plain(value)),
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
