//! What calls change, and who is told of it.

pub(crate) mod change;
pub(crate) mod feed;
pub(crate) mod interest;
pub(crate) mod recorder;
mod table;
