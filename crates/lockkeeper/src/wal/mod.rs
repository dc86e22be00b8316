//! Checkpoints of the WAL: by the writer (`checkpoint.rs`), and by the copier while the writer goes on (`copier.rs`).

pub(crate) mod checkpoint;
mod copier;
