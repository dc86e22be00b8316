//! The child process that runs programs, and the code that watches it.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::judge::judge;
use super::program::Program;
use super::{JOB, NAME};

/// A program takes some 20 ms. If one takes this long, it hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// The work of a child.
pub(crate) enum Job {
    /// Draws and runs programs: the number of the first one, and how many.
    Draw(u64, u64),
    /// Runs the program in this file this many times.
    Play(PathBuf, u64),
}

impl Job {
    pub(crate) fn of_text(text: &str) -> Self {
        let mut words = text.splitn(3, ' ');
        let mut word = || words.next().expect("a job has three words");
        let number = |word: &str| word.parse().expect("a number");
        match word() {
            "draw" => Self::Draw(number(word()), number(word())),
            _ => {
                let times = number(word());
                Self::Play(PathBuf::from(word()), times)
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Draw(seed, count) => format!("draw {seed} {count}"),
            Self::Play(path, times) => format!("play {times} {}", path.display()),
        }
    }
}

/// Runs in the child. Prints the number of each program before it runs.
pub(crate) fn work(job: &Job) {
    match job {
        Job::Draw(seed, count) => {
            for number in *seed..seed + count {
                println!("\nprogram {number}");
                judge(&Program::of_seed(number));
            }
        }
        Job::Play(path, times) => {
            let text = std::fs::read_to_string(path).expect("a program");
            for time in 0..*times {
                println!("\nprogram {time}");
                judge(&Program::of_text(&text));
            }
        }
    }
}

pub(crate) enum Ended {
    Well,
    Badly {
        /// The number of the program that was running; `None`: none had begun.
        program: Option<u64>,
        said: String,
    },
}

pub(crate) fn run_in_a_child(job: &Job) -> Ended {
    let mut child = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(JOB, job.text())
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let out = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut err = child.stderr.take().expect("it is piped");
    let err = std::thread::spawn(move || {
        let mut said = Vec::new();
        let _ = err.read_to_end(&mut said);
        String::from_utf8_lossy(&said).into_owned()
    });
    let (line, lines) = mpsc::channel();
    let out = std::thread::spawn(move || {
        for text in out.lines().map_while(Result::ok) {
            let number = text.strip_prefix("program ").and_then(|number| number.parse().ok());
            let _ = line.send(number);
        }
    });
    let mut program = None;
    let hangs = loop {
        match lines.recv_timeout(LIMIT) {
            Ok(number) => program = number.or(program),
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if hangs {
        child.kill().expect("the child is killed");
    }
    let status = child.wait().expect("the child ends");
    out.join().expect("its lines are read");
    let said = err.join().expect("its errors are read");
    let said: Vec<&str> = said.lines().take(60).collect();
    match (hangs, status.success()) {
        (true, _) => {
            let said = format!("it hangs: not done after {LIMIT:?}\n{}", said.join("\n"));
            Ended::Badly { program, said }
        }
        (false, true) => Ended::Well,
        (false, false) => Ended::Badly { program, said: format!("{status}\n{}", said.join("\n")) },
    }
}
