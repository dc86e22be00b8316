//! How much there is of connections and streams, altogether and for one client.

use crate::config::Web;

/// Bytes of answers that are not sent yet.
const ANSWERS_BYTES_MAX: usize = 64 << 20;

/// How much there is, and how much one client may have of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    pub(super) connections_per_client: usize,
    /// Answers that go on, such as followed logs; fewer than connections, so that some are left for pages.
    pub(super) streams: usize,
    pub(super) streams_per_client: usize,
    /// Requests and streams that are worked on at once for one client; the others of that client take turns.
    pub(super) turns_per_client: usize,
    pub(super) answers_bytes: usize,
}

impl Bounds {
    /// What `web` wants, within a limit of open files. Half of the files, or 256, are left to the rest of the
    /// server, and every other connection may need a file beside its own (a product, a log).
    pub(super) fn new(web: &Web, files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let most = ((files - (files / 2).min(256)) / 3).saturating_mul(2).max(1);
        let connections = web.connections.unwrap_or(1024).min(most);
        let share = web.connections_per_client.unwrap_or((connections / 4).max(8));
        let connections_per_client = share.min(connections);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self {
            connections,
            connections_per_client,
            streams: (connections / 2).max(1),
            streams_per_client: (connections_per_client / 2).max(1),
            turns_per_client: 2 * processors,
            answers_bytes: ANSWERS_BYTES_MAX,
        }
    }
}
