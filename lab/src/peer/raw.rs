//! The limit: plain threads that own a connection each, no queue, no runtime, nobody to answer.
//!
//! Tiny writes: one thread. Point reads: two threads, one for one task. Mixed, scan and page: a thread for each side.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use measure::{Figures, Job, Latencies, Outcome, Random, Workload, cpu_ms, sql};
use rusqlite::{Connection, Result};

use super::statements::{add_build, bulk, configure, insert, lookup, number, page};

type Call = Box<dyn FnMut(&mut Connection) -> Result<()> + Send>;

pub(crate) fn run(job: &Job) -> Outcome<Figures> {
    match job.workload {
        Workload::TinyWrites => threads(job, vec![("write", writes(0))]),
        Workload::PointReads => {
            threads(job, (0..job.tasks.min(2)).map(|n| ("read", reads(n))).collect())
        }
        Workload::Mixed => threads(job, vec![("write", writes(0)), ("read", reads(0))]),
        Workload::LongScan => threads(
            job,
            vec![("scan", Box::new(|conn| number(conn, sql::SCAN).map(drop))), ("read", reads(0))],
        ),
        Workload::ReadPage => {
            let (mut builds, mut pages) = (Random::of_task(0), Random::of_task(1));
            threads(
                job,
                vec![
                    (
                        "write",
                        Box::new(move |conn| {
                            let n = builds.next();
                            let project = (n % sql::PROJECTS + 1).cast_signed();
                            add_build(conn, project, (n >> 32).cast_signed() % 4)
                        }),
                    ),
                    (
                        "page",
                        Box::new(move |conn| {
                            page(conn, &sql::project(pages.next() % sql::PROJECTS)).map(drop)
                        }),
                    ),
                ],
            )
        }
        Workload::Bulk => all_at_once(job),
        Workload::Stall | Workload::Fairness | Workload::Cancel => {
            Err(format!("a raw loop has no tasks, so `{}` means nothing", job.workload.name()))
        }
    }
}

fn writes(n: usize) -> Call {
    let mut random = Random::of_task(n);
    Box::new(move |conn| insert(conn, &random.key()))
}

fn reads(n: usize) -> Call {
    let mut random = Random::of_task(2000 + n);
    Box::new(move |conn| lookup(conn, &random.known()).map(drop))
}

fn open(job: &Job) -> Outcome<Connection> {
    let conn = Connection::open(&job.file).map_err(|error| error.to_string())?;
    configure(&conn, job.synchronous).map_err(|error| error.to_string())?;
    Ok(conn)
}

struct Done {
    name: &'static str,
    calls: u64,
    stored: u64,
    latencies: Latencies,
    outcome: Outcome<()>,
}

fn threads(job: &Job, calls: Vec<(&'static str, Call)>) -> Outcome<Figures> {
    let time = match job.workload {
        Workload::LongScan => job.seconds.max(1.5),
        _ => job.seconds,
    };
    let warm_up = Duration::from_secs_f64(time / 4.0);
    let mut ready = Vec::new();
    for (name, call) in calls {
        ready.push((name, call, open(job)?));
    }
    let (measured, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (elapsed, cpu, done) = std::thread::scope(|scope| {
        let threads: Vec<_> = ready
            .into_iter()
            .map(|(name, call, conn)| {
                let (measured, over) = (&measured, &over);
                scope.spawn(move || repeat(name, call, conn, measured, over))
            })
            .collect();
        std::thread::sleep(warm_up);
        let (began, cpu) = (Instant::now(), cpu_ms());
        measured.store(true, Ordering::Relaxed);
        std::thread::sleep(Duration::from_secs_f64(time));
        over.store(true, Ordering::Relaxed);
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_ms() - cpu);
        let done: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (elapsed, cpu, done)
    });
    let mut figures = Figures::default();
    let mut all = std::collections::BTreeMap::<_, (u64, Latencies)>::new();
    let mut calls = 0;
    for done in done {
        let done = done.map_err(|_| "a raw thread panicked".to_owned())?;
        done.outcome?;
        let (count, latencies) = all.entry(done.name).or_default();
        *count += done.calls;
        calls += done.calls;
        latencies.merge(&done.latencies);
        if done.name == "write" {
            figures.answered_writes += done.stored;
        }
    }
    for (name, (count, latencies)) in all {
        let summary = latencies.summary();
        figures.value(&format!("{name}s_per_s"), count as f64 / elapsed);
        figures.value(&format!("{name}_p50_ms"), summary.p50);
        figures.value(&format!("{name}_p99_ms"), summary.p99);
        figures.value(&format!("{name}_p999_ms"), summary.p999);
        figures.value(&format!("{name}_max_ms"), summary.max);
        figures.latencies.insert(name.to_owned(), latencies);
    }
    figures.value("cpu_us_per_call", cpu * 1e3 / calls.max(1) as f64);
    Ok(figures)
}

fn repeat(
    name: &'static str,
    mut call: Call,
    mut conn: Connection,
    measured: &AtomicBool,
    over: &AtomicBool,
) -> Done {
    let mut done =
        Done { name, calls: 0, stored: 0, latencies: Latencies::default(), outcome: Ok(()) };
    while !over.load(Ordering::Relaxed) {
        let counts = measured.load(Ordering::Relaxed);
        let began = Instant::now();
        if let Err(error) = call(&mut conn) {
            done.outcome = Err(error.to_string());
            return done;
        }
        done.stored += 1;
        if counts {
            done.calls += 1;
            done.latencies.add(began.elapsed());
        }
    }
    done
}

fn all_at_once(job: &Job) -> Outcome<Figures> {
    let mut conn = open(job)?;
    let (began, cpu) = (Instant::now(), cpu_ms());
    let rows = bulk(&mut conn, sql::PEOPLE, Duration::from_secs(10)).map_err(|e| e.to_string())?;
    let mut figures = Figures { answered_writes: rows, ..Figures::default() };
    figures.value("rows_per_s", rows as f64 / began.elapsed().as_secs_f64());
    figures.value("rows", rows as f64);
    figures.value("cpu_us_per_row", (cpu_ms() - cpu) * 1e3 / rows.max(1) as f64);
    Ok(figures)
}
