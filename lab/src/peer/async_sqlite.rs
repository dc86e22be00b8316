//! `async-sqlite`: several threads with a connection each, which take calls in turn. By default there is one thread per
//! core.

use ::async_sqlite::{Pool, PoolBuilder};
use measure::{Job, Outcome};
use rusqlite::{Connection, Result};

use super::statements::{Connections, Over, configure};

#[derive(Clone)]
pub(crate) struct Threads(Pool);

pub(crate) async fn open(job: &Job, connections: Option<usize>) -> Outcome<Over<Threads>> {
    let mut builder = PoolBuilder::new().path(&job.file);
    if let Some(connections) = connections {
        builder = builder.num_conns(connections);
    }
    let pool = builder.open().await.map_err(|error| error.to_string())?;
    let synchronous = job.synchronous;
    for configured in pool.conn_for_each(move |conn| configure(conn, synchronous)).await {
        configured.map_err(|error| error.to_string())?;
    }
    Ok(Over(Threads(pool)))
}

impl Connections for Threads {
    async fn with<T: Send + 'static>(
        &self,
        f: impl FnMut(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Outcome<T> {
        self.0.conn_mut(f).await.map_err(|error| error.to_string())
    }
}
