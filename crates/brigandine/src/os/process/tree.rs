//! Finds the descendants of this process in `/proc`.
//!
//! A child keeps its id until this process reaps it, so it can be signalled safely. The kernel can reuse the ids of
//! other descendants at any time. So each process is opened as a descriptor (pidfd). It is treated as a descendant only
//! if `/proc` names its parent, and the parent's pidfd then shows that the parent is still alive.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

/// How many levels of descendants are visited. Deeper processes move up when their parents end.
const DEPTH_MAX: usize = 200;

/// The ids of a process's children.
///
/// A child that is just starting or ending may be missing, so callers that need all children ask again.
pub(super) fn children(parent: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { return found };
    for task in tasks.flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(list) => {
                found.extend(list.split_whitespace().filter_map(|id| id.parse::<i32>().ok()));
            }
            // The thread still exists, so the kernel has no such lists. In the next case the thread has just ended.
            Err(_) if task.path().exists() => return search_children(parent),
            Err(_) => {}
        }
    }
    found
}

/// Like [`children`], but reads every process of the machine.
fn search_children(parent: i32) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

/// The parent of a process. The process may be dead but not reaped.
fn parent_of(id: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The process's name stands before the parent's id and may contain any text, because the process chooses it.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// Whether a process is alive.
fn is_alive(handle: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(handle, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

fn open(id: i32) -> Option<OwnedFd> {
    Pid::from_raw(id).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
}

/// Calls `f` with the depth (1 for a child), the id and the descriptor of every living descendant, except for `except`
/// and their descendants. A process comes after its descendants.
pub(super) fn visit(except: &[i32], f: &mut impl FnMut(usize, i32, &OwnedFd)) {
    walk(except, &mut |_| {}, f);
}

/// Calls `before` with a process before its children are listed, and `after` once its descendants have been visited.
fn walk(
    except: &[i32],
    before: &mut impl FnMut(&OwnedFd),
    after: &mut impl FnMut(usize, i32, &OwnedFd),
) {
    for id in children(own()) {
        if !except.contains(&id)
            && let Some(handle) = open(id)
        {
            walk_one(id, &handle, 1, before, after);
        }
    }
}

fn walk_one(
    id: i32,
    handle: &OwnedFd,
    depth: usize,
    before: &mut impl FnMut(&OwnedFd),
    after: &mut impl FnMut(usize, i32, &OwnedFd),
) {
    before(handle);
    if depth < DEPTH_MAX {
        for child in children(id) {
            if let Some(found) = open(child)
                && parent_of(child) == Some(id)
                && is_alive(handle)
            {
                walk_one(child, &found, depth + 1, before, after);
            }
        }
    }
    if is_alive(handle) {
        after(depth, id, handle);
    }
}

/// Stops every descendant, parents first, so that none forks during the next walk.
pub(super) fn stop() {
    let stop = &mut |handle: &OwnedFd| {
        let _ = pidfd_send_signal(handle, Signal::STOP);
    };
    // The second walk finds what was forked during the first one.
    for _ in 0..2 {
        walk(&[], stop, &mut |_, _, _| {});
    }
}

/// Kills every descendant, except for `except` and their descendants. Returns how many there were.
pub(super) fn kill(except: &[i32]) -> u32 {
    let mut killed = 0;
    visit(except, &mut |_, _, handle| {
        killed += u32::from(pidfd_send_signal(handle.as_fd(), Signal::KILL).is_ok());
    });
    killed
}

/// Reaps children that have ended, except for `except`. Returns whether any other child is alive.
pub(super) fn reap(except: &[i32]) -> bool {
    let mut left = false;
    for id in children(own()) {
        if !except.contains(&id) {
            left |= matches!(waitpid(Pid::from_raw(id), WaitOptions::NOHANG), Ok(None));
        }
    }
    left
}

fn own() -> i32 {
    std::process::id().cast_signed()
}
