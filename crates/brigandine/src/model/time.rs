//! Times as the database stores them.

/// Seconds since 1970 in UTC. 0 means "not yet".
pub type Timestamp = i64;

/// How much later than its child processes the server may get a signal that is sent to all of them.
pub const STOP_DELAY: std::time::Duration = std::time::Duration::from_secs(1);

/// The current time of the server's clock. SQL never asks for the time: the time is always a parameter.
pub fn now() -> Timestamp {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}
