//! A place with repositories, specification files and a server; and processes, gates and time limits for tests.

pub(crate) mod browser;
pub(crate) mod exposition;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The time limit of every wait in a test.
pub(crate) const PATIENCE: Duration = Duration::from_secs(100);

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_brigandine");

/// A temporary directory with everything that a test needs.
pub(crate) struct Place {
    directory: tempfile::TempDir,
}

/// The result of a run of the program.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ended {
    /// Checks that every fetch and evaluation of `serve --one-shot` succeeded; builds may have failed.
    pub(crate) fn check_evaluated(&self) {
        let told = self.stderr.split_once("not everything went well:\n");
        let only_builds = told.is_some_and(|(_, told)| {
            let about = ["  and ", "  (commands need "];
            let is_fine = |line: &str| {
                line.contains(": build ") || about.iter().any(|words| line.starts_with(words))
            };
            told.lines().all(is_fine)
        });
        let good = self.status.success() || (only_builds && self.status.code() == Some(1));
        assert!(good, "{}\n{}", self.stdout, self.stderr);
    }
}

impl Place {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.path("state")
    }

    pub(crate) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, text).expect("a file");
        path
    }

    /// A new git repository with one branch, `main`.
    pub(crate) fn repository(&self, name: &str) -> Repository {
        let repository = Repository { path: self.path(name) };
        fs::create_dir_all(&repository.path).expect("a directory");
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository
    }

    /// A repository that [`Place::repository`] made before.
    pub(crate) fn repository_of(&self, name: &str) -> Repository {
        Repository { path: self.path(name) }
    }

    /// Writes the specification file: one specification for each `(name, repository, more)`, whose only input is the
    /// branch `main` of the repository. `more` follows the input.
    pub(crate) fn specify(&self, specifications: &[(&str, &Repository, &str)]) {
        let text: String = specifications
            .iter()
            .map(|(name, repository, more)| {
                format!(
                    "[[specification]]\nname = \"{name}\"\n[[specification.input]]\n\
                     name = \"source\"\nurl = \"{}\"\nbranch = \"main\"\n{more}\n",
                    repository.path.display()
                )
            })
            .collect();
        self.write("specifications.toml", &text);
    }

    /// The command line of a server with this place's state directory, its specification file and, if there is one, its
    /// configuration.
    pub(crate) fn command(&self, more: &[&str]) -> Command {
        self.command_at("4", more)
    }

    /// Like [`Place::command`], with this limit on running builds.
    pub(crate) fn command_at(&self, max_jobs: &str, more: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg("--state").arg(self.state());
        command.args(["--listen", "127.0.0.1:0", "--replace", "--max-jobs", max_jobs]);
        command.arg("--specifications").arg(self.path("specifications.toml"));
        if self.path("config.toml").exists() {
            command.arg("--config").arg(self.path("config.toml"));
        }
        // Jobs of tests communicate with the tests through files, which no sandbox shows.
        if !more.iter().any(|word| word.starts_with("--sandbox")) {
            command.arg("--sandbox=off");
        }
        command.args(more).stdin(Stdio::null()).env("RUST_LOG", "info").env_remove("GIT_DIR");
        command
    }

    /// Runs `serve --one-shot`, which handles every specification once.
    pub(crate) fn one_shot(&self) -> Ended {
        run(self.command(&["--one-shot"]))
    }

    /// Like [`Place::one_shot`], but checks that every fetch and evaluation succeeded; builds may have failed.
    pub(crate) fn good_one_shot(&self) -> Ended {
        let ended = self.one_shot();
        ended.check_evaluated();
        ended
    }

    /// Another command of the program, for this place's state directory.
    pub(crate) fn tool(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(PROGRAM);
        command.args(arguments).arg("--state").arg(self.state()).stdin(Stdio::null());
        // Answers are compared whole.
        command.env_remove("COLUMNS");
        command
    }

    pub(crate) fn database(&self) -> rusqlite::Connection {
        let path = self.state().join("brigandine.db");
        let database = rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::default())
            .expect("the database");
        database.busy_timeout(PATIENCE).expect("a pragma");
        database
    }

    /// The rows of a query, with columns joined by `|`.
    pub(crate) fn rows(&self, sql: &str) -> Vec<String> {
        let database = self.database();
        let mut statement = database.prepare(sql).expect(sql);
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values: Result<Vec<String>, _> = (0..columns)
                .map(|column| {
                    row.get::<_, rusqlite::types::Value>(column).map(|value| match value {
                        rusqlite::types::Value::Null => "null".to_owned(),
                        rusqlite::types::Value::Integer(number) => number.to_string(),
                        rusqlite::types::Value::Real(number) => number.to_string(),
                        rusqlite::types::Value::Text(text) => text,
                        rusqlite::types::Value::Blob(bytes) => format!("{bytes:?}"),
                    })
                })
                .collect();
            Ok(values?.join("|"))
        });
        rows.expect(sql).map(|row| row.expect(sql)).collect()
    }

    /// The jobs of an evaluation as `job|status`, by name.
    pub(crate) fn jobs(&self, evaluation: i64) -> Vec<String> {
        self.rows(&format!(
            "SELECT job.name, build.status FROM job JOIN build ON build.id = build_id
             WHERE job.evaluation_id = {evaluation} ORDER BY job.name"
        ))
    }

    /// The text of a build's stored log.
    pub(crate) fn build_log(&self, job: &str) -> String {
        let rows = self.rows(&format!("SELECT log_path FROM build WHERE job = '{job}'"));
        let [path] = rows.as_slice() else { panic!("{job}: {rows:?}") };
        self.stored_log(path)
    }

    pub(crate) fn stored_log(&self, path: &str) -> String {
        if path.is_empty() {
            return String::new();
        }
        let file = fs::File::open(self.state().join(path)).expect(path);
        let bytes = zstd::decode_all(file).expect("readable");
        String::from_utf8(bytes).expect("text")
    }

    /// Checks what must hold whenever no server runs.
    pub(crate) fn check_consistency(&self) {
        assert_eq!(self.rows("PRAGMA integrity_check"), ["ok"]);
        assert_eq!(self.rows("PRAGMA foreign_key_check"), [""; 0]);
        let counted = self.rows(
            "SELECT e.id FROM evaluation AS e LEFT JOIN (
               SELECT j.evaluation_id AS id, sum(b.status = -2) AS a, sum(b.status = -1) AS b,
                 sum(b.status = 0) AS c, sum(b.status = 1) AS d, sum(b.status = 2) AS e,
                 sum(b.status = 3) AS f, sum(b.status = 4) AS g
               FROM job AS j JOIN build AS b ON b.id = j.build_id GROUP BY 1) AS n ON n.id = e.id
             WHERE (e.scheduled, e.started, e.succeeded, e.failed, e.failed_dependency,
                    e.failed_other, e.canceled)
               IS NOT (ifnull(n.a, 0), ifnull(n.b, 0), ifnull(n.c, 0), ifnull(n.d, 0),
                       ifnull(n.e, 0), ifnull(n.f, 0), ifnull(n.g, 0))",
        );
        assert_eq!(counted, [""; 0], "evaluations whose counters are wrong");
        let waiting = self.rows(
            "SELECT b.job FROM build AS b WHERE b.status = -2 AND b.waiting <> (
               SELECT count(*) FROM dependency AS d JOIN build AS n ON n.id = d.needs_id
               WHERE d.build_id = b.id AND n.status <> 0)",
        );
        assert_eq!(waiting, [""; 0], "builds that wait for the wrong number of dependencies");
        let early = self.rows(
            "SELECT b.job FROM build AS b JOIN dependency AS d ON d.build_id = b.id
             JOIN build AS n ON n.id = d.needs_id WHERE b.attempt > 0 AND n.status <> 0",
        );
        assert_eq!(early, [""; 0], "builds that were started before their dependencies");
        for path in self.rows("SELECT log_path FROM build WHERE status >= 0 AND log_path <> ''") {
            self.stored_log(&path);
        }
    }
}

