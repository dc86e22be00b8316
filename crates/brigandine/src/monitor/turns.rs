//! Turns: how many fetches or evaluators run at the same time, without slow ones blocking the others.
//!
//! A few tasks at a time hold a turn. After [`HOLD`] a task gives its turn to the next one and goes on without it. So a
//! silent host, or an evaluator that sleeps, delays the others by a moment and not by its whole time limit. A second
//! semaphore bounds how many tasks run altogether. The callers bound how many of them belong to one specification: it
//! has one look at a time, and a look has a few fetches.
//!
//! Fairness: both semaphores are first in, first out.

use std::time::Duration;
use tokio::sync::Semaphore;

/// How long a task keeps its turn.
const HOLD: Duration = Duration::from_secs(1);

/// Turns for fetches or for evaluations; see the module's header.
#[derive(Debug)]
pub(crate) struct Turns {
    turns: Semaphore,
    all: Semaphore,
}

impl Turns {
    /// At most `turns` tasks hold a turn at the same time, and at most `all` tasks run.
    pub(crate) fn new(turns: usize, all: usize) -> Self {
        Self { turns: Semaphore::new(turns), all: Semaphore::new(all) }
    }

    /// Waits for a turn and runs the work.
    ///
    /// # Cancel safety
    /// If the future is dropped, the work and its turn are dropped.
    pub(super) async fn run<T>(&self, work: impl Future<Output = T>) -> T {
        // The semaphores are never closed, so neither call can fail.
        let _place = self.all.acquire().await;
        let turn = self.turns.acquire().await;
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::time::sleep(HOLD) => {}
        }
        drop(turn);
        work.await
    }
}

#[cfg(test)]
mod tests {
    use super::Turns;
    use std::sync::Arc;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn one_that_sleeps_in_its_turn_does_not_keep_the_next_waiting() {
        let turns = Arc::new(Turns::new(1, 3));
        let asleep = || {
            let turns = Arc::clone(&turns);
            tokio::spawn(async move { turns.run(std::future::pending::<()>()).await })
        };
        let _asleep = [asleep(), asleep()];
        tokio::task::yield_now().await;
        let began = tokio::time::Instant::now();
        turns.run(async {}).await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_goes_on_altogether_is_bounded() {
        let turns = Arc::new(Turns::new(1, 2));
        let (held, asleep) = (Arc::clone(&turns), std::future::pending::<()>());
        let first = tokio::spawn(async move { held.run(asleep).await });
        let (held, asleep) = (Arc::clone(&turns), std::future::pending::<()>());
        let _second = tokio::spawn(async move { held.run(asleep).await });
        tokio::task::yield_now().await;
        let third = tokio::time::timeout(Duration::from_secs(1000), turns.run(async {})).await;
        assert!(third.is_err(), "two are all there may be");
        first.abort();
        let third = tokio::time::timeout(Duration::from_secs(1000), turns.run(async {})).await;
        assert!(third.is_ok(), "one of them ended");
    }
}
