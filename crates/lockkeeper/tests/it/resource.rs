//! The queue with resources other than SQLite: one that cannot leave its thread, and another embedded store.

use std::cell::RefCell;
use std::rc::Rc;

use lockkeeper::queue::{Client, Worker};
use redb::{ReadableDatabase, ReadableTable, TableDefinition};

use crate::support::{Dir, HANG, block_on, count, within};

#[test]
fn a31_a_resource_that_cannot_leave_its_thread() {
    type Tree = Rc<RefCell<Vec<Rc<usize>>>>;
    within(HANG, || {
        let worker: Worker<Tree> = Worker::builder("rc")
            .blocking_spawn(|| Ok::<_, ()>(Tree::default()))
            .expect("a worker");
        std::thread::scope(|scope| {
            for client in ["a", "b", "c"] {
                let client: Client<Tree> = worker.client(client);
                scope.spawn(move || {
                    for n in 0..200 {
                        let len = client.blocking_call(move |tree| {
                            let shared = Rc::clone(tree);
                            shared.borrow_mut().push(Rc::new(n));
                            tree.borrow().len()
                        });
                        assert!(len.expect("a call") > n);
                    }
                });
            }
        });
        let sum = worker.call(|tree| tree.borrow().iter().map(|n| **n).sum::<usize>());
        assert_eq!(block_on(sum).expect("a call"), 3 * (0..200).sum::<usize>());
        worker.blocking_close().expect("closes");
    });
}

const NUMBERS: TableDefinition<'_, u64, u64> = TableDefinition::new("numbers");

/// Group commit over another store: the resource collects rows in several calls and stores them in one commit.
struct Store {
    database: redb::Database,
    /// The `Rc` cannot leave this thread.
    uncommitted: Rc<RefCell<Vec<(u64, u64)>>>,
}

impl Store {
    fn flush(&mut self) -> Result<usize, redb::Error> {
        let rows = std::mem::take(&mut *self.uncommitted.borrow_mut());
        let tx = self.database.begin_write()?;
        {
            let mut table = tx.open_table(NUMBERS)?;
            for (key, value) in &rows {
                table.insert(key, value)?;
            }
        }
        tx.commit()?;
        Ok(rows.len())
    }
}

#[test]
fn a31_a_second_embedded_store() {
    let rows = count(500, 20_000) as u64;
    within(HANG, move || {
        let dir = Dir::new();
        let path = dir.file("numbers.redb");
        let spawn = |path: std::path::PathBuf| {
            Worker::<Store>::builder("redb").blocking_spawn(move || {
                let database = redb::Database::create(&path)?;
                Ok::<_, redb::Error>(Store { database, uncommitted: Rc::default() })
            })
        };
        let worker = spawn(path.clone()).expect("the store opens");
        std::thread::scope(|scope| {
            for part in 0..4 {
                let worker = &worker;
                scope.spawn(move || {
                    for key in (0..rows).filter(|key| key % 4 == part) {
                        let put = move |store: &mut Store| {
                            store.uncommitted.borrow_mut().push((key, key * key));
                        };
                        worker.blocking_call(put).expect("a call");
                    }
                });
            }
        });
        let flushed = worker.blocking_call(Store::flush).expect("a call").expect("a commit");
        assert_eq!(flushed as u64, rows);
        worker.blocking_close().expect("closes");
        // The store can be opened again and holds all rows.
        let worker = spawn(path).expect("the store opens again");
        let sum = worker.blocking_call(|store| {
            let tx = store.database.begin_read()?;
            let table = tx.open_table(NUMBERS)?;
            let mut sum = 0;
            for row in table.iter()? {
                sum += row?.1.value();
            }
            Ok::<_, redb::Error>(sum)
        });
        assert_eq!(sum.expect("a call").expect("a sum"), (0..rows).map(|key| key * key).sum());
        worker.blocking_close().expect("closes");
    });
}
