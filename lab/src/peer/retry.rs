//! A pool of ten connections without a busy handler. A call that gets `database is locked` sleeps and is repeated:
//! after 1 ms, doubled each time up to 1 s, twenty times. Many programs contain such code.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use measure::{Job, Outcome};
use rusqlite::{Connection, ErrorCode, Result};
use tokio::sync::Semaphore;

use super::statements::{Connections, Over, configure};

const CONNECTIONS: usize = 10;
const TRIES: u32 = 20;
const NAP_MAX: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct Retry {
    /// One permit for each idle connection.
    permits: Arc<Semaphore>,
    idle: Arc<Mutex<Vec<Connection>>>,
}

pub(crate) fn open(job: &Job) -> Outcome<Over<Retry>> {
    let mut idle = Vec::new();
    for _ in 0..CONNECTIONS {
        let open = || {
            let conn = Connection::open(&job.file)?;
            configure(&conn, job.synchronous)?;
            conn.busy_timeout(Duration::ZERO)?;
            Ok(conn)
        };
        idle.push(open().map_err(|error: rusqlite::Error| error.to_string())?);
    }
    Ok(Over(Retry {
        permits: Arc::new(Semaphore::new(CONNECTIONS)),
        idle: Arc::new(Mutex::new(idle)),
    }))
}

impl Connections for Retry {
    async fn with<T: Send + 'static>(
        &self,
        mut f: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Outcome<T> {
        let mut nap = Duration::from_millis(1);
        for _ in 0..TRIES {
            let permit = Arc::clone(&self.permits)
                .acquire_owned()
                .await
                .map_err(|error| error.to_string())?;
            let idle = Arc::clone(&self.idle);
            let tried = tokio::task::spawn_blocking(move || {
                // The permit is released after the connection was put back, even if the future is dropped.
                let _permit = permit;
                let taken = idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
                let mut conn = taken.ok_or("a permit without a connection")?;
                let outcome = f(&mut conn);
                idle.lock().unwrap_or_else(PoisonError::into_inner).push(conn);
                Ok::<_, &str>((f, outcome))
            })
            .await
            .map_err(|error| error.to_string())??;
            match tried {
                (_, Ok(value)) => return Ok(value),
                (again, Err(error))
                    if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) =>
                {
                    f = again;
                }
                (_, Err(error)) => return Err(error.to_string()),
            }
            tokio::time::sleep(nap).await;
            nap = (nap * 2).min(NAP_MAX);
        }
        Err(format!("database is locked, tried {TRIES} times"))
    }
}
