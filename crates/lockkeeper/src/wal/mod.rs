//! The WAL: when it is folded back into the file, and by whom.

pub(crate) mod checkpoint;
mod copier;
