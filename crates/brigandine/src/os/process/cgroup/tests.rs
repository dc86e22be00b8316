use super::*;
use crate::os::process::{Bounds, Program, Streams, Supervisors, capture, output_pipe};
use std::process::{Child, Command};
use tokio::io::AsyncReadExt;

const LIMITS: Limits = Limits { memory: 1 << 20, processes: 60, file: 1 << 20, disk: 1 << 30 };
const LONG: Duration = Duration::from_secs(60);

/// A folder that looks like a group to which these controllers are delegated.
fn looks_like_a_group(controllers: &str) -> tempfile::TempDir {
    let own = tempfile::tempdir().expect("directory");
    fs::write(own.path().join("cgroup.controllers"), controllers).expect("file");
    fs::write(own.path().join("cgroup.subtree_control"), "").expect("file");
    fs::write(own.path().join("cgroup.procs"), "").expect("file");
    own
}

fn read(group: &Path, name: &str) -> String {
    fs::read_to_string(group.join(name)).unwrap_or_else(|error| format!("{name}: {error}"))
}

#[test]
fn the_servers_own_group_is_found_in_what_is_mounted() {
    let unified = "25 30 0:23 / /sys rw - sysfs sysfs rw\n\
                   31 25 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    let hybrid = "32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                  41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
    let part = "41 31 0:38 /docker/7 /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let strange = "41 31 0:38 / /mnt/a\\040b rw - cgroup2 cgroup2 rw\n";
    let read_only = "41 31 0:38 / /sys/fs/cgroup ro,nosuid - cgroup2 cgroup2 rw\n";
    for (mountinfo, cgroup, expected) in [
        (unified, "0::/system.slice/b.service\n", Some("/sys/fs/cgroup/system.slice/b.service")),
        (unified, "0::/\n", Some("/sys/fs/cgroup/")),
        (hybrid, "4:memory:/x\n0::/y\n", Some("/sys/fs/cgroup/unified/y")),
        (hybrid, "4:memory:/x\n", None),
        (part, "0::/docker/7/b\n", Some("/sys/fs/cgroup/b")),
        (part, "0::/docker/71\n", None),
        (part, "0::/../8\n", None),
        (strange, "0::/x\n", Some("/mnt/a b/x")),
        (read_only, "0::/x\n", None),
        ("", "0::/x\n", None),
    ] {
        let expected = expected.map(PathBuf::from);
        assert_eq!(own_group(mountinfo, cgroup), expected, "{mountinfo} {cgroup}");
    }
}

#[test]
fn limits_are_written_where_their_controllers_are_passed_on() {
    for (controllers, memory, pids) in [
        ("cpuset cpu io memory hugetlb pids", true, true),
        ("memory", true, false),
        ("cpu pids", false, true),
        ("cpu io", false, false),
        ("", false, false),
    ] {
        let own = looks_like_a_group(controllers);
        let groups = Cgroups::below(own.path(), "it").expect("groups");
        assert_eq!(groups.controllers, Controllers { memory, pids }, "{controllers}");
        // What is missing is named.
        assert_eq!(groups.describe().contains("`memory`"), !memory, "{controllers}");
        assert_eq!(groups.describe().contains("`pids`"), !pids, "{controllers}");
        let wanted = groups.next();
        assert_eq!(wanted.controllers.any(), memory || pids, "{controllers}");
        assert_ne!(wanted.path, groups.next().path);
        let group = wanted.make(Some(&LIMITS), 2).expect("a group");
        let expected = [
            (memory, "memory.max", "1048576"),
            (memory, "memory.swap.max", "0"),
            (memory, "memory.oom.group", "1"),
            // 60, and the two processes of bubblewrap.
            (pids, "pids.max", "62"),
        ];
        for (written, name, text) in expected {
            assert_eq!(group.path.join(name).exists(), written, "{controllers} {name}");
            assert!(!written || read(&group.path, name) == text, "{controllers} {name}");
        }
        let passed = Controllers { memory, pids }.wish();
        assert_eq!(read(own.path(), "cgroup.subtree_control"), passed, "{controllers}");
    }
}

#[test]
fn a_group_says_which_limit_was_met() {
    let own = looks_like_a_group("memory pids");
    let groups = Cgroups::below(own.path(), "it").expect("groups");
    let group = groups.next().make(Some(&LIMITS), 0).expect("a group");
    let quiet = "low 0\nhigh 0\nmax 7\noom 0\noom_kill 0\noom_group_kill 0\n";
    for (memory, pids, expected) in [
        (None, None, None),
        (Some(quiet), Some("max 0\n"), None),
        (Some(quiet), Some("max 3\n"), Some(Limit::Processes)),
        (Some("max 9\noom 1\noom_kill 0\n"), Some("max 0\n"), Some(Limit::Memory)),
        (Some("max 9\noom 1\noom_kill 12\n"), Some("max 1\n"), Some(Limit::Memory)),
        (Some("nonsense\n\noom_kill\n"), Some("max x\n"), None),
    ] {
        for (name, text) in [("memory.events", memory), ("pids.events", pids)] {
            let file = group.path.join(name);
            let _ = fs::remove_file(&file);
            if let Some(text) = text {
                fs::write(file, text).expect("file");
            }
        }
        assert_eq!(group.met(), expected, "{memory:?} {pids:?}");
    }
}

fn sleeper() -> Child {
    Command::new("sleep").arg("1000").spawn().expect("sleep")
}

fn is_killed(child: &mut Child) -> bool {
    use std::os::unix::process::ExitStatusExt;
    child.wait().expect("its status").signal() == Some(9)
}

