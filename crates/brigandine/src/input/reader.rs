//! Readers: processes of this program that ask libgit2 what a repository holds (`objects.rs`).
//!
//! libgit2 maps packs and indexes into memory and believes what it maps: a damaged or shortened file ends its process
//! (SIGSEGV, SIGBUS), and a call into it cannot be stopped. It also keeps packs open that `git gc` has deleted since,
//! and their memory. So it is never called in the server: a reader that dies, hangs or answers nonsense is an error of
//! one question, and what it kept open ends with it.
//!
//! A question is a line of JSON, an answer a line of JSON ([`Head`]) and as many bytes as that says.
//!
//! | a reader | may be asked | left by |
//! |---|---|---|
//! | idle | yes; its pipes are empty | [`Readers::ask`] takes it out of the list |
//! | asked | no | its answer, after which it is idle or dropped; or being dropped |
//! | dropped | never: its supervisor kills it | – |
//!
//! R1: only a reader that has answered in full becomes idle, so no answer is taken for that of another question.
//! R2: a reader opens a clone anew when the generation in the question is not the one that it opened it with.

use super::objects::{self, ObjectError};
use crate::os::process::{self, Running, STATE_VARIABLE, Streams, Supervisors};
use git2::Repository;
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::io::{self, BufRead as _, Write as _};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe;
use tokio::sync::Semaphore;

/// The first argument by which this program is told to be a reader.
const READ: &str = "read-repositories";
/// Readers that nobody asks right now.
const IDLE_MAX: usize = 2;
/// Readers that are asked at once.
const ASKED_MAX: usize = 16;
/// A reader of so many answers is replaced: whatever libgit2 keeps is bounded by that.
const ANSWERS_MAX: u32 = 1000;
/// More than any answer has: a listing with all its paths, or a few files.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// The line before an answer.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// What a reader is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    /// The folder of the clone.
    pub(super) clone: OsString,
    /// How often git has written to it: R2.
    pub(super) generation: u64,
    /// What about it.
    pub(super) about: About,
}

/// See the functions of `objects.rs` with these names.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum About {
    Resolve { name: String },
    List { revision: String, most: usize },
    Read { objects: Vec<String>, bytes_max: usize, most: usize },
    Pin { revision: String },
    References,
    RemoveReferences { names: Vec<String> },
    Follow { source: OsString, remote: String, local: String, time: Duration },
}

/// What stands before an answer.
#[derive(Debug, Serialize, Deserialize)]
enum Head {
    /// So many bytes follow.
    Answer(usize),
    Refused(String),
    Failed(String),
}

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum AskError {
    /// The repository is whole, and has what cannot be used.
    Refused(String),
    /// The repository may be damaged: what libgit2 says.
    Failed(String),
    /// The reader ended, for which the repository may be to blame.
    Died(String),
    /// It took too long.
    Timeout,
    /// No reader could be started.
    Io(io::Error),
}

/// The readers of a server.
#[derive(Debug)]
pub(super) struct Readers {
    supervisors: Arc<Supervisors>,
    state_id: String,
    /// Guard: the mutex. At most [`IDLE_MAX`]; one that is asked is not here.
    idle: Mutex<Vec<Reader>>,
    /// Of those that are asked.
    turns: Semaphore,
}

#[derive(Debug)]
struct Reader {
    /// Dropped, it is killed.
    running: Running,
    questions: pipe::Sender,
    answers: BufReader<pipe::Receiver>,
    answered: u32,
}

impl Readers {
    pub(super) fn new(supervisors: Arc<Supervisors>, state_id: &str) -> Self {
        let turns = Semaphore::new(ASKED_MAX);
        Self { supervisors, state_id: state_id.to_owned(), idle: Mutex::default(), turns }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<Reader>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the readers that nobody asks, with all that they keep open.
    pub(super) fn dismiss(&self) {
        self.idle().clear();
    }

    /// Asks a reader.
    ///
    /// # Cancel safety
    /// Dropped: the reader is killed.
    pub(super) async fn ask(
        &self,
        question: &Question,
        limit: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let asked = async {
            // Never closed, so it always comes.
            let _turn = self.turns.acquire().await;
            let idle = self.idle().pop();
            if let Some(reader) = idle {
                match self.ask_one(reader, question).await {
                    // It may have been killed while it was idle, for what no question has to do with.
                    Err(AskError::Died(_) | AskError::Io(_)) => {}
                    answered => return answered,
                }
            }
            let reader = self.start().await.map_err(AskError::Io)?;
            self.ask_one(reader, question).await
        };
        tokio::time::timeout(limit, asked).await.unwrap_or(Err(AskError::Timeout))
    }

    async fn start(&self) -> io::Result<Reader> {
        let mut command = Command::new("/proc/self/exe");
        // Whose repositories may be read, as git's configuration says it.
        let wanted = |name: &str| name == "HOME" || name == "XDG_CONFIG_HOME";
        command.arg(READ).envs(process::passed_on(wanted)).env(STATE_VARIABLE, &self.state_id);
        let (stdin, questions) = process::input_pipe()?;
        let (answers, stdout) = process::output_pipe()?;
        let streams = Streams {
            stdin: Some(stdin.into()),
            stdout: stdout.into(),
            stderr: std::fs::File::options().write(true).open("/dev/null")?.into(),
        };
        let running = self.supervisors.spawn(command.into(), streams).await?;
        Ok(Reader { running, questions, answers: BufReader::new(answers), answered: 0 })
    }

    async fn ask_one(&self, mut reader: Reader, question: &Question) -> Result<Vec<u8>, AskError> {
        let answer = match reader.exchange(question).await {
            Ok(answer) => answer,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                let ended = reader.running.ended().await;
                let how = ended.map(|end| process::describe(end.status()));
                let how = how.unwrap_or_else(|error| error.to_string());
                return Err(AskError::Died(format!("the process that reads it ended: {how}")));
            }
            Err(error) => return Err(AskError::Io(error)),
        };
        reader.answered += 1;
        if reader.answered < ANSWERS_MAX {
            let mut idle = self.idle();
            if idle.len() < IDLE_MAX {
                idle.push(reader);
            }
        }
        match answer {
            Ok(answer) => Ok(answer),
            Err(ObjectError::Refused(said)) => Err(AskError::Refused(said)),
            Err(ObjectError::Failed(said)) => Err(AskError::Failed(said)),
        }
    }
}

