//! Control groups (version 2): bounds that the kernel itself keeps for all that a program starts, and one
//! write that ends all of it.
//!
//! ```text
//! the server's own group        delegated to it, with the controllers that it may pass on
//! ├─ brigandine-HASH-server     the server: a group that passes controllers on has no members of its own
//! └─ brigandine-HASH            of one state directory; there when it is needed
//!    ├─ 1
//!    └─ 2 …                     one for each program, made and removed by its supervisor
//! ```
//!
//! The supervisor itself is outside of its program's group, so that it outlives the end of that.
//!
//! G1: the limits are written before anything is in the group.
//! G2: a program is in its group from its first instruction on.
//! G3: a group is removed by its supervisor, else by the server that sees the supervisor lost, else by the
//! next server of the state directory, each of which ends first what is in it.

use super::limits::{Limit, Limits};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long what was killed in a group may take to leave it; only the kernel can delay it.
const EMPTY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(2);

/// What the kernel bounds for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Controllers {
    pub(crate) memory: bool,
    pub(crate) pids: bool,
}

impl Controllers {
    fn named(list: &str) -> Self {
        let has = |name| list.split_whitespace().any(|word| word == name);
        Self { memory: has("memory"), pids: has("pids") }
    }

    fn any(self) -> bool {
        self.memory || self.pids
    }

    /// As the kernel is asked to pass them on.
    fn wish(self) -> String {
        let names = [(self.memory, "+memory"), (self.pids, "+pids")];
        names.iter().filter_map(|(has, name)| has.then_some(*name)).collect::<Vec<_>>().join(" ")
    }
}

/// The groups of one server's programs.
#[derive(Debug)]
pub(crate) struct Cgroups {
    folder: PathBuf,
    controllers: Controllers,
    /// Names groups.
    serial: AtomicU64,
}

impl Cgroups {
    /// Finds the server's own group and prepares it for programs; ends and removes what an earlier server of
    /// this name left. Blocks. To be called before anything is started.
    ///
    /// # Errors
    /// Why there are no groups, for people.
    pub(crate) fn begin(name: &str) -> Result<Self, String> {
        let read = |path| fs::read_to_string(path).map_err(|error| format!("{path}: {error}"));
        let own = own_group(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?)
            .ok_or("no cgroup2 file system shows the server's own group")?;
        check_delegated(&own)?;
        Self::below(&own, name).map_err(|error| format!("{}: {error}", own.display()))
    }

    /// The groups below the group `own`.
    fn below(own: &Path, name: &str) -> io::Result<Self> {
        let folder = own.join(format!("brigandine-{name}"));
        for left in groups_in(&folder) {
            end(&left);
        }
        let offered = Controllers::named(&fs::read_to_string(own.join("cgroup.controllers"))?);
        let controllers = if offered.any() && pass_on(own, &folder, name, offered).is_ok() {
            // What the kernel took, which may be less.
            let passed = fs::read_to_string(folder.join("cgroup.subtree_control"))?;
            Controllers::named(&passed.replace('+', ""))
        } else {
            Controllers::default()
        };
        Ok(Self { folder, controllers, serial: AtomicU64::new(0) })
    }

    /// What the kernel does with them, for people.
    pub(crate) fn describe(&self) -> String {
        let kept = match (self.controllers.memory, self.controllers.pids) {
            (true, true) => "memory and processes",
            (true, false) => "memory",
            (false, true) => "processes",
            (false, false) => {
                return "the kernel ends them, where it gives no namespace".to_owned();
            }
        };
        format!("the kernel bounds {kept}")
    }

    /// A group for the next program.
    pub(super) fn next(&self) -> Wanted {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(serial.to_string());
        Wanted { path, controllers: self.controllers }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // What is in use stays, and is ended by its supervisor.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A group that a supervisor is to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) path: PathBuf,
    pub(super) controllers: Controllers,
}

impl Wanted {
    /// Whether it bounds anything.
    pub(super) fn bounds(&self) -> bool {
        self.controllers.any()
    }

