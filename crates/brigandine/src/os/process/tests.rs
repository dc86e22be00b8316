use super::fork_server::end_orphans;
use super::*;
use crate::os::ffi;
use rustix::process::{
    Pid, Resource, Rlimit, WaitId, WaitIdOptions, getrlimit, prlimit, setrlimit, waitid,
};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;

fn shell(text: &str) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]).env("PATH", "/usr/bin:/bin");
    command
}

async fn captured(text: &str, timeout: Duration) -> Result<Captured, CaptureError> {
    capture(&Supervisors::new(None), shell(text).into(), timeout, 1000).await
}

const LONG: Duration = Duration::from_secs(60);

/// The processes whose command line has this text.
fn alive(text: &str) -> usize {
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|p| std::fs::read_to_string(p.path().join("cmdline")).ok());
    lines.filter(|line| line.contains(text)).count()
}

/// Waits until `ask` has an answer. For what the kernel does not report: the end of a process that is no child of this
/// one, and the moment at which a process executes another program.
async fn until<T>(ask: impl Fn() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(began.elapsed() < LONG, "it does not come");
        // A pause between two questions to the kernel, which tells nobody that the answer has changed.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn until_gone(mark: &str) {
    until(|| (alive(mark) == 0).then_some(())).await;
}

/// Starts a program whose output nobody reads.
async fn start(supervisors: &Supervisors, text: &str) -> std::io::Result<Running> {
    let (_, stdout) = output_pipe()?;
    let stderr = stdout.try_clone()?;
    let streams = Streams { stdin: None, stdout: stdout.into(), stderr: stderr.into() };
    let started = supervisors.spawn(shell(text).into(), streams);
    tokio::time::timeout(LONG, started).await.expect("it starts or is refused")
}

/// The id of the fork server, which is started if there is none.
fn fork_server(supervisors: &Supervisors) -> i32 {
    let server = supervisors.fork_server().expect("one");
    server.child.as_ref().expect("it runs").id().cast_signed()
}

/// Lets a process open only descriptors with numbers below `most`. Returns the limit that it had.
fn limit_descriptors(id: i32, most: Option<u64>) -> Option<u64> {
    let limit = Rlimit { current: most, maximum: getrlimit(Resource::Nofile).maximum };
    prlimit(Pid::from_raw(id), Resource::Nofile, limit).expect("a limit").current
}

/// Whether this process runs the named test and no other. If not, a new process runs the test: the test changes what
/// holds for its whole process.
fn is_alone(test: &str) -> bool {
    const ALONE: &str = "BRIGANDINE_TEST_ALONE";
    if std::env::var_os(ALONE).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().expect("the tests' program"));
    command.args(["--exact", &format!("os::process::tests::{test}")]).env(ALONE, "1");
    let done = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&done.stderr));
    false
}

#[tokio::test]
async fn capture_keeps_output_and_status() {
    let done = captured("echo out; echo err >&2; exit 3", LONG).await.expect("runs");
    assert_eq!(done.stdout, b"out\n");
    assert_eq!(done.stderr, "err\n");
    assert_eq!(describe(done.status), "exit status 3");
}

#[tokio::test]
async fn capture_ends_what_takes_too_long_before_it_says_so() {
    let text = format!("sleep 7{0} & sleep 7{0}", std::process::id());
    let error = captured(&text, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, CaptureError::Timeout(_)), "{error}");
    assert_eq!(alive(&format!("7{}", std::process::id())), 0);
}

#[tokio::test]
async fn capture_ends_what_writes_too_much() {
    let error = captured("yes", LONG).await.unwrap_err();
    assert!(matches!(error, CaptureError::Output(1000)), "{error}");
}

#[tokio::test]
async fn a_program_that_is_not_there_is_an_error_and_no_process() {
    let error = capture(&Supervisors::new(None), Command::new("/no/such").into(), LONG, 10).await;
    assert_eq!(
        error.unwrap_err().to_string(),
        "cannot run: No such file or directory (os error 2)"
    );
}

#[tokio::test]
async fn a_program_has_the_variables_and_descriptors_that_it_was_given_and_no_other() {
    let mut command = Command::new("/usr/bin/env");
    command.env("ONLY", "this");
    let done = capture(&Supervisors::new(None), command.into(), LONG, 1000).await.expect("runs");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "ONLY=this\n");
    let done = captured("cd /proc/self/fd && echo *", LONG).await.expect("runs");
    // The fourth descriptor is the shell's, for the directory that it lists.
    assert_eq!(String::from_utf8_lossy(&done.stdout), "0 1 2 3\n");
}

