//! Calls of the C library that no safe crate offers. The only `unsafe` of the crate.

#![expect(unsafe_code, reason = "entries of the C library; each block says why it is sound")]

use rustix::thread::UnshareFlags;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Returns free memory to the system, on a thread that may block. To be called after something large was dropped.
///
/// The C library returns only memory at the end of its heap by itself (malloc_trim(3)). The hundred thousand jobs of an
/// evaluation leave holes below pages that SQLite keeps, so their memory stayed with the process. Does nothing with a C
/// library that has no such call.
pub async fn give_back() {
    #[cfg(target_env = "gnu")]
    let _ = tokio::task::spawn_blocking(|| {
        // SAFETY: it takes the allocator's own locks and touches nothing that is allocated; the
        // argument is a number of bytes.
        unsafe { libc::malloc_trim(0) }
    })
    .await;
}

/// Has the C library use few arenas. To be called before other threads are started.
///
/// By default it makes up to eight for each processor, and a thread takes any free one. Memory that is free in one
/// arena is of no use to a thread with another one: the same work, repeated on several threads, took twice the memory.
/// Does nothing with a C library that has no such call.
pub(crate) fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes the allocator's own locks and changes one number of its settings.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Has the kernel take no more bytes for a connection while so many are unsent (TCP_NOTSENT_LOWAT). Bytes on the wire
/// do not count, so a client that reads is not slowed down.
pub(crate) fn bound_unsent(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let (value, length) = ((&raw const bytes).cast(), size_of::<u32>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: it reads the four bytes of the number, which outlives the call, and touches no other memory.
    let done =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value, length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls `told` with each statement that `conn` begins, until the connection is closed. For connections that another
/// library owns: rusqlite wants a mutable one.
#[cfg(test)]
pub(crate) fn trace_statements(
    conn: &rusqlite::Connection,
    told: fn(rusqlite::trace::TraceEvent<'_>),
) -> rusqlite::Result<()> {
    use rusqlite::{Connection, trace::TraceEventCodes};
    // SAFETY: the handle is open as long as `conn` is borrowed, and `same` neither closes it nor outlives the
    // borrow. The hook is a plain function, so it may stay for as long as the connection is open.
    let mut same = unsafe { Connection::from_handle(conn.handle()) }?;
    same.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(told))
}

/// Marks every open descriptor but the three standard ones to be closed when a program is started.
///
/// Descriptors that this program opens are marked already. Those that it was started with (`exec 9<secret; brigandine
/// serve`), and those that a library forgot, are not.
pub(crate) fn close_on_exec() -> io::Result<()> {
    // SAFETY: it closes nothing now and changes one flag of each descriptor, which no code in this
    // process relies on being unset: a descriptor for a child is handed over explicitly.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the signals that ask a process to end do nothing, in this process and in its forks. The programs that it
/// starts are not affected: exec(2) resets handlers, but keeps ignored and blocked signals.
pub(crate) fn outlive_requests_to_end() -> io::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: the handler touches nothing at all, so it may run at any moment.
        if unsafe { libc::signal(signal, handler as libc::sighandler_t) } == libc::SIG_ERR {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Resets ignored and blocked signals, whatever this process was started with, so that its programs inherit none: a
/// build must end when it is asked, and with SIGCHLD ignored the kernel would reap children without a status.
///
/// SIGPIPE is left alone: the standard library ignores it, and resets it for the programs that it starts.
pub(crate) fn heed_signals() -> io::Result<()> {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE) {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: it writes the action, which is large enough for one, and changes none.
        if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
            // A signal of the C library's own.
            continue;
        }
        // SAFETY: written above; all zeroes are a value of it as well.
        if unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN {
            // SAFETY: the default is the kernel's; no handler is taken away.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: both read or write the set alone, which is large enough for one.
    let done = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves this process, or its next fork, to new namespaces.
pub(crate) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // The call must not unshare descriptors.
    assert!(!namespaces.contains(UnshareFlags::FILES), "descriptors are shared");
    // SAFETY: the table of descriptors stays shared, the only thing that the function asks for.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.map_err(io::Error::from)
}

/// Kills every process of this process's namespace but this one, in one step, during which nothing can fork. Does
/// nothing unless this is the namespace's first process.
pub(crate) fn kill_namespace() {
    if std::process::id() == 1 {
        // SAFETY: a signal to other processes touches no memory of this one.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// A proof that this process has one thread. Made once, by a program that starts none before it forks.
#[derive(Debug)]
pub(crate) struct SingleThread(std::marker::PhantomData<*const ()>);

/// Which side of a fork this is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Forked {
    /// The process that forked, with the id of the other one.
    Parent(i32),
    /// The new one.
    Child,
}

impl SingleThread {
    /// `None`: there is another thread.
    pub(crate) fn check() -> Option<Self> {
        let threads = std::fs::read_dir("/proc/self/task").ok()?.count();
        (threads == 1).then_some(Self(std::marker::PhantomData))
    }

    /// Copies the process.
    pub(crate) fn fork(&self) -> io::Result<Forked> {
        // SAFETY: no other thread can hold a lock that the copy would find locked for ever: there was
        // none when `self` was made, and its maker, which it cannot leave, starts none.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(Forked::Child),
            id => Ok(Forked::Parent(id)),
        }
    }

    /// As [`SingleThread::fork`]; the new process starts in a control group, which is held open. It may only execute
    /// another program: the C library does not know of it.
    pub(crate) fn fork_into(&self, group: &std::fs::File) -> io::Result<Forked> {
        const INTO_CGROUP: u64 = 0x2_0000_0000;
        // SAFETY: a structure of numbers, in which 0 says that nothing is asked for.
        let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
        wanted.flags = INTO_CGROUP;
        wanted.exit_signal = libc::SIGCHLD.cast_unsigned().into();
        wanted.cgroup =
            u64::try_from(group.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: without a stack and without shared memory the call is a fork: the new process goes on from
        // here on a copy. As for `fork`, there is no other thread. `wanted` lives until the call returns.
        let id = unsafe {
            libc::syscall(
                libc::SYS_clone3,
                std::ptr::from_ref(&wanted),
                size_of::<libc::clone_args>(),
            )
        };
        match i32::try_from(id) {
            Ok(0) => Ok(Forked::Child),
            Ok(id) if id > 0 => Ok(Forked::Parent(id)),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

/// The tests' program serves as a supervisor, as the server's does, before anything else runs.
#[cfg(test)]
// SAFETY: the section holds addresses of functions of this type, which the C library calls once before
// `main`. Rust's standard library has set up its arguments by then (`.init_array.00099`).
#[unsafe(link_section = ".init_array")]
#[used]
static SUPERVISE: extern "C" fn() = {
    extern "C" fn supervise() {
        if crate::os::process::is_supervisor() {
            crate::os::process::supervise();
            std::process::exit(0);
        }
    }
    supervise
};
