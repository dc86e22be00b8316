//! When the WAL is folded back into the file, by the writer (`checkpoint.rs`) and beside it (`copier.rs`).

pub(crate) mod checkpoint;
mod copier;
