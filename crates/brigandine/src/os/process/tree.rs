//! Finds the descendants of this process in `/proc`.
//!
//! A child keeps its id until this process reaps it, so it can be signalled safely. The kernel can reuse the ids of
//! other descendants at any time. So each process is opened as a descriptor (pidfd). It is treated as a descendant only
//! if `/proc` names its parent, and the parent's pidfd then shows that the parent is still alive.
//!
//! The kernel may refuse a descriptor: there are too many, memory is short, or a filter of system calls forbids
//! pidfd_open. Then a child is signalled by its id, and a deeper descendant is passed over until it is a child, which
//! it becomes when its ancestors have ended. So a caller that must reach all repeats until [`kill_and_reap`] says that
//! none is left.

use crate::os::file::has_no_room;
use crate::os::stat::fields;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions, kill_process, pidfd_open,
    pidfd_send_signal, waitid, waitpid,
};
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How many levels of descendants are visited. Deeper processes move up when their parents end.
const DEPTH_MAX: usize = 200;

/// The ids of a process's children. `None`: the process has ended, or its children cannot be listed, because no further
/// file can be opened for example.
///
/// A child that is just starting or ending may be missing, so callers that need all children ask again.
fn children(parent: i32) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{parent}/task")).ok()?.flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(list) => {
                found.extend(list.split_whitespace().filter_map(|id| id.parse::<i32>().ok()));
            }
            // The thread still exists, so the kernel has no such lists. In the next case the thread has just ended.
            Err(_) if task.path().exists() => return search_children(parent, read_stat),
            Err(_) => {}
        }
    }
    Some(found)
}

/// Like [`children`], but asks `read_stat` for the text of `/proc/ID/stat` of every process of the machine.
fn search_children(parent: i32, read_stat: impl Fn(i32) -> io::Result<String>) -> Option<Vec<i32>> {
    let mut found = Vec::new();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
        match read_stat(id) {
            Ok(stat) if parent_in(&stat) == Some(parent) => found.push(id),
            // The file cannot be opened at the moment, so a child may be missed.
            Err(error) if has_no_room(&error) => return None,
            // The process has ended, or may not be read, because it is another user's (`hidepid` of `/proc`).
            Ok(_) | Err(_) => {}
        }
    }
    Some(found)
}

fn read_stat(id: i32) -> io::Result<String> {
    fs::read_to_string(format!("/proc/{id}/stat"))
}

/// The state of a process, such as `T` for one that is stopped. The process may be dead but not reaped.
pub(super) fn state_of(id: i32) -> Option<char> {
    fields(&read_stat(id).ok()?).next()?.chars().next()
}

/// The parent of a process. The process may be dead but not reaped.
fn parent_of(id: i32) -> Option<i32> {
    parent_in(&read_stat(id).ok()?)
}

/// The id of the parent, from the text of `/proc/ID/stat`.
fn parent_in(stat: &str) -> Option<i32> {
    fields(stat).nth(1)?.parse().ok()
}

/// A descendant of this process. A signal reaches this process and no other.
#[derive(Debug)]
pub(super) enum Process {
    /// A process that is open as a descriptor.
    Opened(OwnedFd),
    /// A child of which the kernel gave no descriptor. It keeps its id, because nothing reaps it meanwhile.
    Child(Pid),
}

impl Process {
    fn child(id: i32) -> Option<Self> {
        let pid = Pid::from_raw(id)?;
        Some(open(id).unwrap_or(Self::Child(pid)))
    }

    fn is_alive(&self) -> bool {
        match self {
            Self::Opened(handle) => {
                let mut polled = [PollFd::new(handle, PollFlags::IN)];
                matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
            }
            Self::Child(pid) => {
                let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
                matches!(waitid(WaitId::Pid(*pid), look), Ok(None))
            }
        }
    }

    /// Sends a signal. `false`: the process has ended, or may not be signalled.
    pub(super) fn signal(&self, signal: Signal) -> bool {
        match self {
            Self::Opened(handle) => pidfd_send_signal(handle, signal).is_ok(),
            Self::Child(pid) => kill_process(*pid, signal).is_ok(),
        }
    }

    /// `None`: no further descriptor can be opened.
    pub(super) fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Opened(handle) => handle.try_clone().ok().map(Self::Opened),
            Self::Child(pid) => Some(Self::Child(*pid)),
        }
    }
}

