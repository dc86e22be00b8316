//! The change feed: what calls change, and the subscribers that get the changes.

pub(crate) mod change;
pub(crate) mod feed;
pub(crate) mod interest;
pub(crate) mod recorder;
mod table;