#[tokio::test]
async fn nothing_outlives_its_program_wherever_it_went() {
    let own = std::process::id();
    for (number, text) in [
        "sleep $0 & echo up",
        "setsid sleep $0 >/dev/null 2>&1 & echo up",
        "env -i setsid sh -c '(sleep $0 &) >/dev/null 2>&1'; echo up",
        "(setsid sh -c '(trap \"\" TERM HUP; env -i sleep $0; :) &' >/dev/null 2>&1 &); echo up",
        "for i in 1 2 3 4 5 6 7 8; do (sh -c 'sleep $0 & sleep $0 & wait' &) & done; echo up",
    ]
    .into_iter()
    .enumerate()
    {
        let mark = format!("6{number}{own}");
        let text = text.replace("$0", &mark);
        let done = captured(&text, LONG).await.expect("ends");
        assert_eq!(done.stdout, b"up\n", "{text}");
        assert_eq!(alive(&mark), 0, "{text}");
    }
}

#[tokio::test]
async fn a_program_whose_supervisor_is_killed_ends_as_well() {
    let mark = format!("5{}", std::process::id());
    let text = format!("setsid sleep {mark} >/dev/null 2>&1 & kill -9 $PPID; sleep {mark}");
    let supervisors = Supervisors::new(None);
    let error = capture(&supervisors, shell(&text).into(), LONG, 1000).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run: its supervisor was killed");
    until_gone(&mark).await;
    let done =
        capture(&supervisors, shell("echo on").into(), LONG, 1000).await.expect("others run");
    assert_eq!(done.stdout, b"on\n");
}

/// What a contained program prints.
async fn contained(supervisors: &Supervisors, text: &str) -> String {
    let program = Program { contained: true, ..shell(text).into() };
    let done = capture(supervisors, program, LONG, 1000).await.expect("runs");
    String::from_utf8_lossy(&done.stdout).into_owned()
}

#[tokio::test]
async fn what_is_not_contained_is_in_no_namespace_of_what_was_contained_before() {
    const ASK: &str = "readlink /proc/self/ns/pid; readlink /proc/self/ns/mnt";
    let link = |name| std::fs::read_link(format!("/proc/self/ns/{name}")).expect("a link");
    let own = format!("{}\n{}\n", link("pid").display(), link("mnt").display());
    let supervisors = Supervisors::new(None);
    let first = contained(&supervisors, ASK).await;
    for _ in 0..3 {
        let done = capture(&supervisors, shell(ASK).into(), LONG, 1000).await.expect("runs");
        assert_eq!(String::from_utf8_lossy(&done.stdout), own);
        // If the machine allows a namespace, each program gets one.
        assert_eq!(contained(&supervisors, ASK).await == own, first == own);
    }
}

#[tokio::test]
async fn with_the_rights_of_root_one_process_stands_between_the_fork_server_and_a_program() {
    let parent = |id: u32| {
        let status = std::fs::read_to_string(format!("/proc/{id}/status")).expect("alive");
        let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
        line.and_then(|id| id.trim().parse::<u32>().ok()).expect("a number")
    };
    let supervisors = Supervisors::new(None);
    let (mut out, stdout) = output_pipe().expect("a pipe");
    let stderr = stdout.try_clone().expect("a pipe");
    let mark = format!("4{}", std::process::id());
    let command = shell(&format!("sleep {mark} & echo up; wait"));
    let program = Program { contained: true, ..command.into() };
    let streams = Streams { stdin: None, stdout: stdout.into(), stderr: stderr.into() };
    let running = supervisors.spawn(program, streams).await.expect("runs");
    let mut said = [0; 3];
    out.read_exact(&mut said).await.expect("it runs");
    let wanted = format!("sleep\0{mark}\0");
    let line = |id: u32| std::fs::read_to_string(format!("/proc/{id}/cmdline"));
    let find = || {
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let mut ids = processes.filter_map(|it| it.file_name().to_str()?.parse::<u32>().ok());
        ids.find(|id| line(*id).is_ok_and(|line| line == wanted))
    };
    // The shell has forked, but the child may not have become `sleep` yet.
    let sleep = until(find).await;
    let server = supervisors.fork_server().expect("one");
    let server = server.child.as_ref().expect("it runs").id();
    let mut above = vec![parent(parent(sleep))];
    while above[above.len() - 1] != server {
        above.push(parent(above[above.len() - 1]));
    }
    let most = if rustix::process::geteuid().is_root() { 1 } else { 2 };
    assert!(above.len() - 1 <= most, "{above:?} down to {server}");
    running.end().await;
}

#[tokio::test]
async fn a_supervisor_shows_nothing_of_the_server() {
    let text =
        "tr '\\0' '\\n' < /proc/$PPID/environ | wc -l; ls -l /proc/$PPID/fd | grep -c ' -> /[^d]'";
    let done = captured(text, LONG).await.expect("runs");
    assert_eq!(String::from_utf8_lossy(&done.stdout), "0\n0\n", "{}", done.stderr);
}

#[test]
fn a_child_that_has_just_ended_may_have_left_others() {
    if !is_alone("a_child_that_has_just_ended_may_have_left_others") {
        return;
    }
    #[expect(clippy::zombie_processes, reason = "it is reaped below, as an orphan is")]
    let child = Command::new("true").spawn().expect("a child");
    let pid = Pid::from_raw(child.id().cast_signed()).expect("an id");
    waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("it ends");
    // Its children, if it had any, became children of this process after the children were listed.
    assert!(tree::kill_and_reap(&[]), "a child was reaped");
    assert!(!tree::kill_and_reap(&[]), "there is no child");
}

