//! The transaction of the writer that runs on this thread, for calls made inside writes.

use std::cell::RefCell;
use std::rc::Rc;

use crate::queue::Domain;
use crate::sqlite::transaction::Transaction;

thread_local! {
    static CURRENT: RefCell<Option<(Domain, Rc<Transaction>)>> = const { RefCell::new(None) };
}

/// The transaction of the call that this thread runs as the writer of `domain`.
pub(crate) fn transaction(domain: Domain) -> Option<Rc<Transaction>> {
    CURRENT.with_borrow(|current| {
        current.as_ref().filter(|(of, _)| *of == domain).map(|(_, tx)| Rc::clone(tx))
    })
}

/// From now on the calls of `domain` on this thread run in `tx`.
pub(super) fn set(domain: Domain, tx: &Rc<Transaction>) {
    CURRENT.set(Some((domain, Rc::clone(tx))));
}

/// From now on calls made inside calls find no transaction.
pub(super) fn clear() {
    CURRENT.set(None);
}
