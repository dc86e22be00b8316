//! The transaction of the writer that runs on this thread, for calls made inside writes.

use std::cell::RefCell;
use std::rc::Rc;

use crate::queue::Domain;
use crate::sqlite::transaction::Transaction;

thread_local! {
    static CURRENT: RefCell<Option<(Domain, Rc<Transaction>)>> = const { RefCell::new(None) };
}

/// The transaction of the call that this thread runs as the writer of `domain`; `None`: it runs none.
pub(crate) fn transaction(domain: Domain) -> Option<Rc<Transaction>> {
    CURRENT.with_borrow(|current| {
        current.as_ref().filter(|(of, _)| *of == domain).map(|(_, tx)| Rc::clone(tx))
    })
}

/// Makes `tx` the transaction of the next calls of `domain` on this thread.
pub(super) fn set(domain: Domain, tx: &Rc<Transaction>) {
    CURRENT.set(Some((domain, Rc::clone(tx))));
}

/// Makes sure that calls made inside calls find no transaction from now on.
pub(super) fn clear() {
    CURRENT.set(None);
}
