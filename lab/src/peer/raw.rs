//! The upper limit: plain threads with a connection each, without a queue, without a runtime and without callers that
//! wait.
//!
//! Tiny writes use one thread. Point reads use two threads, or one for one task. Mixed, scan and page use a thread for
//! each of their two sides.

use std::time::Instant;

use measure::{
    Figures, Job, Latencies, Outcome, Phase, Phases, Random, Tally, Workload, cpu_ms, sql,
};
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

fn threads(job: &Job, calls: Vec<(&'static str, Call)>) -> Outcome<Figures> {
    let (warm_up, time) = (job.workload.warm_up(job.seconds), job.workload.measured(job.seconds));
    let mut ready = Vec::new();
    for (name, call) in calls {
        ready.push((name, call, open(job)?));
    }
    let phases = Phases::default();
    let (elapsed, cpu, done) = std::thread::scope(|scope| {
        let threads: Vec<_> = ready
            .into_iter()
            .map(|(name, call, conn)| {
                let phases = &phases;
                scope.spawn(move || (name, repeat(call, conn, phases)))
            })
            .collect();
        std::thread::sleep(warm_up);
        let (began, cpu) = (Instant::now(), cpu_ms());
        phases.begin(Phase::Measured);
        std::thread::sleep(time);
        phases.begin(Phase::Over);
        let (elapsed, cpu) = (began.elapsed().as_secs_f64(), cpu_ms() - cpu);
        let done: Vec<_> = threads.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        (elapsed, cpu, done)
    });
    let mut figures = Figures::default();
    let mut all = std::collections::BTreeMap::<_, (u64, Latencies)>::new();
    let mut calls = 0;
    for done in done {
        let (name, tally) = done.map_err(|_| "a raw thread panicked".to_owned())?;
        if let Some(error) = tally.first_error {
            return Err(error);
        }
        let (count, latencies) = all.entry(name).or_default();
        *count += tally.done;
        calls += tally.done;
        latencies.merge(&tally.latencies);
        if name == "write" {
            figures.written.push(tally.written);
        }
    }
    for (name, (count, latencies)) in all {
        figures.calls(name, count as f64 / elapsed, latencies);
    }
    figures.value("cpu_us_per_call", cpu * 1e3 / calls.max(1) as f64);
    Ok(figures)
}

/// Makes calls until the measurement is over or a call fails.
fn repeat(mut call: Call, mut conn: Connection, phases: &Phases) -> Tally {
    let mut tally = Tally::new(0);
    loop {
        let begun_in = phases.now();
        if begun_in == Phase::Over || tally.errors > 0 {
            return tally;
        }
        let began = Instant::now();
        let outcome = call(&mut conn).map_err(|error| error.to_string());
        tally.note(begun_in, phases.now(), outcome, began.elapsed());
    }
}

fn all_at_once(job: &Job) -> Outcome<Figures> {
    let mut conn = open(job)?;
    let (began, cpu) = (Instant::now(), cpu_ms());
    let rows = bulk(&mut conn, sql::PEOPLE, measure::BULK_MAX).map_err(|e| e.to_string())?;
    let mut figures = Figures { bulk_rows: rows, ..Figures::default() };
    figures.value("rows_per_s", rows as f64 / began.elapsed().as_secs_f64());
    figures.value("rows", rows as f64);
    figures.value("cpu_us_per_row", (cpu_ms() - cpu) * 1e3 / rows.max(1) as f64);
    Ok(figures)
}
