//! Readers: processes of this program in which libgit2 reads repositories (`objects.rs`).
//!
//! libgit2 maps packs and indexes into memory and trusts them. A damaged or shortened file ends the process (SIGSEGV,
//! SIGBUS), a call into libgit2 cannot be stopped, and deleted packs stay open and mapped. So the server itself never
//! calls libgit2. When a reader dies, hangs or answers nonsense, only one question fails, and the kernel closes what
//! the reader had open.
//!
//! A question is a line of JSON. An answer is a line of JSON ([`Head`]) that contains a number of bytes, followed by
//! these bytes.
//!
//! | a reader is | may be asked | left by |
//! |---|---|---|
//! | idle | yes; its pipes are empty | [`Readers::ask`] takes it out of the list |
//! | asked | no | its answer, after which it is idle or dropped; or the drop of the caller's future |
//! | dropped | never: its supervisor kills it | – |
//!
//! - READ1: only a reader that has answered in full becomes idle, so the answer to one question is never taken for the
//!   answer to another.
//! - READ2: a reader opens a clone again if the question names another generation than the one with which the reader
//!   opened the clone.

use super::objects::{self, ObjectError};
use super::revision::Resolved;
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
/// The most idle readers that are kept.
const IDLE_MAX: usize = 2;
/// The most questions that are asked at the same time.
const ASKED_MAX: usize = 16;
/// The most answers of one reader. This bounds what libgit2 keeps open.
const ANSWERS_MAX: u32 = 1000;
/// The most bytes of an answer, which is a listing with all its paths, or a few files.
const ANSWER_BYTES_MAX: usize = 1 << 30;
/// The most bytes of an answer's first line.
const HEAD_BYTES_MAX: u64 = 64 * 1024;

/// What a reader is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Question {
    /// The folder of the clone.
    pub(super) clone: OsString,
    /// How many times git has written to the clone (READ2).
    pub(super) generation: u64,
    /// The question about the clone.
    pub(super) about: About,
}

/// Each question calls the function of `objects.rs` that has its name.
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

/// The first line of an answer: how many bytes follow, or why there are none.
type Head = Result<usize, ObjectError>;

/// Why a question has no answer.
#[derive(Debug)]
pub(super) enum AskError {
    /// The reader answered with this error.
    Object(ObjectError),
    /// The reader ended, perhaps because the repository is damaged.
    Died(String),
    /// The answer took too long.
    Timeout,
    /// No reader could be started.
    Io(io::Error),
}

/// The readers of a server.
#[derive(Debug)]
pub(crate) struct Readers {
    supervisors: Arc<Supervisors>,
    state_id: String,
    /// Idle readers, at most [`IDLE_MAX`]. Guard: the mutex.
    idle: Mutex<Vec<Reader>>,
    /// A permit for each question, [`ASKED_MAX`] in all.
    turns: Semaphore,
}

#[derive(Debug)]
struct Reader {
    /// Kills the process when dropped.
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

    /// Ends the idle readers, which closes the files that they hold open.
    pub(super) fn dismiss(&self) {
        self.idle().clear();
    }

    /// Asks a reader.
    ///
    /// # Cancel safety
    /// If the future is dropped, the reader is killed.
    pub(super) async fn ask(
        &self,
        question: &Question,
        limit: Duration,
    ) -> Result<Vec<u8>, AskError> {
        let asked = async {
            // The semaphore is never closed, so this cannot fail.
            let _turn = self.turns.acquire().await;
            let idle = self.idle().pop();
            if let Some(reader) = idle {
                match self.ask_one(reader, question).await {
                    // The idle reader may have been killed meanwhile, so another one is asked.
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
        // git's configuration says whose repositories may be read, so the reader must find the configuration.
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
        answer.map_err(AskError::Object)
    }
}

impl Reader {
    /// Asks, and reads the answer. An error of kind `UnexpectedEof` means that the reader has ended.
    async fn exchange(&mut self, question: &Question) -> io::Result<Result<Vec<u8>, ObjectError>> {
        let mut line = serde_json::to_vec(question)?;
        line.push(b'\n');
        // A broken pipe means that the reader has ended. The caller then reports how it ended.
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
        let bytes = match serde_json::from_slice::<Head>(&head)? {
            Ok(bytes) if bytes <= ANSWER_BYTES_MAX => bytes,
            Ok(_) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) => return Ok(Err(error)),
        };
        // The buffer is not filled with zeroes first, because it may be large.
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

/// Whether this process was started to be a reader. The program checks this before it does anything else.
pub(crate) fn is_reader() -> bool {
    std::env::args_os().nth(1).is_some_and(|word| word == READ)
}

/// Answers questions until standard input ends.
pub(crate) fn read() {
    // A crash on a damaged repository must not leave a core dump with the repository's contents.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    // Without its cache, libgit2 keeps only what it maps.
    git2::opts::enable_caching(false);
    let mut open: Option<(OsString, u64, Repository)> = None;
    for line in io::stdin().lock().split(b'\n') {
        let Ok(line) = line else { return };
        let Ok(question) = serde_json::from_slice::<Question>(&line) else { return };
        let answer = answer(&mut open, &question);
        let bytes = answer.as_deref().unwrap_or_default();
        let Ok(mut head) = serde_json::to_vec(&answer.as_ref().map(Vec::len)) else { return };
        head.push(b'\n');
        let mut out = io::stdout().lock();
        let written = out.write_all(&head).and_then(|()| out.write_all(bytes));
        if written.and_then(|()| out.flush()).is_err() {
            // The server is gone.
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

fn json(found: &Option<Resolved>) -> Result<Vec<u8>, ObjectError> {
    serde_json::to_vec(found).map_err(|error| ObjectError::Failed(error.to_string()))
}