/// A git repository to which the tests commit.
pub(crate) struct Repository {
    pub(crate) path: PathBuf,
}

impl Repository {
    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        let done = Command::new("git")
            .arg("-C")
            .arg(&self.path)
            .args(["-c", "user.name=Sample", "-c", "user.email=sample@localhost"])
            .args(["-c", "commit.gpgSign=false", "-c", "protocol.file.allow=always"])
            .args(arguments)
            .env_remove("GIT_DIR")
            .env_remove("GIT_WORK_TREE")
            .output()
            .expect("git");
        let stderr = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "git {arguments:?}: {stderr}");
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    /// Writes the files and commits everything. Returns the revision.
    pub(crate) fn commit(&self, files: &[(&str, &str)]) -> String {
        for (name, text) in files {
            let path = self.path.join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=a change"]);
        self.git(&["rev-parse", "HEAD"])
    }

    /// Commits a job list with these `(name, more)`. `more` has the other lines of the job, such as its command.
    pub(crate) fn jobs(&self, jobs: &[(&str, &str)]) -> String {
        let text: String = jobs
            .iter()
            .map(|(name, more)| format!("[[job]]\nname = \"{name}\"\n{more}\n"))
            .collect();
        self.commit(&[("brigandine.toml", &text)])
    }
}

