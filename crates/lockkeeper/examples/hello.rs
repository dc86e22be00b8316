//! Opens a database, writes from several threads, reads from one snapshot.

use lockkeeper::Database;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::temp_dir().join(format!("lockkeeper-hello-{}.db", std::process::id()));
    let db = Database::blocking_open(&path)?;
    db.blocking_write(|tx| {
        tx.execute_batch("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT)")
    })?;
    std::thread::scope(|scope| {
        for n in 0..4 {
            let db = &db;
            scope.spawn(move || {
                db.blocking_write(move |tx| {
                    tx.execute("INSERT INTO note (text) VALUES (?1)", [format!("from {n}")])
                })
            });
        }
    });
    let n: i64 = db.blocking_read(|snapshot| {
        snapshot.query_row("SELECT count(*) FROM note", [], |row| row.get(0))
    })?;
    println!("{n} notes in {}", path.display());
    db.blocking_close()?;
    std::fs::remove_file(&path)?;
    Ok(())
}
