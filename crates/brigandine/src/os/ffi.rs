//! Calls of the C library that no safe crate offers. The only `unsafe` of the crate.

#![expect(unsafe_code, reason = "entries of the C library; each block says why it is sound")]

use rustix::thread::UnshareFlags;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

/// Returns free memory to the system, on a thread that may block. Callers use this after they have dropped something
/// large.
///
/// By itself the C library returns only memory at the end of its heap (malloc_trim(3)). After an evaluation with a
/// hundred thousand jobs, the freed memory lies below pages that SQLite keeps, so it would stay with the process. Does
/// nothing with a C library that has no such call.
pub async fn give_back() {
    #[cfg(target_env = "gnu")]
    let _ = tokio::task::spawn_blocking(|| {
        // SAFETY: `malloc_trim` takes the allocator's own locks and touches nothing that is allocated; the argument is
        // a number of bytes.
        unsafe { libc::malloc_trim(0) }
    })
    .await;
}

/// Makes the C library use few arenas. Must be called before other threads are started.
///
/// By default the C library makes up to eight arenas for each processor, and a thread takes any free one. Memory that
/// is free in one arena cannot be used by a thread that has another arena: the same work, repeated on several threads,
/// took twice the memory. Does nothing with a C library that has no such call.
pub(crate) fn few_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `mallopt` takes the allocator's own locks and changes one number of its settings.
    let _ = unsafe { libc::mallopt(libc::M_ARENA_MAX, 2) };
}

