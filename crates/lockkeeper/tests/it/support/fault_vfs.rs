//! A VFS over the system's VFS. It can make the n-th write, sync or truncate fail, and it knows what a crash would
//! leave, because it keeps what was written and what of that was synced.
//!
//! A plan applies to the files of one directory, so tests that run in parallel do not affect each other.
#![expect(unsafe_code, reason = "a VFS is a table of C functions; each block says why it is sound")]

use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once};

use rusqlite::ffi;

/// The name to give to [`lockkeeper::Builder::vfs`].
pub(crate) const NAME: &str = "lockkeeper-faults";

/// What goes wrong with the files of one directory, and what is known about these files.
#[derive(Default)]
pub(crate) struct Plan(Mutex<State>);

#[derive(Default)]
struct State {
    /// Whether operations are counted and may fail.
    armed: bool,
    count: u64,
    fault: Option<Fault>,
    /// The operation at which the power fails. What that would leave is stored in `left`.
    cut_at: Option<u64>,
    seed: u64,
    images: BTreeMap<String, Image>,
    left: Option<BTreeMap<String, Vec<u8>>>,
    /// How often each file was opened.
    opens: BTreeMap<String, usize>,
    /// What is done before a file is opened next.
    before: Option<Box<dyn FnOnce() + Send>>,
}

/// Which operation fails, and how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    /// The number of the failing operation, counted from 1 since [`Plan::arm`].
    pub(crate) nth: u64,
    /// Whether all later operations fail too.
    pub(crate) goes_on: bool,
    /// Whether a failing write writes its first half.
    pub(crate) torn: bool,
    pub(crate) code: c_int,
}

/// The content of a file as programs see it, and as it is on the disk.
#[derive(Clone, Default)]
struct Image {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// The changes since the last sync.
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(usize, Vec<u8>),
    Truncate(usize),
}

#[derive(Clone, Copy, Debug)]
enum Operation<'b> {
    Write(usize, &'b [u8]),
    Truncate(usize),
    Sync,
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Write(at, data) => {
                if bytes.len() < at + data.len() {
                    bytes.resize(at + data.len(), 0);
                }
                bytes[*at..at + data.len()].copy_from_slice(data);
            }
            Self::Truncate(size) => bytes.resize(*size, 0),
        }
    }
}

impl Image {
    fn change(&mut self, change: Change) {
        change.apply(&mut self.written);
        self.pending.push(change);
    }

    fn sync(&mut self) {
        self.synced.clone_from(&self.written);
        self.pending.clear();
    }

    /// What a power failure may leave: the synced content, and a random part of the later changes.
    fn after_power_failure(&self, seed: &mut u64) -> Vec<u8> {
        let mut bytes = self.synced.clone();
        for change in &self.pending {
            *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            if *seed >> 63 == 0 {
                change.apply(&mut bytes);
            }
        }
        bytes
    }
}

impl Plan {
    /// Makes the plan for the files in `dir`. The database must use the VFS [`NAME`].
    pub(crate) fn of(dir: &Path) -> Arc<Self> {
        register();
        let plan = Arc::new(Self::default());
        let dir = dir.canonicalize().expect("the directory exists");
        PLANS.lock().expect("not poisoned").insert(dir, Arc::clone(&plan));
        plan
    }

    fn opened(&self, name: &str) {
        *self.0.lock().expect("not poisoned").opens.entry(name.to_owned()).or_default() += 1;
    }

    /// Calls `before` before SQLite opens a file next.
    pub(crate) fn before_next_open(&self, before: impl FnOnce() + Send + 'static) {
        self.0.lock().expect("not poisoned").before = Some(Box::new(before));
    }

    /// How often SQLite has opened the file called `name`.
    pub(crate) fn opens(&self, name: &str) -> usize {
        self.0.lock().expect("not poisoned").opens.get(name).copied().unwrap_or(0)
    }

    /// Begins to count operations, which then fail as `fault` says.
    pub(crate) fn arm(&self, fault: Option<Fault>) {
        let mut state = self.0.lock().expect("not poisoned");
        state.armed = true;
        state.count = 0;
        state.fault = fault;
    }

    /// Ends all failures. Returns the number of operations since [`Plan::arm`].
    pub(crate) fn disarm(&self) -> u64 {
        let mut state = self.0.lock().expect("not poisoned");
        state.armed = false;
        state.count
    }

    /// Stores what a power failure at the `nth` operation from now on would leave.
    pub(crate) fn cut_power_at(&self, nth: u64, seed: u64) {
        let mut state = self.0.lock().expect("not poisoned");
        state.armed = true;
        state.count = 0;
        state.seed = seed;
        state.cut_at = Some(nth);
    }

    /// Whether the power has failed.
    pub(crate) fn is_cut(&self) -> bool {
        self.0.lock().expect("not poisoned").left.is_some()
    }

