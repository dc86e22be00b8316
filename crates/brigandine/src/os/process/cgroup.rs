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
mod tests;