    /// Makes it. `own` processes of the sandbox do not count for the program.
    pub(super) fn make(&self, limits: Option<&Limits>, own: u64) -> io::Result<Group> {
        if let Some(folder) = self.path.parent() {
            make(folder)?;
        }
        make(&self.path)?;
        let group = Group { path: self.path.clone() };
        // G1
        if let Some(limits) = limits {
            if self.controllers.pids {
                group.write("pids.max", &limits.processes.saturating_add(own).to_string())?;
            }
            if self.controllers.memory {
                group.write("memory.max", &limits.memory.to_string())?;
                // An end of some of a build's processes leaves a build that waits for them. Neither file is
                // everywhere: kernels before 4.19, kernels without swap.
                let _ = group.write("memory.oom.group", "1");
                let _ = group.write("memory.swap.max", "0");
            }
        }
        Ok(group)
    }

    /// G3. Ends what is in it and removes it, if it is there.
    pub(super) fn end(&self) {
        end(&self.path);
    }
}

/// A group that is there. Removed when dropped, if nothing is in it.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(name), text)
    }

    /// For a process that is to begin in it.
    pub(super) fn open(&self) -> io::Result<fs::File> {
        fs::File::open(&self.path)
    }

    /// Moves this process into it.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Kills everything in it in one step of the kernel's, in which nothing is forked. `false`: this kernel
    /// cannot (before 5.14).
    pub(super) fn kill(&self) -> bool {
        kill_at_once(&self.path)
    }

    /// The limit at which the kernel refused something to what was in it, or ended it.
    pub(super) fn met(&self) -> Option<Limit> {
        let events = |file| fs::read_to_string(self.path.join(file)).unwrap_or_default();
        let memory = events("memory.events");
        if count(&memory, "oom_kill") > 0 || count(&memory, "oom") > 0 {
            return Some(Limit::Memory);
        }
        (count(&events("pids.events"), "max") > 0).then_some(Limit::Processes)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.path);
    }
}

/// What is counted under a name, one of which stands on each line.
fn count(events: &str, name: &str) -> u64 {
    let mut pairs = events.lines().filter_map(|line| line.split_once(' '));
    let found = pairs.find(|(key, _)| *key == name);
    found.and_then(|(_, number)| number.trim().parse().ok()).unwrap_or(0)
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

/// Passes controllers on from the server's own group to those of programs.
fn pass_on(own: &Path, folder: &Path, name: &str, offered: Controllers) -> io::Result<()> {
    let wish = offered.wish();
    let ask = |group: &Path| fs::write(group.join("cgroup.subtree_control"), &wish);
    make(folder)?;
    if ask(own).is_err() {
        // Refused while the group has members. The server is one; others are not moved.
        let members = members(own);
        if members != [std::process::id().cast_signed()] {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        let server = own.join(format!("brigandine-{name}-server"));
        make(&server)?;
        fs::write(server.join("cgroup.procs"), "0")?;
        ask(own)?;
    }
    ask(folder)
}

/// Groups right below a group.
fn groups_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|it| it.path()).collect()
}

fn members(group: &Path) -> Vec<i32> {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // 0: one of a namespace that this process does not see.
    list.lines().filter_map(|id| id.parse().ok()).filter(|id| *id > 0).collect()
}

fn kill_at_once(group: &Path) -> bool {
    let kill = group.join("cgroup.kill");
    kill.exists() && fs::write(kill, "1").is_ok()
}

