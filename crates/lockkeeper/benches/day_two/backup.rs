//! A backup beside steady writes, compared with a backup of an idle database.

use lockkeeper::Synchronous;

use crate::Promises;
use crate::harness::{Options, Place, open, print_row, write_while};

const WRITERS: usize = 64;

pub(crate) fn backup(options: &Options, mib: usize, promises: &mut Promises) {
    let place = Place::new();
    let db = open(&place.file("bench.db"), Synchronous::Full);
    db.blocking_write(|tx| tx.execute_batch("CREATE TABLE bulk (data BLOB)")).expect("a table");
    for _ in 0..mib {
        db.blocking_write(|tx| {
            let rows = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 256)
                        INSERT INTO bulk SELECT randomblob(4000) FROM n";
            tx.execute(rows, [])
        })
        .expect("rows");
    }
    let copy = place.file("copy.db");
    let run = || db.backup(&copy).blocking_run().expect("a backup").elapsed.as_secs_f64() * 1e3;
    let (mut pairs, mut rates, mut largest_wal) = (Vec::new(), Vec::new(), 0);
    // Each backup takes long and copies the whole file, so three are enough.
    for _ in 0..options.repeat().min(3) {
        let idle = run();
        let (rate, busy) = write_while(&db, WRITERS, || {
            let busy = run();
            largest_wal = largest_wal.max(db.stats().wal_bytes);
            busy
        });
        pairs.push((busy, idle));
        rates.push(rate);
    }
    db.blocking_close().expect("close");
    let name = format!("backup/{mib}-MiB-beside-{WRITERS}-writers");
    let ratio = print_row(&name, "ms", "nobody writes", &pairs);
    println!(
        "{:<44} {:>12.0} writes/s meanwhile, the WAL {} MiB after it",
        "",
        rates.iter().sum::<f64>() / rates.len() as f64,
        largest_wal >> 20
    );
    promises.check("a backup beside steady writes ends within 3 times its idle time", ratio <= 3.0);
}