    /// Writes the files that the power failure has left into `dir`.
    pub(crate) fn restore_after_power_failure(&self, dir: &Path) {
        let state = self.0.lock().expect("not poisoned");
        for (name, bytes) in state.left.as_ref().expect("the power has failed") {
            std::fs::write(dir.join(name), bytes).expect("the image can be written");
        }
    }

    /// Writes the files that a kill at this moment would leave into `dir`: everything that was written.
    pub(crate) fn restore_after_kill(&self, dir: &Path) {
        for (name, image) in &self.0.lock().expect("not poisoned").images {
            std::fs::write(dir.join(name), &image.written).expect("the image can be written");
        }
    }

    fn perform(&self, name: &str, operation: Operation<'_>) -> Result<(), Failing> {
        let mut state = self.0.lock().expect("not poisoned");
        let state = &mut *state;
        let mut failing = None;
        if state.armed {
            state.count += 1;
            if state.cut_at == Some(state.count) {
                let (images, seed) = (&state.images, &mut state.seed);
                let left = images
                    .iter()
                    .map(|(name, image)| (name.clone(), image.after_power_failure(seed)));
                state.left = Some(left.collect());
            }
            failing = state.fault.filter(|fault| {
                state.count == fault.nth || (fault.goes_on && state.count > fault.nth)
            });
        }
        let image = state.images.entry(name.to_owned()).or_default();
        match (operation, failing) {
            (Operation::Write(at, data), None) => image.change(Change::Write(at, data.to_owned())),
            (Operation::Write(at, data), Some(fault)) if fault.torn => {
                image.change(Change::Write(at, data[..data.len() / 2].to_owned()));
            }
            (Operation::Truncate(size), None) => image.change(Change::Truncate(size)),
            (Operation::Sync, None) => image.sync(),
            (_, Some(_)) => {}
        }
        match failing {
            None => Ok(()),
            Some(fault) => {
                let code = match (fault.code, operation) {
                    (ffi::SQLITE_IOERR, Operation::Write(..)) => ffi::SQLITE_IOERR_WRITE,
                    (ffi::SQLITE_IOERR, Operation::Truncate(_)) => ffi::SQLITE_IOERR_TRUNCATE,
                    // The system's VFS reports this code for every failed sync, whatever the cause.
                    (_, Operation::Sync) => ffi::SQLITE_IOERR_FSYNC,
                    (code, _) => code,
                };
                Err(Failing { code, torn: fault.torn })
            }
        }
    }

    fn forget(&self, name: &str) {
        self.0.lock().expect("not poisoned").images.remove(name);
    }
}

struct Failing {
    code: c_int,
    torn: bool,
}

static PLANS: Mutex<BTreeMap<PathBuf, Arc<Plan>>> = Mutex::new(BTreeMap::new());

/// The plan for a file, and the file's name in the plan. `None`: the file has no plan.
fn plan_of(path: *const c_char) -> Option<(Arc<Plan>, String)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: SQLite passes names that end with a NUL and live as long as the call.
    let path = Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(path) }.to_bytes()));
    let dir = path.parent()?.canonicalize().ok()?;
    let plan = PLANS.lock().ok()?.get(&dir).map(Arc::clone)?;
    Some((plan, path.file_name()?.to_string_lossy().into_owned()))
}

// ---------------------------------------------------------------------------------------------
// The C side
// ---------------------------------------------------------------------------------------------

/// An open file. The system's own file follows it in memory.
#[repr(C)]
struct File {
    base: ffi::sqlite3_file,
    plan: *mut (Arc<Plan>, String),
}

/// The system's VFS, which is never unregistered.
fn system() -> *mut ffi::sqlite3_vfs {
    // SAFETY: a null name asks for the default VFS. This VFS is never made the default.
    unsafe { ffi::sqlite3_vfs_find(std::ptr::null()) }
}

/// The system's file inside an open file.
///
/// # Safety
/// `file` was given to [`open`] by SQLite.
unsafe fn real(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: `szOsFile` of this VFS makes room for both parts, and both have the same alignment.
    unsafe { file.cast::<File>().add(1).cast() }
}

/// Calls a method of the system's file inside a file.
macro_rules! pass {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls methods only on files that `open` has opened. The arguments that it passes are valid for
        // the method of the same name.
        unsafe {
            let real = real($file);
            ((*(*real).pMethods).$method.expect("the system's VFS has it"))(real $(, $argument)*)
        }
    }};
}

