//! Runs jobs on this machine, in tasks of this process.

use super::{BuildJob, DispatchEvent, Dispatcher, EndRequest, Executor, Lost, Progress};
use crate::log::LogWriter;
use crate::model::{BuildId, BuildLogFile};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::{mpsc, watch};
use tracing::Instrument;

/// A build and the number of its attempt.
type Attempt = (BuildId, i64);

/// Runs jobs in this process's own tasks.
#[derive(Debug)]
pub(crate) struct LocalDispatcher<E> {
    executor: Arc<E>,
    events: mpsc::Sender<DispatchEvent>,
    /// Guard: the mutex. One entry per running job.
    running: Arc<Mutex<HashMap<Attempt, watch::Sender<Option<EndRequest>>>>>,
}

impl<E: Executor> LocalDispatcher<E> {
    /// Runs jobs with `executor`, and reports to `events`.
    pub(crate) fn new(executor: E, events: mpsc::Sender<DispatchEvent>) -> Self {
        Self { executor: Arc::new(executor), events, running: Arc::default() }
    }
}

impl<E: Executor> Dispatcher for LocalDispatcher<E> {
    fn offer(&self, job: BuildJob, mut log: LogWriter) {
        let key @ (id, attempt) = (job.id, job.attempt);
        let (cancel, canceled) = watch::channel(None);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).insert(key, cancel);
        let (executor, events, running) =
            (Arc::clone(&self.executor), self.events.clone(), Arc::clone(&self.running));
        let span = tracing::info_span!("build", id = %id, attempt, name = job.definition.name);
        let started_events = self.events.clone();
        let work = async move {
            let started = move || {
                // Only measurements use this event, so it may be lost if the channel is full.
                let progress = Progress::Started(Instant::now());
                let _ = started_events.try_send(DispatchEvent { id, attempt, progress });
            };
            let ended = executor.run(job, &mut log, canceled, started).await;
            Progress::Ended(ended, log.finish().await)
        };
        let work = tokio::spawn(work.instrument(span));
        tokio::spawn(async move {
            // After a panic in an executor the build counts as lost. The server goes on.
            let progress = work.await.unwrap_or_else(|error| {
                let lost = Lost(format!("the executor failed: {error}"));
                Progress::Ended(Err(lost), BuildLogFile::default())
            });
            running.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
            let _ = events.send(DispatchEvent { id, attempt, progress }).await;
        });
    }

    fn cancel(&self, id: BuildId, attempt: i64, why: EndRequest) {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(cancel) = running.get(&(id, attempt)) {
            cancel.send_replace(Some(why));
        }
    }
}