#[test]
fn what_an_earlier_server_left_is_killed_one_by_one_where_there_is_no_other_way() {
    let own = looks_like_a_group("");
    let left = own.path().join("brigandine-it/7");
    fs::create_dir_all(left.join("made/by/it")).expect("directories");
    let mut children = [sleeper(), sleeper(), sleeper()];
    let list = |some: &[Child]| some.iter().map(|it| format!("{}\n", it.id())).collect::<String>();
    fs::write(left.join("cgroup.procs"), list(&children[..2])).expect("file");
    fs::write(left.join("made/by/it/cgroup.procs"), list(&children[2..])).expect("file");
    Cgroups::below(own.path(), "it").expect("groups");
    assert!(children.iter_mut().all(is_killed));
}

fn shell(text: &str, bounds: Option<Bounds>) -> Program {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", text]).env("PATH", "/usr/bin:/bin");
    Program { contained: true, bounds, ..command.into() }
}

#[tokio::test]
async fn a_program_runs_in_a_group_that_has_its_limits_and_says_which_it_met() {
    let own = looks_like_a_group("memory pids");
    let groups = Cgroups::below(own.path(), "it").expect("groups");
    let folder = groups.folder.clone();
    let supervisors = Supervisors::with_groups(None, Some(groups));
    let run = async |program| {
        let (mut out, stdout) = output_pipe().expect("a pipe");
        let stderr = stdout.try_clone().expect("a pipe").into();
        let streams = Streams { stdin: None, stdout: stdout.into(), stderr };
        let mut running = supervisors.spawn(program, streams).await?;
        let mut text = String::new();
        out.read_to_string(&mut text).await.expect("text");
        Ok::<_, io::Error>((text, running.ended().await.expect("its end")))
    };
    let bounds = || Some(Bounds { limits: LIMITS, directory: own.path().to_owned() });
    let (text, end) = run(shell("echo $0 up; exit 0", bounds())).await.expect("runs");
    assert_eq!((text.as_str(), end.status().code(), end.limit), ("/bin/sh up\n", Some(0), None));
    // The new process wrote this file before it executed the program.
    assert_eq!(read(&folder.join("0"), "cgroup.procs"), "0");
    assert_eq!(read(&folder.join("0"), "pids.max"), "60");
    for (number, (events, code, expected)) in [
        ("memory.events", 1, Some(Limit::Memory)),
        ("pids.events", 2, Some(Limit::Processes)),
        // A refusal that the program handles is no failure.
        ("pids.events", 0, None),
    ]
    .into_iter()
    .enumerate()
    {
        let file = folder.join((number + 1).to_string()).join(events);
        let script =
            format!("printf 'max 1\\noom_kill {code}\\n' > {}; exit {code}", file.display());
        let (_, end) = run(shell(&script, bounds())).await.expect("runs");
        assert_eq!((end.status().code(), end.limit), (Some(code), expected), "{events}");
    }
    let error = run(Program { contained: true, ..Command::new("/no/such").into() }).await;
    assert_eq!(error.unwrap_err().kind(), io::ErrorKind::NotFound);
}

/// Makes a real control group, if this machine delegates one to this process.
fn real(name: &str) -> Option<PathBuf> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let own = own_group(&mountinfo, &fs::read_to_string("/proc/self/cgroup").ok()?)?;
    check_delegated(&own).ok()?;
    let group = own.join(format!("brigandine-test-{name}-{}", std::process::id()));
    fs::create_dir(&group).ok().map(|()| group)
}

#[test]
fn the_kernel_ends_what_an_earlier_server_left_in_a_group_and_the_group_goes() {
    let Some(own) = real("left") else { return };
    let left = own.join("brigandine-it/3/of/its/own");
    fs::create_dir_all(&left).expect("groups");
    let mut child = sleeper();
    fs::write(left.join("cgroup.procs"), child.id().to_string()).expect("moved");
    // A killed process stays in its group until it is reaped.
    let reaper = std::thread::Builder::new().name("reaper".to_owned());
    let reaped = reaper.spawn(move || is_killed(&mut child)).expect("a thread");
    let groups = Cgroups::below(&own, "it").expect("groups");
    assert!(reaped.join().expect("reaped"));
    assert_eq!(groups_in(&own.join("brigandine-it")), [""; 0].map(PathBuf::from));
    drop(groups);
    assert!(!own.join("brigandine-it").exists());
    fs::remove_dir(&own).expect("nothing is left in it");
}

#[tokio::test]
async fn a_program_begins_in_its_group_of_the_kernels_and_all_of_it_ends_with_the_group() {
    let Some(own) = real("run") else { return };
    let mut groups = Cgroups::below(&own, "it").expect("groups");
    // Act as if there were a controller, because the machine may delegate none.
    groups.controllers.pids = true;
    let supervisors = Supervisors::with_groups(None, Some(groups));
    let mark = format!("47{}", std::process::id());
    let script = format!(
        "grep ^0: /proc/self/cgroup; (setsid sh -c 'env -i sleep {mark} & sleep {mark}' &) \
         >/dev/null 2>&1"
    );
    for serial in 0..3 {
        let done = capture(&supervisors, shell(&script, None), LONG, 1000).await.expect("runs");
        let text = String::from_utf8_lossy(&done.stdout).into_owned();
        assert!(text.trim().ends_with(&format!("/brigandine-it/{serial}")), "{text}");
        let lines = fs::read_dir("/proc").expect("/proc").flatten();
        let lines = lines.filter_map(|it| fs::read_to_string(it.path().join("cmdline")).ok());
        assert_eq!(lines.filter(|line| line.contains(&mark)).count(), 0);
        assert_eq!(groups_in(&own.join("brigandine-it")), [""; 0].map(PathBuf::from));
    }
    drop(supervisors);
    fs::remove_dir(&own).expect("nothing is left in it");
}
