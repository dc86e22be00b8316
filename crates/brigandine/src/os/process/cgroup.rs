//! Control groups (version 2): bounds that the kernel enforces for a program and its descendants, and one write that
//! kills all of them.
//!
//! ```text
//! the server's own group        delegated to it, with the controllers that it may enable
//! ├─ brigandine-HASH-server     the server: a group that enables controllers may have no members of its own
//! └─ brigandine-HASH            of one state directory; made when it is needed
//!    ├─ 1
//!    └─ 2 …                     one for each program, made and removed by its supervisor
//! ```
//!
//! The supervisor is outside of its program's group, so killing the group does not kill it.
//!
//! - CGRP1: the limits are written before a process is in the group.
//! - CGRP2: a program is in its group from its first instruction on.
//! - CGRP3: the supervisor removes the group. If the supervisor was killed, the server does it; if the server was
//!   killed too, the next server of the state directory does it. Each of them first kills the processes in the group.

use super::limits::{Limit, Limits};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How long to wait until killed processes have left a group; only the kernel can delay it.
const EMPTY: Duration = Duration::from_secs(10);
/// The time between two looks at a group.
const PAUSE: Duration = Duration::from_millis(2);

/// The controllers that the server uses, as far as a group has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Controllers {
    pub(crate) memory: bool,
    pub(crate) pids: bool,
}

impl Controllers {
    fn named(list: &str) -> Self {
        let has = |name| list.split_whitespace().any(|word| word == name);
        Self { memory: has("memory"), pids: has("pids") }
    }

    pub(super) fn any(self) -> bool {
        self.memory || self.pids
    }

    /// The controllers in the form of `cgroup.subtree_control`.
    fn wish(self) -> String {
        let names = [(self.memory, "+memory"), (self.pids, "+pids")];
        names.iter().filter_map(|(has, name)| has.then_some(*name)).collect::<Vec<_>>().join(" ")
    }
}

/// The groups of a server's programs.
#[derive(Debug)]
pub(crate) struct Cgroups {
    folder: PathBuf,
    controllers: Controllers,
    /// The name of the next group.
    serial: AtomicU64,
}

impl Cgroups {
    /// Finds the server's own group and prepares it for programs. Kills and removes what an earlier server of this name
    /// left. Blocks. Must be called before the first program starts.
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

    /// Makes the groups below the group `own`.
    fn below(own: &Path, name: &str) -> io::Result<Self> {
        let folder = own.join(format!("brigandine-{name}"));
        for left in groups_in(&folder) {
            end(&left);
        }
        let offered = Controllers::named(&fs::read_to_string(own.join("cgroup.controllers"))?);
        let controllers = if offered.any() && pass_on(own, &folder, name, offered).is_ok() {
            // The kernel says here what it has enabled, which may be less than what was asked for.
            let passed = fs::read_to_string(folder.join("cgroup.subtree_control"))?;
            Controllers::named(&passed.replace('+', ""))
        } else {
            Controllers::default()
        };
        Ok(Self { folder, controllers, serial: AtomicU64::new(0) })
    }

    /// Says for people what these groups are for.
    pub(crate) const fn describe(&self) -> &'static str {
        match (self.controllers.memory, self.controllers.pids) {
            (true, true) => "the kernel enforces the limits on their memory and processes",
            (true, false) => {
                "the kernel enforces the limit on their memory; the number of their processes is measured (no \
                 controller `pids`)"
            }
            (false, true) => {
                "the kernel enforces the limit on their processes; their memory is measured (no controller `memory`)"
            }
            (false, false) => {
                "only to end builds where there is no namespace; their memory and processes are measured (no \
                 controllers `memory`, `pids`)"
            }
        }
    }

    /// A group for the next program.
    pub(super) fn next(&self) -> PlannedGroup {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(serial.to_string());
        PlannedGroup { path, controllers: self.controllers }
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        // Groups in use stay; their supervisors remove them.
        let _ = fs::remove_dir(&self.folder);
    }
}

/// A group that a supervisor is to make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PlannedGroup {
    #[serde(with = "super::path")]
    pub(super) path: PathBuf,
    pub(super) controllers: Controllers,
}

