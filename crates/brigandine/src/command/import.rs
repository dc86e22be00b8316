//! `brigandine import`: imports the builds of another server.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{Failure, print_json, say};
use crate::cli;
use crate::model;
use crate::store::{self, LeftOut, Step};

/// The least time between two lines of progress, if standard error is a terminal.
const TERMINAL_PAUSE: Duration = Duration::from_millis(200);
/// The least time between two lines of progress, if standard error is a file or a pipe.
const FILE_PAUSE: Duration = Duration::from_secs(10);

/// Imports, and prints what was imported.
///
/// # Errors
/// The database has an unknown schema, or cannot be read or written; the message says how to continue.
pub(crate) fn run(arguments: &cli::Import) -> Result<(), Failure> {
    let cli::Import::Cuirass { state, file, json } = arguments;
    let began = Instant::now();
    let terminal = std::io::stderr().is_terminal();
    let (printed, first) = (Cell::new(None::<Instant>), Cell::new(None));
    let progress = |step: Step| {
        let (line, always) = match &step {
            Step::Builds(done, total) => {
                let from = first.get().unwrap_or(*done);
                first.set(Some(from));
                let seconds = began.elapsed().as_secs_f64();
                let rate = (done - from) as f64 / seconds.max(0.001);
                let percent = done * 100 / (*total).max(1);
                (format!("{done} of {total} builds ({percent} %), {rate:.0} per second"), false)
            }
            Step::Other(what) => {
                (format!("{what}, after {:.0} s", began.elapsed().as_secs_f64()), true)
            }
        };
        let pause = if terminal { TERMINAL_PAUSE } else { FILE_PAUSE };
        if !always && printed.get().is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        printed.set(Some(Instant::now()));
        let mut err = std::io::stderr();
        let _ = if terminal { write!(err, "\r\x1b[K{line}") } else { writeln!(err, "{line}") };
    };
    let done = store::import_cuirass(file, &state.state, model::now(), &progress);
    if terminal {
        let _ = writeln!(std::io::stderr());
    }
    let done = done.map_err(|error| Failure::failed(error.to_string()))?;
    if *json {
        print_json(&done);
        return Ok(());
    }
    say(&format!(
        "{} specifications, {} evaluations, {} builds with {} outputs in {:.1} s",
        done.specifications,
        done.evaluations,
        done.builds,
        done.outputs,
        began.elapsed().as_secs_f64()
    ));
    if done.resumed_at > 0 {
        say(&format!("{} builds were there from an interrupted import", done.resumed_at));
    }
    if done.rescheduled > 0 {
        say(&format!("{} builds that were running wait again", done.rescheduled));
    }
    if done.logs > 0 {
        say(&format!("the logs of {} builds stay files of Cuirass's", done.logs));
    }
    for LeftOut { table, column, rows, what } in &done.left_out {
        let column = column.map(|column| format!(".{column}")).unwrap_or_default();
        say(&format!("not imported: {table}{column} ({what}), {rows} rows"));
    }
    Ok(())
}