/// Makes the kernel accept no more data for a connection while `bytes` bytes are unsent (TCP_NOTSENT_LOWAT). Bytes that
/// were sent and not acknowledged are not counted, so a client that reads is not slowed down.
pub(crate) fn bound_unsent(socket: impl AsFd, bytes: u32) -> io::Result<()> {
    let (value, length) = ((&raw const bytes).cast(), size_of::<u32>() as libc::socklen_t);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: `setsockopt` reads the four bytes of `bytes`, which outlives the call, and touches no other memory.
    let done =
        unsafe { libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value, length) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls `told` with each statement that `conn` begins, until the connection is closed. Unlike rusqlite's own function,
/// this one needs no mutable connection, so it works on connections that another library owns.
#[cfg(test)]
pub(crate) fn trace_statements(
    conn: &rusqlite::Connection,
    told: fn(rusqlite::trace::TraceEvent<'_>),
) -> rusqlite::Result<()> {
    use rusqlite::{Connection, trace::TraceEventCodes};
    // SAFETY: the handle is open as long as `conn` is borrowed. `same` neither closes the handle nor outlives the
    // borrow. The hook is a plain function, so it may stay for as long as the connection is open.
    let mut same = unsafe { Connection::from_handle(conn.handle()) }?;
    same.trace_v2(TraceEventCodes::SQLITE_TRACE_STMT, Some(told))
}

/// Marks every open descriptor except the three standard ones, so that it is closed when another program is executed.
///
/// Descriptors that this program opens have the mark already. Descriptors that it inherited (`exec 9<secret; brigandine
/// serve`), or that a library opened without the mark, do not have it.
pub(crate) fn close_on_exec() -> io::Result<()> {
    // SAFETY: the call closes nothing now and changes one flag of each descriptor. No code in this process relies on
    // the flag being unset, because a descriptor for a child is handed over explicitly.
    let done = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Installs handlers that do nothing for the signals that ask a process to end (TERM, INT, HUP, QUIT), in this process
/// and in its forks. Programs that it executes are not affected, because exec(2) resets handlers. The signals are not
/// ignored or blocked, because exec(2) would keep that.
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

/// Resets ignored and blocked signals, so that programs do not inherit them from whatever started this process. A build
/// must end on TERM, and with SIGCHLD ignored the kernel would reap children and discard their status.
///
/// SIGPIPE is left alone: the standard library ignores it, and resets it for the programs that it starts.
pub(crate) fn heed_signals() -> io::Result<()> {
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE) {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: the call changes no handler and writes only to `action`, which has room for one `sigaction`.
        if unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) } != 0 {
            // The C library reserves this signal for itself.
            continue;
        }
        // SAFETY: the call above has written it; before that, it was all zeroes, which is a valid value too.
        if unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN {
            // SAFETY: the kernel carries out the default action, and no handler is removed, because the signal was
            // ignored.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    }
    let mut none = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: both calls access only `none`, which has room for one set.
    let done = unsafe {
        libc::sigemptyset(none.as_mut_ptr());
        libc::sigprocmask(libc::SIG_SETMASK, none.as_ptr(), std::ptr::null_mut())
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Moves this process to new namespaces. A new PID namespace is entered by its next fork, not by the process itself.
pub(crate) fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // The call must not unshare descriptors.
    assert!(!namespaces.contains(UnshareFlags::FILES), "descriptors are shared");
    // SAFETY: the function only requires that the table of descriptors stays shared, which was checked above.
    unsafe { rustix::thread::unshare_unsafe(namespaces) }.map_err(io::Error::from)
}

/// Kills every other process of this PID namespace in one step, during which no process can fork. Does nothing unless
/// this process is the first of its namespace.
pub(crate) fn kill_namespace() {
    if std::process::id() == 1 {
        // SAFETY: a signal to other processes touches no memory of this process.
        unsafe { libc::kill(-1, libc::SIGKILL) };
    }
}

/// A proof that this process has only one thread. A program that starts no thread before it forks makes the proof once.
#[derive(Debug)]
pub(crate) struct SingleThread(std::marker::PhantomData<*const ()>);

/// Which side of a fork this is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Forked {
    /// This process forked; the id is the child's.
    Parent(i32),
    /// This is the new process.
    Child,
}

impl SingleThread {
    /// `None`: there is another thread, or `/proc` cannot be read.
    pub(crate) fn check() -> Option<Self> {
        let threads = std::fs::read_dir("/proc/self/task").ok()?.count();
        (threads == 1).then_some(Self(std::marker::PhantomData))
    }

    /// Forks this process.
    pub(crate) fn fork(&self) -> io::Result<Forked> {
        // SAFETY: no other thread can hold a lock that would stay locked in the copy. There was no other thread when
        // `self` was made, the thread that made `self` starts none, and `self` cannot move to another thread.
        match unsafe { libc::fork() } {
            -1 => Err(io::Error::last_os_error()),
            0 => Ok(Forked::Child),
            id => Ok(Forked::Parent(id)),
        }
    }

    /// Like [`SingleThread::fork`], but the new process starts in the control group whose directory is open as `group`.
    /// The new process may only execute another program, because the C library does not know about the fork.
    pub(crate) fn fork_into(&self, group: &std::fs::File) -> io::Result<Forked> {
        const INTO_CGROUP: u64 = 0x2_0000_0000;
        // SAFETY: the structure consists of numbers, and 0 means that nothing is asked for.
        let mut wanted: libc::clone_args = unsafe { std::mem::zeroed() };
        wanted.flags = INTO_CGROUP;
        wanted.exit_signal = libc::SIGCHLD.cast_unsigned().into();
        wanted.cgroup =
            u64::try_from(group.as_raw_fd()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: without a stack and without shared memory the call is a fork: the new process continues here, on a
        // copy of the memory. As for `fork`, there is no other thread. `wanted` lives until the call returns.
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

/// Makes the tests' program a supervisor if it was started as one, before anything else runs, as the server's program
/// does.
#[cfg(test)]
// SAFETY: the section holds addresses of functions of this type, which the C library calls once before `main`. Rust's
// standard library has set up the program's arguments by then (`.init_array.00099`).
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

/// Makes the kernel refuse a system call, as a kernel that does not know it: for this thread, and for the threads and
/// processes that this thread starts from now on.
#[cfg(test)]
pub(crate) fn refuse_call(number: libc::c_long) -> io::Result<()> {
    let step = |code: u32, k: u32, jf: u8| libc::sock_filter { code: code as u16, jt: 0, jf, k };
    let refusal = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned();
    let mut steps = [
        // The number of the call is the first field of what the filter is given.
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, number as u32, 1),
        step(libc::BPF_RET | libc::BPF_K, refusal, 0),
        step(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let (yes, no, mode): (libc::c_ulong, libc::c_ulong, libc::c_ulong) =
        (1, 0, libc::SECCOMP_MODE_FILTER.into());
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the first call takes numbers only. The second one reads `program` and the steps, which live until it
    // returns. The filter touches no memory of this process.
    let done = unsafe {
        libc::prctl(libc::PR_SET_NO_NEW_PRIVS, yes, no, no, no) == 0
            && libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) == 0
    };
    if done { Ok(()) } else { Err(io::Error::last_os_error()) }
}
