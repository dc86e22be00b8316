//! Long commands that a signal ends at any moment.

use crate::support::{Ended, PROGRAM, Place, run};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread::sleep;
use std::time::Instant;

/// The builds of the sample that is copied.
const BUILDS: i64 = 8_000;

/// A place with the sample, its backup, its exported history, and room for what the commands make.
struct Stage {
    place: Place,
    backup: PathBuf,
    history: PathBuf,
    room: PathBuf,
}

impl Stage {
    fn new() -> Self {
        let place = Place::new();
        brigandine::store::make_sample(BUILDS, &place.state(), 1, &|_| ()).expect("the sample");
        let (backup, history) = (place.path("backup"), place.path("history.jsonl"));
        good(&run(place.tool(&["backup", text(&backup)])));
        good(&run(place.tool(&["export", "--output", text(&history)])));
        let room = place.path("room");
        let stage = Self { place, backup, history, room };
        stage.clear();
        stage
    }

    /// Removes what a command has made.
    fn clear(&self) {
        let _ = fs::remove_dir_all(&self.room);
        fs::create_dir(&self.room).expect("a directory");
    }

    /// The command, which makes something called `new`.
    fn command(&self, name: &str) -> Command {
        let (made, own) = (self.room.join("new"), self.place.state());
        let mut command = Command::new(PROGRAM);
        command.arg(name);
        match name {
            "backup" => command.arg(&made).arg("--state").arg(own),
            "export" => command.arg("--output").arg(&made).arg("--state").arg(own),
            "restore" => command.arg(&self.backup).arg("--state").arg(made),
            _ => command.arg(&self.history).arg("--state").arg(made),
        };
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// The names of what a command has left, apart from the lock of a state directory.
    fn left(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut folders = vec![self.room.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a directory") {
                let path = entry.expect("an entry").path();
                match path.file_name().and_then(|name| name.to_str()) {
                    // The state directory itself: what counts is what it has.
                    Some("new") if path.is_dir() => folders.push(path),
                    Some("lock") => {}
                    name => names.push(name.expect("a name").to_owned()),
                }
            }
        }
        names
    }

    /// Whether what a command makes has its name, which only what is whole has.
    fn is_made(&self, name: &str) -> bool {
        let made = self.room.join("new");
        if matches!(name, "backup" | "export") { made } else { made.join("brigandine.db") }.exists()
    }

    /// Gives a stopped command again.
    fn again(&self, name: &str, what: &str) {
        let mut again = run(self.command(name));
        if again.stderr.contains("was interrupted: empty the directory") {
            self.clear();
            again = run(self.command(name));
        }
        assert!(again.status.success(), "{what}: {}", again.stderr);
    }

    /// The exported history of what a command has made.
    fn made(&self, name: &str) -> Vec<u8> {
        let made = self.room.join("new");
        let (state, out) = match name {
            "export" => return fs::read(made).expect("a history"),
            "backup" => {
                let state = self.room.join("restored");
                let mut restore = Command::new(PROGRAM);
                restore.arg("restore").arg(&made).arg("--state").arg(&state);
                good(&run(restore));
                (state, self.room.join("again.jsonl"))
            }
            _ => (made, self.room.join("again.jsonl")),
        };
        let mut export = Command::new(PROGRAM);
        export.arg("export").arg("--output").arg(&out).arg("--state").arg(state);
        good(&run(export));
        fs::read(out).expect("a history")
    }
}

fn good(ended: &Ended) {
    assert!(ended.status.success(), "{}", ended.stderr);
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path")
}

/// Sends a signal to a program, which may have ended already, and waits for the end.
fn end(program: Child, signal: &str) -> Output {
    let id = program.id().to_string();
    Command::new("kill").args(["-s", signal, &id]).stderr(Stdio::null()).status().expect("kill");
    program.wait_with_output().expect("its end")
}

#[test]
fn a_signal_in_the_middle_of_long_work_leaves_nothing_or_what_the_same_command_goes_on_from() {
    let moments = if std::env::var_os("LOCKKEEPER_LONG").is_some() { 16 } else { 4 };
    let stage = Stage::new();
    let history = fs::read(&stage.history).expect("a history");
    for name in ["backup", "export", "restore", "import"] {
        stage.clear();
        let began = Instant::now();
        let whole = stage.command(name).output().expect("starts");
        let time = began.elapsed();
        assert!(whole.status.success(), "{name}: {}", String::from_utf8_lossy(&whole.stderr));
        assert!(stage.made(name) == history, "{name}: another history");
        let mut stopped = 0;
        for moment in 1..=moments {
            for signal in ["INT", "TERM", "KILL"] {
                stage.clear();
                let program = stage.command(name).spawn().expect("starts");
                // The moment of the signal: nothing tells how far the program is.
                sleep(time * moment / (moments + 1));
                let output = end(program, signal);
                let said = String::from_utf8_lossy(&output.stderr);
                let what = format!("{name}, {signal} at {moment}: {said:?}, {:?}", stage.left());
                if !stage.is_made(name) {
                    stopped += 1;
                    check_stopped(&stage, name, &output, &what);
                    stage.again(name, &what);
                }
                assert!(stage.made(name) == history, "{what}: another history");
            }
        }
        assert!(stopped > 0, "no {name} was stopped in {time:?}");
    }
}

/// Checks what a stopped command has said and left.
fn check_stopped(stage: &Stage, name: &str, output: &Output, what: &str) {
    // By SIGKILL, or before the program handled signals.
    if output.status.signal().is_some() {
        return;
    }
    assert_eq!(output.status.code(), Some(1), "{what}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("stopped; "), "{what}");
    // The next import goes on from what this one has stored.
    if name != "import" {
        assert!(stage.left().is_empty(), "{what}");
    }
}
