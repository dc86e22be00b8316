//! What the writing and the reading end of a log have in common.

use std::io;
use std::path::{Path, PathBuf};

/// What a writer tells its readers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Progress {
    pub(super) bytes: u64,
    pub(super) finished: bool,
}

pub(super) const CHUNK: usize = 64 * 1024;

pub(super) fn compressed(plain: &Path) -> PathBuf {
    let mut path = plain.as_os_str().to_owned();
    path.push(".zst");
    path.into()
}

pub(super) async fn blocking<T: Send + 'static>(
    f: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match tokio::task::spawn_blocking(f).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(error) => Err(io::Error::other(error)),
        },
    }
}
