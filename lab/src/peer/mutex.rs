//! One connection behind a mutex: in `spawn_blocking`, as tokio advises, or directly in the task.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use measure::{Job, Outcome};
use rusqlite::{Connection, Result};

use super::statements::{Connections, Over, configure};

#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<Connection>>);

#[derive(Clone)]
pub(crate) struct Naive(Arc<Mutex<Connection>>);

pub(crate) fn open(job: &Job) -> Outcome<Over<Shared>> {
    Ok(Over(Shared(connection(job)?)))
}

pub(crate) fn open_naive(job: &Job) -> Outcome<Over<Naive>> {
    Ok(Over(Naive(connection(job)?)))
}

fn connection(job: &Job) -> Outcome<Arc<Mutex<Connection>>> {
    let open = || {
        let conn = Connection::open(&job.file)?;
        configure(&conn, job.synchronous)?;
        conn.busy_timeout(Duration::from_secs(30))?;
        Ok(conn)
    };
    open()
        .map(|conn| Arc::new(Mutex::new(conn)))
        .map_err(|error: rusqlite::Error| error.to_string())
}

impl Connections for Shared {
    async fn with<T: Send + 'static>(
        &self,
        mut f: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Outcome<T> {
        let conn = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || {
            f(&mut conn.lock().unwrap_or_else(PoisonError::into_inner))
        })
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())
    }
}

impl Connections for Naive {
    async fn with<T: Send + 'static>(
        &self,
        mut f: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Outcome<T> {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
            .map_err(|error| error.to_string())
    }
}
