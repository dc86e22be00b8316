//! How often logins may fail, per client and per name.
//!
//! Each client and each name has a number of attempts, which comes back with time. An attempt that succeeds is given
//! back. A name has more attempts than a client, because strangers can use those of a name up; they then keep its owner
//! from logging in for a while, but end no session.
//!
//! - FAIL1: an attempt is taken before the password is compared, so that attempts at the same time count too.
//! - FAIL2: at most [`ENTRIES_MAX`] clients and names are remembered. Those with the most attempts left are forgotten
//!   first.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::http::Client;

/// The most clients that are remembered, and the most names.
const ENTRIES_MAX: usize = 8192;

const OF_A_CLIENT: Rate = Rate { attempts: 10, every: Duration::from_secs(30) };
const OF_A_NAME: Rate = Rate { attempts: 50, every: Duration::from_secs(30) };

/// How many attempts there are at first, and after which time one comes back.
#[derive(Debug, Clone, Copy)]
struct Rate {
    attempts: u32,
    every: Duration,
}

/// The attempts of clients or of names.
#[derive(Debug)]
struct Attempts<K> {
    rate: Rate,
    /// When all attempts of the key have come back; missing: they have.
    full_at: HashMap<K, Instant>,
}

impl<K: Hash + Eq + Clone> Attempts<K> {
    fn new(rate: Rate) -> Self {
        Self { rate, full_at: HashMap::new() }
    }

    /// How long it takes until the key has an attempt; zero: it has one now.
    fn wait(&self, key: &K, now: Instant) -> Duration {
        let Some(full_at) = self.full_at.get(key) else { return Duration::ZERO };
        let last = self.rate.every * (self.rate.attempts - 1);
        full_at.saturating_duration_since(now).saturating_sub(last)
    }

    fn take(&mut self, key: &K, now: Instant) {
        if self.full_at.len() >= ENTRIES_MAX && !self.full_at.contains_key(key) {
            self.forget(now);
        }
        let full_at = self.full_at.entry(key.clone()).or_insert(now);
        *full_at = (*full_at).max(now) + self.rate.every;
    }

    fn give_back(&mut self, key: &K) {
        if let Some(full_at) = self.full_at.get_mut(key)
            && let Some(earlier) = full_at.checked_sub(self.rate.every)
        {
            *full_at = earlier;
        }
    }

    /// Forgets the keys that have all attempts, or the one that has the most (FAIL2).
    fn forget(&mut self, now: Instant) {
        self.full_at.retain(|_, full_at| *full_at > now);
        if self.full_at.len() >= ENTRIES_MAX {
            let first = self.full_at.iter().min_by_key(|(_, full_at)| **full_at);
            if let Some(key) = first.map(|(key, _)| key.clone()) {
                self.full_at.remove(&key);
            }
        }
    }
}

/// All attempts.
#[derive(Debug)]
pub(super) struct Failures(Mutex<Both>);

#[derive(Debug)]
struct Both {
    clients: Attempts<Client>,
    names: Attempts<String>,
}

impl Failures {
    pub(super) fn new() -> Self {
        let (clients, names) = (Attempts::new(OF_A_CLIENT), Attempts::new(OF_A_NAME));
        Self(Mutex::new(Both { clients, names }))
    }

    fn both(&self) -> MutexGuard<'_, Both> {
        // Each change is one insertion, so the poison is ignored.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an attempt of the client and of the name, which must be short (FAIL1).
    ///
    /// # Errors
    /// The time after which there is an attempt again. Nothing was taken.
    pub(super) fn begin(&self, client: Client, name: &str, now: Instant) -> Result<(), Duration> {
        let mut both = self.both();
        let name = name.to_owned();
        let wait = both.clients.wait(&client, now).max(both.names.wait(&name, now));
        if wait > Duration::ZERO {
            return Err(wait);
        }
        both.clients.take(&client, now);
        both.names.take(&name, now);
        Ok(())
    }