impl PlannedGroup {
    /// Makes the group. The `own` processes of bubblewrap are allowed on top of the limit.
    pub(super) fn make(&self, limits: Option<&Limits>, own: u64) -> io::Result<Group> {
        if let Some(folder) = self.path.parent() {
            make(folder)?;
        }
        make(&self.path)?;
        let group = Group { path: self.path.clone() };
        // CGRP1
        if let Some(limits) = limits {
            if self.controllers.pids {
                group.write("pids.max", &limits.processes.saturating_add(own).to_string())?;
            }
            if self.controllers.memory {
                group.write("memory.max", &limits.memory.to_string())?;
                // If memory runs out, the kernel kills all processes of the build. If it killed only one, the others
                // would wait for it. Kernels before 4.19 lack the first file, kernels without swap the second.
                let _ = group.write("memory.oom.group", "1");
                let _ = group.write("memory.swap.max", "0");
            }
        }
        Ok(group)
    }

    /// Kills the processes in the group and removes the group, if it exists (CGRP3).
    pub(super) fn end(&self) {
        end(&self.path);
    }
}

/// An existing group. Removed when dropped, unless processes are in it.
#[derive(Debug)]
pub(super) struct Group {
    path: PathBuf,
}

impl Group {
    fn write(&self, name: &str, text: &str) -> io::Result<()> {
        fs::write(self.path.join(name), text)
    }

    /// Opens the group's directory, so that a process can be started in the group.
    pub(super) fn open(&self) -> io::Result<fs::File> {
        fs::File::open(&self.path)
    }

    /// Moves this process into the group.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.write("cgroup.procs", "0")
    }

    /// Kills everything in the group in one step, during which no process can fork. `false`: this kernel cannot do it
    /// (before 5.14).
    pub(super) fn kill(&self) -> bool {
        kill_at_once(&self.path)
    }

    /// The limit because of which the kernel refused a new process or killed the group; `None`: there was none.
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

/// The number after a name, at the beginning of a line.
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

/// Enables controllers in the server's own group and in `folder`, for the groups of programs.
fn pass_on(own: &Path, folder: &Path, name: &str, offered: Controllers) -> io::Result<()> {
    let wish = offered.wish();
    let ask = |group: &Path| fs::write(group.join("cgroup.subtree_control"), &wish);
    make(folder)?;
    if ask(own).is_err() {
        // The kernel refuses while the group has members. This server moves itself out of the way, but no other
        // process.
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

/// The groups directly below a group.
fn groups_in(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let folders = entries.flatten().filter(|it| it.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|it| it.path()).collect()
}

fn members(group: &Path) -> Vec<i32> {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    // The kernel writes 0 for a process in a PID namespace that is not visible here.
    list.lines().filter_map(|id| id.parse().ok()).filter(|id| *id > 0).collect()
}

fn kill_at_once(group: &Path) -> bool {
    let kill = group.join("cgroup.kill");
    kill.exists() && fs::write(kill, "1").is_ok()
}

/// Kills everything in a group and in those below it, and removes them.
fn end(group: &Path) {
    let began = Instant::now();
    while began.elapsed() < EMPTY {
        if !kill_at_once(group) {
            for below in groups_in(group) {
                end(&below);
            }
            for id in members(group) {
                // The process is opened, then checked to be still a member. So the signal goes to that process, even if
                // the kernel reuses the id.
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
    if is_populated(group) {
        tracing::error!(
            group = %group.display(),
            "processes of a build could not be ended: end those that `cgroup.procs` in this directory lists"
        );
    }
    remove(group);
}

/// Whether a process is in a group or in one below it.
fn is_populated(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    count(&events, "populated") > 0
}

/// Removes a group and those below it, which its program may have made. A group with members stays.
fn remove(group: &Path) {
    for below in groups_in(group) {
        remove(&below);
    }
    let began = Instant::now();
    // A group stays busy for a moment after its last process was reaped.
    while fs::remove_dir(group).is_err_and(|error| error.kind() == io::ErrorKind::ResourceBusy)
        && began.elapsed() < Duration::from_millis(100)
    {
        std::thread::sleep(PAUSE);
    }
}

/// The directory of a process's group, from the texts of its `mountinfo` and `cgroup`. `None`: no writable cgroup2
/// mount shows the group.
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
        // The mount may show only a part of the hierarchy. The group must be in that part.
        let below = own.strip_prefix(&root).ok().filter(|_| writable)?;
        Some(Path::new(&point).join(below))
    })
}

/// Decodes a path of mountinfo, where backslashes with octal numbers stand for some characters.
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

/// Checks whether this server may make groups below a group. Root may write to every group, but systemd expects no
/// foreign groups in a group that it has not delegated.
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
