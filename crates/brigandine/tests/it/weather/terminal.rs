//! The output on a terminal: captured from a pseudo terminal of a given size, and drawn as a terminal would draw it.

use crate::support::{PROGRAM, Place, within};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};

/// The number of rows that are captured. No output is longer, so nothing scrolls out of the screen.
const ROWS: u16 = 600;

/// The screen after a program has ended.
struct Screen {
    parser: vt100::Parser,
    columns: u16,
    status: Option<i32>,
}

fn size(columns: u16, rows: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}

/// Starts the program on a terminal of this size.
fn start(mut command: Command, columns: u16, rows: u16) -> (Child, OwnedFd) {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).expect("a terminal");
    unlockpt(&terminal).expect("a terminal");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let name = name.into_string().expect("a path");
    let program = File::options().read(true).write(true).open(name).expect("a terminal");
    tcsetwinsize(program.as_fd(), size(columns, rows)).expect("a size");
    let again = program.try_clone().expect("a terminal");
    command.stdin(Stdio::null()).stdout(program).stderr(again).env("TERM", "xterm-256color");
    let child = command.spawn().expect("the program starts");
    // `command` holds the program's side of the terminal. It must be closed, so that the terminal ends with the
    // program.
    drop(command);
    (child, terminal)
}

/// Runs the program to its end on a terminal of this size. Calls `each` with the screen and the terminal after each
/// piece of output.
fn captured(
    command: Command,
    columns: u16,
    rows: u16,
    mut each: impl FnMut(&vt100::Parser, &OwnedFd) + Send + 'static,
) -> Screen {
    let (mut child, terminal) = start(command, columns, rows);
    let parser = within(move || {
        let mut parser = vt100::Parser::new(ROWS, columns, 0);
        let mut reader = File::from(terminal.try_clone().expect("a terminal"));
        let mut bytes = [0; 4096];
        // The kernel returns EIO when the program's side is closed.
        while let Ok(count @ 1..) = reader.read(&mut bytes) {
            parser.process(&bytes[..count]);
            each(&parser, &terminal);
        }
        parser
    });
    let status = crate::support::wait(&mut child).code();
    Screen { parser, columns, status }
}

impl Screen {
    fn run(command: Command, columns: u16) -> Self {
        captured(command, columns, 24, |_, _| {})
    }

    fn lines(&self) -> Vec<String> {
        let rows = self.parser.screen().rows(0, self.columns);
        let mut lines: Vec<String> = rows.map(|row| row.trim_end().to_owned()).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines
    }

    /// The number of lines that begin with this text.
    fn count(&self, beginning: &str) -> usize {
        self.lines().iter().filter(|line| line.starts_with(beginning)).count()
    }

    /// Checks that no line is wrapped, except lines that have only a path.
    fn check_nothing_is_wrapped(&self) {
        let lines = self.lines();
        for row in 0..ROWS {
            let line = lines.get(usize::from(row)).map_or("", String::as_str);
            assert!(
                line.starts_with("  /") || !self.parser.screen().row_wrapped(row),
                "wrapped: {line}\n{}",
                lines.join("\n")
            );
        }
    }
}

fn demo(place: &Place) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["demo", "--exit", "--listen", "127.0.0.1:0"]);
    command.env("TMPDIR", place.path("")).env_remove("RUST_LOG");
    command
}

#[test]
fn the_demo_fits_terminals_of_80_and_of_40_columns_and_repeats_no_frame() {
    for columns in [80, 40] {
        let place = Place::new();
        let screen = Screen::run(demo(&place), columns);
        let lines = screen.lines();
        let text = lines.join("\n");
        assert_eq!(screen.status, Some(0), "{text}");
        screen.check_nothing_is_wrapped();
        // Only the last frame is on the screen, and the table below it.
        assert_eq!((screen.count("#1 "), screen.count("#2 ")), (1, 1), "{text}");
        for job in ["app.strict", "lib.soak", "docs.check"] {
            let drawn = lines.iter().filter(|line| {
                let mut words = line.split_whitespace();
                words.next().is_some_and(|mark| mark.chars().count() == 1)
                    && words.next() == Some(job)
            });
            assert_eq!(drawn.count(), 1, "{job}\n{text}");
        }
        assert_eq!(screen.count("JOB"), 2, "{text}");
        // The reasons of the failure: the command's exit status, and the last line of its log.
        assert!(text.contains("exit status 3"), "{text}");
        assert!(text.contains("This job fails on purpose"), "{text}");
    }
}

#[test]
fn a_terminal_that_becomes_narrower_while_the_demo_draws_shows_one_frame() {
    let place = Place::new();
    let mut told = false;
    let screen = captured(demo(&place), 100, 24, move |parser, terminal| {
        if !told && parser.screen().contents().contains("lib.soak") {
            told = true;
            // The terminal is now narrower than the drawing, so lines must be cut from now on.
            tcsetwinsize(terminal.as_fd(), size(40, 12)).expect("a size");
        }
    });
    let lines = screen.lines();
    assert_eq!(screen.status, Some(0), "{}", lines.join("\n"));
    let last = lines.iter().rposition(|line| line.starts_with("#2 ")).expect("a frame");
    let frame = &lines[last..];
    let end = frame.iter().position(String::is_empty).expect("the table");
    for line in &frame[..end] {
        assert!(line.chars().count() <= 40, "{line}");
    }
    assert!(end <= 12, "{}", lines.join("\n"));
}

