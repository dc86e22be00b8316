//! Statements and blobs that calls use and the session owns, so that the session can finalize those that a call leaks.

use std::cell::RefCell;
use std::mem;
use std::ptr::NonNull;

use rusqlite::blob::Blob;
use rusqlite::{CachedStatement, Error, Statement};

/// The statements and blobs that calls use. Before the connection is closed or used exclusively, this is dropped or
/// [`LentOut::take_back`] is called.
#[derive(Debug, Default)]
pub(super) struct LentOut(RefCell<Slots>);

#[derive(Debug, Default)]
struct Slots {
    /// Slots in use: one for each statement and blob that the running call holds or has leaked.
    used: Vec<NonNull<Slot>>,
    /// Empty slots, [`SPARE_SLOTS`] at most.
    spare: Vec<NonNull<Slot>>,
}

type Slot = Option<Kept>;

/// The most spare slots. A point read needs one slot, a loop within a loop two.
const SPARE_SLOTS: usize = 8;

// SAFETY: the slots belong to this list alone; a `Lent`, which points to one, borrows the list and so keeps it on its
// thread. Statements may move between threads with their connection, see `Prepared`.
unsafe impl Send for Slots {}

/// A statement or blob. Its type says `'static`, but the session drops it before the connection.
enum Kept {
    Plain(Statement<'static>),
    Cached(CachedStatement<'static>),
    Blob(Blob<'static>),
}

/// A statement that a call uses and the session owns. `Drop` resets it, and finalizes it or puts it back into the
/// cache; if the call leaks it, the session does so at the end of the call.
pub(crate) struct Lent<'c> {
    home: &'c LentOut,
    slot: NonNull<Slot>,
}

impl<'c> Lent<'c> {
    pub(crate) fn get(&self) -> &Statement<'c> {
        // SAFETY: until `Drop` the slot belongs to this `Lent`. It is in `used`, from which only this `Lent` and
        // `take_back` remove it, and `take_back` is not called while a call uses its statements. A shorter lifetime is
        // always sound for a shared reference.
        match unsafe { self.slot.as_ref() } {
            Some(Kept::Plain(statement)) => statement,
            Some(Kept::Cached(statement)) => statement,
            Some(Kept::Blob(_)) | None => unreachable!("a lent slot holds a statement"),
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut Statement<'c> {
        // SAFETY: as in `get`, and `self` is borrowed exclusively.
        let statement: &mut Statement<'static> = match unsafe { self.slot.as_mut() } {
            Some(Kept::Plain(statement)) => statement,
            Some(Kept::Cached(statement)) => statement,
            Some(Kept::Blob(_)) | None => unreachable!("a lent slot holds a statement"),
        };
        // SAFETY: only the lifetime of the borrow of the connection changes, back to what it was when the statement was
        // prepared. Nothing moves a statement with a shorter lifetime into the slot, because the reference does not
        // leave this crate, which only calls methods of the statement.
        unsafe { mem::transmute::<&mut Statement<'static>, &mut Statement<'c>>(statement) }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Resets the statement, because the call may have leaked its rows: a cached statement that stands on a row
        // would keep its snapshot open.
        drop(self.get_mut().raw_query());
        self.home.give_back(self.slot);
    }
}

/// A blob that a call uses and the session owns. `Drop` closes it; if the call leaks it, the session does so at the end
/// of the call.
pub(crate) struct LentBlob<'c> {
    home: &'c LentOut,
    slot: NonNull<Slot>,
}

impl<'c> LentBlob<'c> {
    pub(crate) fn get(&self) -> &Blob<'c> {
        // SAFETY: as in `Lent::get`.
        match unsafe { self.slot.as_ref() } {
            Some(Kept::Blob(blob)) => blob,
            _ => unreachable!("a lent slot holds a blob"),
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut Blob<'c> {
        // SAFETY: as in `Lent::get_mut`.
        let blob: &mut Blob<'static> = match unsafe { self.slot.as_mut() } {
            Some(Kept::Blob(blob)) => blob,
            _ => unreachable!("a lent slot holds a blob"),
        };
        // SAFETY: as in `Lent::get_mut`.
        unsafe { mem::transmute::<&mut Blob<'static>, &mut Blob<'c>>(blob) }
    }

    pub(crate) fn close(mut self) -> Result<(), Error> {
        // SAFETY: as in `Lent::get_mut`; the drop of `self` takes the empty slot out of the list.
        match unsafe { self.slot.as_mut() }.take() {
            Some(Kept::Blob(blob)) => blob.close(),
            _ => unreachable!("a lent slot holds a blob"),
        }
    }
}

