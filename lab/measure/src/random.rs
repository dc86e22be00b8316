//! Random keys.

/// An xorshift64 generator, which is good enough for keys.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The generator of a task. Each task has other numbers, which are the same in every run.
    #[must_use]
    pub fn of_task(task: usize) -> Self {
        let mut random = Self((task as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        // The first numbers of similar seeds are similar, so a few numbers are skipped.
        for _ in 0..8 {
            random.next();
        }
        random
    }

    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "no iterator: it has no end")]
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The key of a new row. It begins with `new-`, so it is never the key of a row in a filled database.
    pub fn key(&mut self) -> String {
        format!("new-{:016x}", self.next())
    }

    /// The key of a row in a filled database.
    pub fn known(&mut self) -> String {
        person(self.next() % crate::sql::PEOPLE)
    }
}

/// The name of row `n` in a filled database.
#[must_use]
pub fn person(n: u64) -> String {
    format!("{n:016x}")
}
