//! Times as the database stores them.

/// Seconds since 1970 in UTC. 0 means "not yet".
pub type Timestamp = i64;

/// The current time of the server's clock. SQL never asks for the time: the time is always a parameter.
pub fn now() -> Timestamp {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}