fn open(id: i32) -> Option<Process> {
    let opened = Pid::from_raw(id).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    opened.map(Process::Opened)
}

/// Calls `f` with the depth (1 for a child), the id and the process of every living descendant, except for `except` and
/// their descendants. A process comes after its descendants.
pub(super) fn visit(except: &[i32], f: &mut impl FnMut(usize, i32, &Process)) {
    walk(except, &mut |_| {}, f);
}

/// Calls `before` with a process before its children are listed, and `after` once its descendants have been visited.
fn walk(
    except: &[i32],
    before: &mut impl FnMut(&Process),
    after: &mut impl FnMut(usize, i32, &Process),
) {
    for id in children(own()).unwrap_or_default() {
        if !except.contains(&id)
            && let Some(process) = Process::child(id)
        {
            walk_one(id, &process, 1, before, after);
        }
    }
}

fn walk_one(
    id: i32,
    process: &Process,
    depth: usize,
    before: &mut impl FnMut(&Process),
    after: &mut impl FnMut(usize, i32, &Process),
) {
    before(process);
    if depth < DEPTH_MAX {
        for child in children(id).unwrap_or_default() {
            if let Some(found) = open(child)
                && parent_of(child) == Some(id)
                && process.is_alive()
            {
                walk_one(child, &found, depth + 1, before, after);
            }
        }
    }
    if process.is_alive() {
        after(depth, id, process);
    }
}

/// Stops every descendant, parents first, so that none forks during the next walk.
pub(super) fn stop() {
    let stop = &mut |process: &Process| {
        process.signal(Signal::STOP);
    };
    // The second walk finds what was forked during the first one.
    for _ in 0..2 {
        walk(&[], stop, &mut |_, _, _| {});
    }
}

/// Kills every descendant, except for `except` and their descendants. Returns how many it has killed.
pub(super) fn kill(except: &[i32]) -> u32 {
    let mut killed = 0;
    visit(except, &mut |_, _, process| killed += u32::from(process.signal(Signal::KILL)));
    killed
}

/// Reaps children that have ended, except for `except`. Returns whether another process may be left: a child that is
/// alive, or a process that was adopted from a child which ended after the children were listed.
fn reap(except: &[i32]) -> bool {
    let Some(children) = children(own()) else { return true };
    let mut left = false;
    for id in children {
        if !except.contains(&id) {
            left |= waitpid(Pid::from_raw(id), WaitOptions::NOHANG).is_ok();
        }
    }
    left
}

/// Kills and reaps every descendant, except for `except` and their descendants. Returns whether another one may be
/// alive; then the caller repeats this after a pause.
pub(super) fn kill_and_reap(except: &[i32]) -> bool {
    kill(except);
    reap(except)
}

/// The pauses between two calls of [`kill_and_reap`]: each is twice as long as the one before, up to a second, because
/// each call reads `/proc`, and only the kernel delays the end of killed processes.
#[derive(Debug)]
pub(super) struct Pauses(Duration);

impl Pauses {
    pub(super) const fn new() -> Self {
        Self(Duration::from_millis(5))
    }

    /// The length of the next pause.
    pub(super) fn take(&mut self) -> Duration {
        let pause = self.0;
        self.0 = (pause * 2).min(Duration::from_secs(1));
        pause
    }
}

fn own() -> i32 {
    std::process::id().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::process::{Command, Stdio};

    #[test]
    fn processes_that_may_not_be_read_hide_no_child() {
        let mut child =
            Command::new("cat").stdin(Stdio::piped()).spawn().expect("a child that waits");
        let id = child.id().cast_signed();
        let hidden = |errno: Errno| {
            let read = move |other| if other == id { read_stat(id) } else { Err(errno.into()) };
            search_children(own(), read)
        };
        assert_eq!(hidden(Errno::PERM), Some(vec![id]));
        assert_eq!(hidden(Errno::NOENT), Some(vec![id]));
        assert_eq!(hidden(Errno::MFILE), None, "a child may be missed");
        drop(child.stdin.take());
        child.wait().expect("its status");
    }

    #[test]
    fn pauses_grow_up_to_a_second() {
        let mut pauses = Pauses::new();
        let all: Vec<u128> = (0..10).map(|_| pauses.take().as_millis()).collect();
        assert_eq!(all, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000]);
    }
}