impl Reader {
    /// Of kind `UnexpectedEof`: it has ended.
    async fn exchange(&mut self, question: &Question) -> io::Result<Result<Vec<u8>, ObjectError>> {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        // One that has ended says how by its status.
        let ended = |error: io::Error| match error.kind() {
            io::ErrorKind::BrokenPipe => io::ErrorKind::UnexpectedEof.into(),
            _ => error,
        };
        self.questions.write_all(&line).await.map_err(ended)?;
        let mut head = Vec::new();
        (&mut self.answers).take(HEAD_BYTES_MAX).read_until(b'\n', &mut head).await?;
        if head.last() != Some(&b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let bytes = match serde_json::from_slice(&head)? {
            Head::Answer(bytes) if bytes <= ANSWER_BYTES_MAX => bytes,
            Head::Answer(_) => return Err(io::ErrorKind::InvalidData.into()),
            Head::Refused(said) => return Ok(Err(ObjectError::Refused(said))),
            Head::Failed(said) => return Ok(Err(ObjectError::Failed(said))),
        };
        // Read into what has room and was not written to before: it may be large.
        let mut answer = Vec::with_capacity(bytes);
        let mut rest = (&mut self.answers).take(bytes as u64);
        while rest.limit() > 0 {
            if rest.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(Ok(answer))
    }
}

/// Whether this process was started to be a reader. Asked before anything else is done.
pub(crate) fn is_reader() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == READ)
}

/// Answers questions until there are none.
pub(crate) fn read() {
    // A damaged repository is no reason to leave its contents in a core file.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // What it keeps is what it maps.
    git2::opts::enable_caching(false);
    let mut open: Option<(OsString, u64, Repository)> = None;
    for line in io::stdin().lock().split(b'\n') {
        let Ok(line) = line else { return };
        let Ok(question) = serde_json::from_slice::<Question>(&line) else { return };
        let answer = answer(&mut open, &question);
        let (head, bytes) = match answer {
            Ok(bytes) => (Head::Answer(bytes.len()), bytes),
            Err(ObjectError::Refused(said)) => (Head::Refused(said), Vec::new()),
            Err(ObjectError::Failed(said)) => (Head::Failed(said), Vec::new()),
        };
        let Ok(mut head) = serde_json::to_vec(&head) else { return };
        head.push(b'\n');
        let mut out = io::stdout().lock();
        // The server is gone if this cannot be said.
        if out
            .write_all(&head)
            .and_then(|()| out.write_all(&bytes))
            .and_then(|()| out.flush())
            .is_err()
        {
            return;
        }
    }
}

fn answer(
    open: &mut Option<(OsString, u64, Repository)>,
    question: &Question,
) -> Result<Vec<u8>, ObjectError> {
    let (folder, generation) = (&question.clone, question.generation);
    let known = open.take().filter(|(path, known, _)| path == folder && *known == generation);
    let clone = match known {
        Some((.., clone)) => clone,
        None => Repository::open_bare(OsStr::new(folder))?,
    };
    let (.., clone) = open.insert((folder.clone(), generation, clone));
    match &question.about {
        About::Resolve { name } => json(&Some(objects::resolve(clone, name)?)),
        About::List { revision, most } => objects::list(clone, revision, *most),
        About::Read { objects, bytes_max, most } => {
            objects::read(clone, objects, *bytes_max, *most)
        }
        About::Pin { revision } => objects::pin(clone, revision).map(|()| Vec::new()),
        About::References => objects::references(clone),
        About::RemoveReferences { names } => {
            objects::remove_references(clone, names).map(|()| Vec::new())
        }
        About::Follow { source, remote, local, time } => {
            let deadline = Instant::now() + *time;
            let followed = objects::follow(source.as_ref(), clone, remote, local, deadline)?;
            let found = if followed { Some(objects::resolve(clone, local)?) } else { None };
            json(&found)
        }
    }
}

fn json(found: &Option<super::Resolved>) -> Result<Vec<u8>, ObjectError> {
    serde_json::to_vec(found).map_err(|error| ObjectError::Failed(error.to_string()))
}
