//! The queue without SQLite: a thread that owns a resource which cannot leave the thread.
//!
//! `cargo run -p lockkeeper --no-default-features --example custom_resource`
//!
//! The resource is a tree of `Rc`s, which is not `Send`; an OpenGL context or another embedded store would do as well.
//! Things to note: the resource is built on its thread. Calls of two clients take turns. A panic of a call reaches the
//! caller, and the resource is built again for the next call. Closing drops the resource on its thread.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use lockkeeper::queue::{Client, Verdict, Worker};

/// Words and their meanings. The words share nodes, so the dictionary cannot move to another thread.
#[derive(Default)]
struct Dictionary {
    words: BTreeMap<String, Rc<RefCell<Vec<String>>>>,
}

impl Dictionary {
    fn define(&mut self, word: &str, meaning: &str) {
        self.words.entry(word.to_owned()).or_default().borrow_mut().push(meaning.to_owned());
    }

    /// From now on both words share the meanings of `other`.
    fn same_as(&mut self, word: &str, other: &str) {
        let meanings = Rc::clone(self.words.entry(other.to_owned()).or_default());
        self.words.insert(word.to_owned(), meanings);
    }

    fn meanings(&self, word: &str) -> Vec<String> {
        self.words.get(word).map(|meanings| meanings.borrow().clone()).unwrap_or_default()
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let worker: Worker<Dictionary> = Worker::builder("dictionary")
        .capacity(64)
        // This function decides whether the resource may serve the next call.
        .recycle(|_dictionary, panicked| match panicked {
            true => Verdict::Replace,
            false => Verdict::Reuse,
        })
        .blocking_spawn(|| {
            println!("built on thread {:?}", std::thread::current().name());
            Ok::<_, std::convert::Infallible>(Dictionary::default())
        })?;

    // Two clients, each with its own lane: the 1,000 calls of one do not delay the calls of the other.
    std::thread::scope(|scope| {
        let bulk: Client<Dictionary> = worker.client("bulk");
        scope.spawn(move || {
            for n in 0..1000 {
                bulk.blocking_call(move |d| d.define(&format!("word {n}"), "filler"))
                    .expect("the queue is open");
            }
        });
        let desk = worker.client("desk");
        desk.set_weight(3);
        scope.spawn(move || {
            desk.blocking_call(|d| {
                d.define("lock", "a chamber between two levels of a canal");
                d.same_as("sluice", "lock");
            })
            .expect("the queue is open");
        });
    });
    let meanings = worker.blocking_call(|d| d.meanings("sluice"))?;
    println!("sluice: {meanings:?}");
    assert_eq!(meanings.len(), 1);

    // A panic reaches the caller of the call. The worker goes on with a new resource.
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        worker.blocking_call(|d| assert!(d.words.is_empty(), "this dictionary is not empty"))
    }));
    println!("the caller met its panic: {}", panicked.is_err());
    assert!(panicked.is_err());
    assert!(worker.blocking_call(|d| d.meanings("sluice"))?.is_empty(), "built anew");

    println!("closed: {:?}", worker.blocking_close()?);
    Ok(())
}