#[tokio::test]
async fn where_the_kernel_gives_no_pidfd_programs_run_and_nothing_outlives_them() {
    if !is_alone("where_the_kernel_gives_no_pidfd_programs_run_and_nothing_outlives_them") {
        return;
    }
    ffi::refuse_call(libc::SYS_pidfd_open).expect("a filter");
    let own = std::process::id();
    let supervisors = Supervisors::new(None);
    assert_eq!(contained(&supervisors, "echo on").await, "on\n");
    let (left, late, killed, others) =
        (format!("30{own}"), format!("31{own}"), format!("32{own}"), format!("33{own}"));
    let other = start(&supervisors, &format!("sleep {others}")).await.expect("runs");

    let text = format!("(setsid sh -c 'sleep {left}; :' >/dev/null 2>&1 &); echo up");
    let done = captured(&text, LONG).await.expect("ends");
    assert_eq!(done.stdout, b"up\n");
    assert_eq!(alive(&left), 0, "what the program left is gone");

    let text = format!("sh -c 'sleep {late}; :' & sleep {late}");
    let error = captured(&text, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(error, CaptureError::Timeout(_)), "{error}");
    assert_eq!(alive(&late), 0, "what took too long is gone");

    let text = format!("(sh -c 'sleep {killed}; :' &); kill -9 $PPID; sleep {killed}");
    let error = capture(&supervisors, shell(&text).into(), LONG, 1000).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run: its supervisor was killed");
    until_gone(&killed).await;

    assert!(alive(&others) > 0, "no other program was killed");
    other.end().await;
    assert_eq!(alive(&others), 0);
}

#[tokio::test]
async fn a_supervisor_of_which_the_fork_server_gets_no_descriptor_is_no_orphan() {
    let own = std::process::id();
    let (mark, killed) = (format!("34{own}"), format!("35{own}"));
    let supervisors = Supervisors::new(None);
    let server = fork_server(&supervisors);
    capture(&supervisors, shell("true").into(), LONG, 10).await.expect("runs");
    // The lowest limit with which the program starts leaves room for its descriptors, and none for its supervisor's.
    let mut running = None;
    let mut before = None;
    for most in 5..20 {
        let old = limit_descriptors(server, Some(most));
        before = before.or(old);
        running = start(&supervisors, &format!("sleep {mark}")).await.ok();
        if running.is_some() {
            break;
        }
    }
    let mut running = running.expect("it starts with twenty descriptors");
    limit_descriptors(server, before);

    let text = format!("setsid sleep {killed} >/dev/null 2>&1 & kill -9 $PPID; sleep {killed}");
    let error = capture(&supervisors, shell(&text).into(), LONG, 1000).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run: its supervisor was killed");
    until_gone(&killed).await;

    running.kill();
    let end = running.ended().await.expect("its supervisor lives, and reports the end");
    assert_eq!(end.status().signal(), Some(9));
    assert_eq!(alive(&mark), 0);
}

#[tokio::test]
async fn a_program_whose_descriptors_the_fork_server_cannot_take_is_refused_and_others_run() {
    let supervisors = Supervisors::new(None);
    let server = fork_server(&supervisors);
    capture(&supervisors, shell("true").into(), LONG, 10).await.expect("runs");
    let running = start(&supervisors, "sleep 60").await.expect("runs");
    let before = limit_descriptors(server, Some(7));
    for _ in 0..3 {
        let error = start(&supervisors, "true").await.expect_err("refused");
        assert_eq!(error.raw_os_error(), Some(rustix::io::Errno::MFILE.raw_os_error()), "{error}");
    }
    limit_descriptors(server, before);
    assert_eq!(fork_server(&supervisors), server, "it is the same fork server");
    let done = capture(&supervisors, shell("echo on").into(), LONG, 1000).await.expect("runs");
    assert_eq!(done.stdout, b"on\n");
    running.end().await;
}

#[tokio::test]
async fn what_a_killed_fork_server_left_is_killed_once_files_can_be_opened_again() {
    if !is_alone("what_a_killed_fork_server_left_is_killed_once_files_can_be_opened_again") {
        return;
    }
    let supervisors = Supervisors::new(None);
    let server = fork_server(&supervisors);
    let mark = format!("36{}", std::process::id());
    let text = format!(
        "(setsid sh -c 'sleep {mark}; :' >/dev/null 2>&1 &); kill -9 {server} $PPID; sleep {mark}"
    );
    let error = capture(&supervisors, shell(&text).into(), LONG, 1000).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot run: its supervisor was killed");
    assert!(alive(&mark) > 0, "nothing has killed them yet");
    let limit = Rlimit { current: Some(64), maximum: getrlimit(Resource::Nofile).maximum };
    setrlimit(Resource::Nofile, limit).expect("a limit");
    let files: Vec<_> = std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect();
    end_orphans();
    drop(files);
    until_gone(&mark).await;
}