/// Ends everything in a group and in those below it, and removes them.
fn end(group: &Path) {
    let began = Instant::now();
    while began.elapsed() < EMPTY {
        if !kill_at_once(group) {
            for below in groups_in(group) {
                end(&below);
            }
            for id in members(group) {
                // Opened and then seen to be a member still: the signal goes to that process.
                if let Some(pid) = Pid::from_raw(id)
                    && let Ok(handle) = pidfd_open(pid, PidfdFlags::empty())
                    && members(group).contains(&id)
                {
                    let _ = pidfd_send_signal(&handle, Signal::KILL);
                }
            }
        }
        if !is_populated(group) {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    remove(group);
}

/// Whether a process is in a group or in one below it.
fn is_populated(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    count(&events, "populated") > 0
}

/// Removes a group and those below it, which a program may have made. One that has members stays.
fn remove(group: &Path) {
    for below in groups_in(group) {
        remove(&below);
    }
    let began = Instant::now();
    // The kernel gives a group up a moment after the last process in it was reaped.
    while fs::remove_dir(group).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
        && began.elapsed() < Duration::from_millis(100)
    {
        std::thread::sleep(PAUSE);
    }
}

/// The folder of the group that a process is in, by its `mountinfo` and `cgroup`.
fn own_group(mountinfo: &str, cgroup: &str) -> Option<PathBuf> {
    let own = Path::new(cgroup.lines().find_map(|line| line.strip_prefix("0::"))?);
    mountinfo.lines().find_map(|line| {
        let (fields, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        let writable = fields.next()?.split(',').any(|option| option == "rw");
        // What is mounted may be a part, in which the group has to be.
        let below = own.strip_prefix(&root).ok().filter(|_| writable)?;
        Some(Path::new(&point).join(below))
    })
}

/// A path as mountinfo has it: some characters are octal numbers.
fn unescape(path: &str) -> String {
    let mut text = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('\\') {
        text.push_str(before);
        match after.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                text.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                text.push('\\');
                rest = after;
            }
        }
    }
    text + rest
}

/// Whether a group is this server's to divide. Root may write to every group, and systemd does not expect
/// others in those that it did not hand over.
fn check_delegated(group: &Path) -> Result<(), String> {
    use rustix::fs::{Access, access, getxattr};
    let files =
        [group.to_owned(), group.join("cgroup.procs"), group.join("cgroup.subtree_control")];
    for file in files {
        access(&file, Access::WRITE_OK)
            .map_err(|error| format!("{}: {}", file.display(), io::Error::from(error)))?;
    }
    let delegated = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0; 8];
        getxattr(group, *name, &mut value).is_ok_and(|length| value.get(..length) == Some(b"1"))
    });
    if Path::new("/run/systemd/system").is_dir() && !delegated {
        return Err(format!(
            "systemd has not delegated {}: add `Delegate=yes` to the unit",
            group.display()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
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
            (
                unified,
                "0::/system.slice/b.service\n",
                Some("/sys/fs/cgroup/system.slice/b.service"),
            ),
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
            let wanted = groups.next();
            assert_eq!(wanted.bounds(), memory || pids, "{controllers}");
            assert_ne!(wanted.path, groups.next().path);
            let group = wanted.make(Some(&LIMITS), 2).expect("a group");
            let expected = [
                (memory, "memory.max", "1048576"),
                (memory, "memory.swap.max", "0"),
                (memory, "memory.oom.group", "1"),
                // Two are bubblewrap's.
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
        let list =
            |some: &[Child]| some.iter().map(|it| format!("{}\n", it.id())).collect::<String>();
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
        assert_eq!(
            (text.as_str(), end.status().code(), end.limit),
            ("/bin/sh up\n", Some(0), None)
        );
        // Written by the program before it was one.
        assert_eq!(read(&folder.join("0"), "cgroup.procs"), "0");
        assert_eq!(read(&folder.join("0"), "pids.max"), "60");
        for (number, (events, code, expected)) in [
            ("memory.events", 1, Some(Limit::Memory)),
            ("pids.events", 2, Some(Limit::Processes)),
            // What was refused and borne is no failure.
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

    /// A group of the kernel's own, where this machine has one to give.
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
        // A process that is killed and not reaped is in its group until then.
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
        // As if it bounded something: the machine may have no controllers to pass on.
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
}