/// Asks the plan of a file about an operation.
///
/// # Safety
/// `file` was opened by [`open`].
unsafe fn ask(file: *mut ffi::sqlite3_file, operation: Operation<'_>) -> Result<(), Failing> {
    // SAFETY: `plan` is null or was made by `Box::into_raw` in `open`, and is freed by `close`.
    match unsafe { (*file.cast::<File>()).plan.as_ref() } {
        Some((plan, name)) => plan.perform(name, operation),
        None => Ok(()),
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let ours = file.cast::<File>();
    // SAFETY: SQLite passes `szOsFile` bytes to be filled, which hold both parts.
    unsafe {
        (*ours).base.pMethods = std::ptr::null();
        (*ours).plan = std::ptr::null_mut();
        let plan = plan_of(name);
        let before =
            |(plan, _): &(Arc<Plan>, _)| plan.0.lock().expect("not poisoned").before.take();
        if let Some(before) = plan.as_ref().and_then(before) {
            before();
        }
        let system = system();
        let open = (*system).xOpen.expect("the system's VFS can open");
        let code = open(system, name, real(file), flags, out_flags);
        if (*real(file)).pMethods.is_null() {
            return code;
        }
        (*ours).base.pMethods = &raw const METHODS;
        if let Some(plan) = plan {
            plan.0.opened(&plan.1);
            (*ours).plan = Box::into_raw(Box::new(plan));
        }
        code
    }
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let ours = file.cast::<File>();
    // SAFETY: SQLite closes a file once; `plan` came from `Box::into_raw`.
    unsafe {
        if !(*ours).plan.is_null() {
            drop(Box::from_raw((*ours).plan));
            (*ours).plan = std::ptr::null_mut();
        }
    }
    pass!(file, xClose)
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    if let Some((plan, name)) = plan_of(name) {
        plan.forget(&name);
    }
    // SAFETY: the arguments are passed on to the system's function of the same name.
    unsafe {
        let system = system();
        ((*system).xDelete.expect("the system's VFS can delete"))(system, name, sync)
    }
}

unsafe extern "C" fn read(
    file: *mut ffi::sqlite3_file,
    data: *mut c_void,
    size: c_int,
    at: i64,
) -> c_int {
    pass!(file, xRead, data, size, at)
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    size: c_int,
    at: i64,
) -> c_int {
    // SAFETY: SQLite passes `size` readable bytes.
    let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), size as usize) };
    // SAFETY: SQLite writes to open files.
    match unsafe { ask(file, Operation::Write(at as usize, bytes)) } {
        Ok(()) => pass!(file, xWrite, data, size, at),
        Err(Failing { code, torn }) => {
            if torn {
                pass!(file, xWrite, data, size / 2, at);
            }
            code
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: SQLite truncates open files.
    match unsafe { ask(file, Operation::Truncate(size as usize)) } {
        Ok(()) => pass!(file, xTruncate, size),
        Err(failing) => failing.code,
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    // The disk is simulated, and the plan stores its content.
    // SAFETY: SQLite syncs open files.
    match unsafe { ask(file, Operation::Sync) } {
        Ok(()) => ffi::SQLITE_OK,
        Err(failing) => failing.code,
    }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    pass!(file, xFileSize, size)
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    pass!(file, xUnlock, level)
}

unsafe extern "C" fn check_lock(file: *mut ffi::sqlite3_file, locked: *mut c_int) -> c_int {
    pass!(file, xCheckReservedLock, locked)
}

unsafe extern "C" fn control(
    file: *mut ffi::sqlite3_file,
    operation: c_int,
    argument: *mut c_void,
) -> c_int {
    pass!(file, xFileControl, operation, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    pass!(file, xSectorSize)
}

unsafe extern "C" fn characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    pass!(file, xDeviceCharacteristics)
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    page: c_int,
    size: c_int,
    extend: c_int,
    memory: *mut *mut c_void,
) -> c_int {
    pass!(file, xShmMap, page, size, extend, memory)
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    at: c_int,
    locks: c_int,
    flags: c_int,
) -> c_int {
    pass!(file, xShmLock, at, locks, flags)
}

unsafe extern "C" fn shm_barrier(file: *mut ffi::sqlite3_file) {
    pass!(file, xShmBarrier);
}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, remove: c_int) -> c_int {
    pass!(file, xShmUnmap, remove)
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // Version 2 has shared memory, but no memory-mapped reads, which this VFS could not see.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_lock),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// Registers the VFS, once per process.
fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let system = system();
        // SAFETY: the system's VFS is a plain table that SQLite has initialised. The copy lives for ever, as SQLite
        // requires of a registered VFS. The functions that are kept use only the table's own data, and the two that are
        // replaced are those of this module.
        unsafe {
            let mut ours = *system;
            let name = std::ffi::CString::new(NAME).expect("no NUL in it");
            ours.zName = name.into_raw();
            ours.pNext = std::ptr::null_mut();
            ours.szOsFile += size_of::<File>() as c_int;
            ours.xOpen = Some(open);
            ours.xDelete = Some(delete);
            let code = ffi::sqlite3_vfs_register(Box::into_raw(Box::new(ours)), 0);
            assert_eq!(code, ffi::SQLITE_OK, "the VFS is registered");
        }
    });
}
