//! The processes below this one, as the kernel knows them.
//!
//! A child that this process has not reaped keeps its id, so it can be signalled safely. Further down ids can
//! be given to strangers at any time: a process is held by a descriptor (pidfd), and is taken for a
//! descendant only if its parent is seen to be alive, under the parent's own descriptor, after the child
//! was seen to be its child.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};

/// Further down nothing is signalled: it comes up as those above it end.
const DEPTH_MAX: usize = 200;

/// The ids of a process's children.
///
/// One that is being made or is ending right now may be missing, so whoever must find all asks again.
pub(super) fn children(parent: i32) -> Vec<i32> {
    let mut found = Vec::new();
    let Ok(tasks) = fs::read_dir(format!("/proc/{parent}/task")) else { return found };
    for task in tasks.flatten() {
        match fs::read_to_string(task.path().join("children")) {
            Ok(list) => {
                found.extend(list.split_whitespace().filter_map(|id| id.parse::<i32>().ok()));
            }
            // A kernel without these lists, or a thread that ended a moment ago.
            Err(_) if task.path().exists() => return search_children(parent),
            Err(_) => {}
        }
    }
    found
}

/// As [`children`], by a look at every process of the machine.
fn search_children(parent: i32) -> Vec<i32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let ids = processes.flatten().filter_map(|process| process.file_name().to_str()?.parse().ok());
    ids.filter(|id| parent_of(*id) == Some(parent)).collect()
}

/// The parent of a process, dead ones included until they are reaped.
fn parent_of(id: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name before it is the process's own choice, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().nth(1)?.parse().ok()
}

/// Whether the process has not ended.
fn is_alive(handle: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(handle, PollFlags::IN)];
    matches!(poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })), Ok(0))
}

fn open(id: i32) -> Option<OwnedFd> {
    Pid::from_raw(id).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
}

/// Calls `f` with every living process below this one but `except` and what is below those, and with how
/// far down it is: 1 is a child. Those further down come first.
pub(super) fn visit(except: &[i32], f: &mut impl FnMut(usize, i32, &OwnedFd)) {
    walk(except, &mut |_| {}, f);
}

/// Calls `before` with a process before its children are looked for, and `after` when they are done.
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

/// Stops every process below this one, parents first, so that none forks while it is looked for.
pub(super) fn stop() {
    let stop = &mut |handle: &OwnedFd| {
        let _ = pidfd_send_signal(handle, Signal::STOP);
    };
    // What was forked while the first look was on is found by the second one: its parent is stopped.
    for _ in 0..2 {
        walk(&[], stop, &mut |_, _, _| {});
    }
}

/// Kills every process below this one but `except` and what is below those. How many there were.
pub(super) fn kill(except: &[i32]) -> u32 {
    let mut killed = 0;
    visit(except, &mut |_, _, handle| {
        killed += u32::from(pidfd_send_signal(handle.as_fd(), Signal::KILL).is_ok());
    });
    killed
}

/// Takes the status of children that have ended, but of those in `except`. Whether others are left.
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