/// A process that is killed when this is dropped.
pub(crate) struct Process {
    pub(crate) child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
}

fn lines(pipe: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::sync_channel(100_000);
    thread("lines", move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            // All output is read, even if no test asks for it, so that the process never waits for room in the pipe.
            let _ = sender.try_send(line);
        }
    });
    receiver
}

impl Process {
    /// Starts a process. Its output can be read line by line.
    pub(crate) fn start(mut command: Command) -> Self {
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let stdout = lines(child.stdout.take().expect("a pipe"));
        let stderr = lines(child.stderr.take().expect("a pipe"));
        Self { child, stdout, stderr }
    }

    /// Waits for a line on standard error that contains this text.
    pub(crate) fn trace(&self, text: &str) {
        self.traces(&[text]);
    }

    /// Waits for lines on standard error that contain these texts, in any order.
    pub(crate) fn traces(&self, texts: &[&str]) {
        let (mut awaited, mut seen) = (texts.to_vec(), Vec::new());
        while !awaited.is_empty() {
            let Ok(line) = self.stderr.recv_timeout(PATIENCE) else {
                panic!("no {awaited:?} in\n{}", seen.join("\n"));
            };
            awaited.retain(|text| !line.contains(text));
            seen.push(line);
        }
    }

    /// The lines on standard error up to the one that contains this text.
    pub(crate) fn traced(&self, text: &str) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        while !seen.last().is_some_and(|line| line.contains(text)) {
            let Ok(line) = self.stderr.recv_timeout(PATIENCE) else {
                panic!("no {text:?} in\n{}", seen.join("\n"));
            };
            seen.push(line);
        }
        seen
    }

    /// The next line on standard output.
    pub(crate) fn line(&self) -> String {
        self.stdout.recv_timeout(PATIENCE).expect("a line in time")
    }

    /// The next line on standard output; `None`: the process has closed it.
    pub(crate) fn next_line(&self) -> Option<String> {
        match self.stdout.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(mpsc::RecvTimeoutError::Disconnected) => None,
            Err(mpsc::RecvTimeoutError::Timeout) => panic!("no line in time"),
        }
    }

    /// All further lines, until the process closes its standard output.
    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next_line()).collect()
    }

    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        let done = Command::new("kill").args(["-s", name, &id]).status().expect("kill");
        assert!(done.success());
    }

    /// Sends a signal to the process and to everything below it, as systemd does with a unit whose `KillMode` is the
    /// default. `last`: the process itself gets the signal after the others.
    pub(crate) fn signal_all(&self, name: &str, last: bool) {
        let mut ids = vec![self.child.id().to_string()];
        let mut next = 0;
        while let Some(id) = ids.get(next).cloned() {
            for task in fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten() {
                let children = fs::read_to_string(task.path().join("children"));
                let children = children.unwrap_or_default();
                ids.extend(children.split_whitespace().map(str::to_owned));
            }
            next += 1;
        }
        assert!(ids.len() > 3, "the server, its fork server, a supervisor, and a program: {ids:?}");
        if last {
            ids.rotate_left(1);
        }
        // It fails if one of the processes has ended by the signal to another; the caller sees whether the server ends.
        Command::new("kill").args(["-s", name]).args(&ids).status().expect("kill");
    }

    /// Waits until the process ends.
    pub(crate) fn end(mut self) -> ExitStatus {
        wait(&mut self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a child ends. After the time limit the child is killed, and the test fails.
pub(crate) fn wait(child: &mut Child) -> ExitStatus {
    let (done, watched) = mpsc::sync_channel::<()>(1);
    let id = child.id().to_string();
    let watchdog = thread("watchdog", move || {
        let late = watched.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout);
        if late {
            let _ = Command::new("kill").args(["-s", "KILL", &id]).status();
        }
        late
    });
    let status = child.wait().expect("its status");
    drop(done);
    assert!(!watchdog.join().expect("the watchdog"), "did not end in time");
    status
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Ended {
    let mut child =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let (mut out, mut err) = (child.stdout.take().expect("out"), child.stderr.take().expect("err"));
    let reader = thread("stdout", move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        text
    });
    let errors = thread("stderr", move || {
        let mut text = String::new();
        let _ = err.read_to_string(&mut text);
        text
    });
    let status = wait(&mut child);
    let stdout = reader.join().expect("a reader");
    Ended { status, stdout, stderr: errors.join().expect("a reader") }
}

/// A named pipe. A build writes to it to report that it runs, or reads from it to wait until it may go on.
pub(crate) struct Gate {
    path: PathBuf,
}

impl Gate {
    pub(crate) fn new(path: PathBuf) -> Self {
        let done = Command::new("mkfifo").arg(&path).status().expect("mkfifo");
        assert!(done.success());
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Waits until somebody writes into the gate, and returns what was written.
    pub(crate) fn wait(&self) -> String {
        let path = self.path.clone();
        within(move || fs::read_to_string(path).expect("the gate"))
    }

    /// Waits until somebody reads from the gate, and lets the reader go on.
    pub(crate) fn open(&self) {
        let path = self.path.clone();
        within(move || {
            let mut file = fs::File::options().write(true).open(path).expect("the gate");
            file.write_all(b"go\n").expect("the gate");
        });
    }
}

fn thread<T: Send + 'static>(
    name: &str,
    f: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::Builder::new().name(name.to_owned()).spawn(f).expect("a thread")
}

/// Runs `f` with a time limit.
pub(crate) fn within<T: Send + 'static>(f: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    thread("within", move || {
        let _ = sender.send(f());
    });
    receiver.recv_timeout(PATIENCE).expect("in time")
}

/// The number of processes that have this text as a variable in their environment.
pub(crate) fn processes_with(mark: &str) -> usize {
    let Ok(processes) = fs::read_dir("/proc") else { return 0 };
    processes
        .flatten()
        .filter(|process| {
            let environment = fs::read(process.path().join("environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|pair| pair == mark.as_bytes())
        })
        .count()
}

/// The number of processes on the machine whose command line contains this text.
pub(crate) fn alive(text: &str) -> usize {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|it| fs::read_to_string(it.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(text)).count()
}

/// Calls `ask` until its answer is right, with a time limit. For states that no process reports, such as the end of a
/// process that is no child of this one.
pub(crate) fn until<T: std::fmt::Debug>(ask: impl Fn() -> T, right: impl Fn(&T) -> bool) -> T {
    let began = std::time::Instant::now();
    loop {
        let answer = ask();
        if right(&answer) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "still {answer:?}");
        // A pause between two questions to another process, which tells nobody that its answer has changed.
        std::thread::sleep(Duration::from_millis(10));
    }
}
