//! The effect of short reads on others: on the scheduler's other tasks, and on writers. They are compared with the same
//! load of shared reads, on the same kind of tokio runtime.

use std::time::Duration;

use lockkeeper::Synchronous;
use tokio::runtime::{Builder, Runtime};

use crate::harness::{Options, Place, Random, compare, median, open, print_row, runtime};
use crate::ours::{our_mixed, our_reads, read_one, worst_tick};
use crate::raw::{fill, raw_reads};

/// A function that makes a tokio runtime of one kind.
type Flavour = fn() -> Runtime;

/// Both kinds of runtime.
const FLAVOURS: [(&str, Flavour); 2] =
    [("two-threads", runtime), ("current-thread", current_thread)];

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

pub(crate) fn figures(options: &Options) {
    for (flavour, runtime) in FLAVOURS {
        one_task(options, flavour, runtime);
        many_tasks(options, flavour, runtime);
        beside_writers(options, flavour, runtime);
    }
    ticker(options);
}

fn filled() -> Place {
    let place = Place::new();
    fill(&place.file("bench.db"), 1_000_000);
    place
}

fn one_task(options: &Options, flavour: &str, runtime: Flavour) {
    let name = format!("short/1-task/{flavour}");
    if !options.wants(&name) {
        return;
    }
    let place = filled();
    let path = place.file("bench.db");
    let ours = || our_reads(&runtime(), &path, 1, true, options.run());
    compare(options, &name, "reads/s", "one thread", ours, || raw_reads(&path, 1, options.run()));
}

fn many_tasks(options: &Options, flavour: &str, runtime: Flavour) {
    for tasks in [8, 64] {
        let name = format!("short/{tasks}-tasks/{flavour}");
        if !options.wants(&name) {
            continue;
        }
        let place = filled();
        let path = place.file("bench.db");
        let reads = |short| our_reads(&runtime(), &path, tasks, short, options.run());
        compare(options, &name, "reads/s", "shared reads", || reads(true), || reads(false));
    }
}

fn beside_writers(options: &Options, flavour: &str, runtime: Flavour) {
    let name = format!("short/8-writers-64-readers/{flavour}");
    if !options.wants(&name) {
        return;
    }
    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    for _ in 0..options.repeat() {
        let [short, shared] = [true, false].map(|short| {
            let place = filled();
            our_mixed(&runtime(), &place.file("bench.db"), short, options.run())
        });
        writes.push((short.0, shared.0));
        reads.push((short.1, shared.1));
    }
    print_row(&format!("{name}/writes"), "writes/s", "beside shared reads", &writes);
    print_row(&format!("{name}/reads"), "reads/s", "shared reads", &reads);
}

/// How late a ticker of 1 ms is at worst: when idle, and beside a task that makes short reads in a loop.
fn ticker(options: &Options) {
    let name = "short/worst-tick/current-thread";
    if !options.wants(name) {
        return;
    }
    let place = filled();
    let db = open(&place.file("bench.db"), Synchronous::Full);
    let rows: Vec<_> = (0..options.repeat())
        .map(|_| {
            current_thread().block_on(async {
                let idle = worst_tick(Duration::from_secs(1)).await;
                let client = db.clone();
                let looping = tokio::spawn(async move {
                    let mut random = Random::seeded();
                    loop {
                        read_one(&client, &mut random, true).await;
                    }
                });
                // Waits until connections are open and caches are filled.
                tokio::time::sleep(Duration::from_millis(100)).await;
                let beside = worst_tick(options.run()).await;
                looping.abort();
                (idle, beside)
            })
        })
        .collect();
    db.blocking_close().expect("close");
    let (idle, beside) = (median(rows.clone(), |row| row.0), median(rows, |row| row.1));
    println!("{name:<44} {beside:>9.2} ms (idle: {idle:.2} ms)");
}