impl Drop for LentBlob<'_> {
    fn drop(&mut self) {
        self.home.give_back(self.slot);
    }
}

impl LentOut {
    /// Lends a statement to a call.
    ///
    /// # Safety
    /// The connection of the statement is neither moved nor used exclusively until [`LentOut::take_back`] was called.
    pub(super) unsafe fn statement<'c>(&'c self, statement: Statement<'c>) -> Lent<'c> {
        // SAFETY: the statement is dropped before its connection is closed: by its `Lent`, which borrows this list, or
        // by `take_back`.
        let statement = unsafe { mem::transmute::<Statement<'_>, Statement<'static>>(statement) };
        Lent { home: self, slot: self.keep(Kept::Plain(statement)) }
    }

    /// Lends a statement that goes back into the cache.
    ///
    /// # Safety
    /// As [`LentOut::statement`].
    pub(super) unsafe fn cached<'c>(&'c self, statement: CachedStatement<'c>) -> Lent<'c> {
        // SAFETY: as in `statement`.
        let statement =
            unsafe { mem::transmute::<CachedStatement<'_>, CachedStatement<'static>>(statement) };
        Lent { home: self, slot: self.keep(Kept::Cached(statement)) }
    }

    /// Lends a blob.
    ///
    /// # Safety
    /// As [`LentOut::statement`].
    pub(super) unsafe fn blob<'c>(&'c self, blob: Blob<'c>) -> LentBlob<'c> {
        // SAFETY: as in `statement`.
        let blob = unsafe { mem::transmute::<Blob<'_>, Blob<'static>>(blob) };
        LentBlob { home: self, slot: self.keep(Kept::Blob(blob)) }
    }

    fn keep(&self, kept: Kept) -> NonNull<Slot> {
        let mut slots = self.0.borrow_mut();
        let slot = slots.spare.pop();
        let slot = slot.unwrap_or_else(|| NonNull::from(Box::leak(Box::new(None))));
        // SAFETY: a slot that is in neither list belongs to the function that took it out, and is valid.
        unsafe { slot.write(Some(kept)) };
        slots.used.push(slot);
        slot
    }

    /// Takes a slot out of the list and drops its content.
    fn give_back(&self, slot: NonNull<Slot>) {
        {
            let used = &mut self.0.borrow_mut().used;
            if let Some(index) = used.iter().rposition(|other| *other == slot) {
                used.swap_remove(index);
            }
        }
        self.empty(slot);
    }

    /// Drops the content of a slot that was taken out of the list, and keeps the slot as a spare one or frees it.
    fn empty(&self, mut slot: NonNull<Slot>) {
        // SAFETY: a slot that is in neither list belongs to the function that took it out. The list is not borrowed
        // here, because ending a statement may run the caller's code, such as the destructor of an SQL function's data.
        drop(unsafe { slot.as_mut() }.take());
        let spare = &mut self.0.borrow_mut().spare;
        match spare.len() < SPARE_SLOTS {
            true => spare.push(slot),
            // SAFETY: it was made by `Box::leak`, and nothing points to it any more.
            false => drop(unsafe { Box::from_raw(slot.as_ptr()) }),
        }
    }

    /// Drops the statements and blobs that calls have leaked. No call may be running.
    pub(super) fn take_back(&self) {
        loop {
            let Some(mut slot) = self.0.borrow_mut().used.pop() else { return };
            // SAFETY: the only `Lent` that may still point to the slot is a leaked one.
            if let Some(Kept::Cached(statement)) = unsafe { slot.as_mut() } {
                // As in `Lent::drop`.
                drop(statement.raw_query());
            }
            self.empty(slot);
        }
    }
}

impl Drop for LentOut {
    fn drop(&mut self) {
        for slot in mem::take(&mut self.0.borrow_mut().spare) {
            // SAFETY: it was made by `Box::leak`, and nothing points to it any more.
            drop(unsafe { Box::from_raw(slot.as_ptr()) });
        }
    }
}
