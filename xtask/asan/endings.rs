//! The library's tests of connections that are held for long, by snapshots and by closures on their callers' stacks, and
//! of how connections end. The step `asan` compiles them here without the hundred crates that the other tests need.

#![expect(
    clippy::disallowed_methods,
    dead_code,
    unused_imports,
    reason = "tests wait for plain channels and threads; what they share is for other tests too"
)]

#[path = "../../crates/lockkeeper/tests/it/borrowed.rs"]
mod borrowed;
#[path = "../../crates/lockkeeper/tests/it/closing.rs"]
mod closing;
#[path = "../../crates/lockkeeper/tests/it/endings.rs"]
mod endings;
#[path = "../../crates/lockkeeper/tests/it/fork.rs"]
mod fork;
#[path = "../../crates/lockkeeper/tests/it/held.rs"]
mod held;
#[path = "../../crates/lockkeeper/tests/it/snapshots.rs"]
mod snapshots;
#[path = "../../crates/lockkeeper/tests/it/support/mod.rs"]
mod support;
