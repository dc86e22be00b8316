//! The bounds of connections and streams: for all clients together, and for each client.

use crate::config::Web;

/// The most bytes of answers that are made and not sent yet, for all clients.
const ANSWERS_BYTES_MAX: usize = 64 << 20;

/// The bounds of the server and of one client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) connections: usize,
    pub(super) connections_per_client: usize,
    /// The most answers that continue, such as followed build logs. Smaller than `connections`, so that pages have
    /// room.
    pub(super) streams: usize,
    pub(super) streams_per_client: usize,
    /// How many requests and streams of one client run at the same time; the client's other requests and streams wait
    /// for a turn.
    pub(super) turns_per_client: usize,
    pub(super) answers_bytes: usize,
}

impl Bounds {
    /// The bounds that `web` sets, as far as the limit of `files` open files allows. Half of the files, at most 256,
    /// are kept for the rest of the server, and every second connection may need a file besides its socket (a product,
    /// a build log).
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