#[test]
fn a_visitor_whom_git_does_not_know_can_commit_to_the_demo() {
    let place = Place::new();
    let state = place.path("demo");
    let mut command = demo(&place);
    command.arg("--state").arg(&state).arg("--json");
    let ended = crate::support::run(command);
    assert!(ended.status.success(), "{}", ended.stderr);
    let home = place.path("home");
    std::fs::create_dir(&home).expect("a directory");
    // With this configuration git refuses to guess the author's name, so the sample must have one of its own.
    let config =
        place.write("home/.gitconfig", "[user]\nuseConfigOnly = true\n[commit]\ngpgSign = true\n");
    let git = Command::new("git")
        .current_dir(state.join("sample"))
        .args(["commit", "--quiet", "--allow-empty", "--message", "Mine"])
        .env("HOME", &home)
        .env("GIT_CONFIG_GLOBAL", config)
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env_remove("GIT_AUTHOR_NAME")
        .env_remove("GIT_AUTHOR_EMAIL")
        .env_remove("GIT_COMMITTER_NAME")
        .env_remove("GIT_COMMITTER_EMAIL")
        .env_remove("EMAIL")
        .output()
        .expect("git");
    assert!(git.status.success(), "{}", String::from_utf8_lossy(&git.stderr));
}

#[test]
fn tables_fit_their_terminal_and_are_whole_in_a_pipe() {
    let place = Place::new();
    let repository =
        place.repository("a-repository-with-a-name-that-is-longer-than-a-terminal-is-wide");
    let long =
        "a.job.with.a.name.that.is.longer.than.a.terminal.of.eighty.columns.is.wide.and.more";
    repository.jobs(&[
        (long, "command = \"exit 3\""),
        ("child", &format!("needs = [\"{long}\"]\ncommand = \"true\"")),
    ]);
    place.specify(&[("spec", &repository, "")]);
    place.good_one_shot();
    for arguments in [&["builds"][..], &["spec", "list"], &["prune", "--dry-run"]] {
        for columns in [80, 40] {
            let screen = Screen::run(place.tool(arguments), columns);
            assert_eq!(screen.status, Some(0), "{arguments:?}");
            if arguments[0] != "prune" {
                screen.check_nothing_is_wrapped();
                assert!(screen.lines().join("").contains('…'), "{:?}", screen.lines());
            }
        }
        let piped = crate::support::run(place.tool(arguments)).stdout;
        assert!(!piped.contains('…'), "{piped}");
    }
    assert!(crate::support::run(place.tool(&["builds"])).stdout.contains(long));
}

#[test]
fn how_far_it_is_stands_on_one_line_of_the_terminal_and_goes_in_the_end() {
    let place = Place::new();
    let gate = crate::support::Gate::new(place.path("gate"));
    let repository = place.repository("repository");
    repository.jobs(&[("held", &format!("command = \"cat '{}'\"", gate.path().display()))]);
    place.specify(&[("spec", &repository, "")]);
    let server = crate::support::Process::start(place.command(&["--interval", "1d"]));
    crate::command::serve::address(&server);
    crate::support::until(|| place.rows("SELECT status FROM build"), |rows| *rows == ["-1"]);
    let mut opened = Some(gate);
    let screen = captured(place.tool(&["wait", "--eval", "1"]), 40, 24, move |parser, _| {
        let contents = parser.screen().contents();
        if contents.contains("evaluation 1: 0 of 1 jobs")
            && let Some(gate) = opened.take()
        {
            assert!(!contents.trim_end().contains('\n'), "{contents}");
            gate.open();
        }
    });
    assert_eq!(screen.status, Some(0));
    let lines = screen.lines();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].starts_with("build 1 spec/held: succeeded"), "{lines:?}");
    assert_eq!(lines[1], "evaluation 1: 1 of 1 jobs succeeded");
}

#[test]
fn the_caret_stands_under_the_mistake_whatever_stands_before_it() {
    for before in [
        "",
        "\t",
        "\t \t",
        "description = \"日本語の説明\", ",
        "description = \"e\u{301}e\u{301}a\u{308}\", ",
        "description = \"\u{200b}x\u{200d}\", ",
        "description = \"naïveté ﬀ Ω\", ",
    ] {
        let place = Place::new();
        // The mistake begins at the `Q`, which occurs only once in the file.
        let text = format!("specification = [{{ {before}Q = 1, name = \"x\" }}]\n");
        let file = place.write("a.toml", &text);
        let mut command = Command::new(PROGRAM);
        command.args(["check", file.to_str().expect("a path")]);
        let screen = Screen::run(command, 160);
        let screen = screen.parser.screen();
        let found = (0..ROWS).find_map(|row| {
            let caret =
                |column| screen.cell(row, column).is_some_and(|cell| cell.contents() == "^");
            let column = (0..160).find(|column| caret(*column))?;
            let above = screen.cell(row - 1, column)?.contents();
            above.starts_with('Q').then_some(row)
        });
        assert!(found.is_some(), "{before:?}: no caret under Q in\n{}", screen.contents());
    }
}