    /// Takes an attempt of the client, whatever the name (FAIL1).
    ///
    /// # Errors
    /// The time after which there is an attempt again. Nothing was taken.
    pub(super) fn begin_unnamed(&self, client: Client, now: Instant) -> Result<(), Duration> {
        let mut both = self.both();
        let wait = both.clients.wait(&client, now);
        if wait > Duration::ZERO {
            return Err(wait);
        }
        both.clients.take(&client, now);
        Ok(())
    }

    /// Gives an attempt of the client back, because it has not failed.
    pub(super) fn succeeded_unnamed(&self, client: Client) {
        self.both().clients.give_back(&client);
    }

    /// Gives the attempt back, because it has not failed.
    pub(super) fn succeeded(&self, client: Client, name: &str) {
        let mut both = self.both();
        both.clients.give_back(&client);
        both.names.give_back(&name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(last: u8) -> Client {
        Client::new([192, 0, 2, last].into())
    }

    #[test]
    fn a_client_has_ten_attempts_which_come_back() {
        let (failures, now) = (Failures::new(), Instant::now());
        let begin = |last, name: &str, seconds| {
            failures.begin(client(last), name, now + Duration::from_secs(seconds))
        };
        for attempt in 0..10 {
            assert_eq!(begin(1, &format!("name {attempt}"), 0), Ok(()));
        }
        assert_eq!(begin(1, "another", 0), Err(Duration::from_secs(30)));
        assert_eq!(begin(1, "another", 20), Err(Duration::from_secs(10)));
        assert_eq!(begin(2, "another", 0), Ok(()), "another client");
        assert_eq!(begin(1, "another", 30), Ok(()));
        assert_eq!(begin(1, "another", 30), Err(Duration::from_secs(30)));
        assert_eq!(begin(1, "another", 10_000), Ok(()));
    }

    #[test]
    fn a_name_has_fifty_attempts_whatever_the_client() {
        let (failures, now) = (Failures::new(), Instant::now());
        for attempt in 0..50 {
            assert_eq!(failures.begin(client(attempt), "alice", now), Ok(()));
        }
        assert!(failures.begin(client(60), "alice", now).is_err());
        assert_eq!(failures.begin(client(60), "bob", now), Ok(()));
    }

    #[test]
    fn what_succeeds_costs_nothing() {
        let (failures, now) = (Failures::new(), Instant::now());
        for _ in 0..100 {
            assert_eq!(failures.begin(client(1), "alice", now), Ok(()));
            failures.succeeded(client(1), "alice");
            assert_eq!(failures.begin_unnamed(client(2), now), Ok(()));
            failures.succeeded_unnamed(client(2));
        }
    }

    #[test]
    fn attempts_without_a_name_are_those_of_the_client() {
        let (failures, now) = (Failures::new(), Instant::now());
        for _ in 0..10 {
            assert_eq!(failures.begin_unnamed(client(1), now), Ok(()));
        }
        assert_eq!(failures.begin_unnamed(client(1), now), Err(Duration::from_secs(30)));
        assert_eq!(failures.begin(client(1), "alice", now), Err(Duration::from_secs(30)));
        assert_eq!(failures.begin(client(2), "alice", now), Ok(()));
    }

    #[test]
    fn only_so_many_names_are_remembered() {
        let (failures, now) = (Failures::new(), Instant::now());
        for attempt in 0..ENTRIES_MAX + 500 {
            let address = u32::try_from(attempt).expect("small");
            let client = Client::new(std::net::Ipv4Addr::from_bits(address).into());
            assert_eq!(failures.begin(client, &format!("name {attempt}"), now), Ok(()));
        }
        let both = failures.both();
        assert_eq!(both.clients.full_at.len(), ENTRIES_MAX);
        assert_eq!(both.names.full_at.len(), ENTRIES_MAX);
    }
}
