//! `brigandine log ID`: a build log, from the files of the state directory.

use std::io::Write;
use std::time::Duration;

use super::{Failure, existing, trouble};
use crate::cli;
use crate::log::Logs;
use crate::model::BuildId;
use crate::store;

/// Between two looks at a log that is being written: its writer is another process.
const PAUSE: Duration = Duration::from_millis(150);

/// Prints the log; with `--follow`, until the build has ended.
///
/// # Errors
/// There is no such build or state directory, or the log cannot be read.
pub(crate) fn run(arguments: &cli::Log) -> Result<(), Failure> {
    super::runtime()?.block_on(print(arguments))
}

async fn print(arguments: &cli::Log) -> Result<(), Failure> {
    let state = &arguments.state.state;
    let database = existing(state).await?;
    let id = BuildId::new(arguments.id);
    let logs = Logs::new(state, u64::MAX);
    let failed = |error: std::io::Error| Failure::failed(format!("the build log: {error}"));
    let (mut offset, mut attempt) = (0, 0);
    let mut out = std::io::stdout();
    loop {
        let found = database.read(move |s| store::build(s, id)).await.map_err(trouble)?;
        let build = found.ok_or_else(|| Failure::not_found(format!("there is no build {id}")))?;
        if build.attempt != attempt {
            // Started again: its log begins anew.
            (offset, attempt) = (0, build.attempt);
        }
        // The status was read first: what is in the file afterwards is the whole log of a build
        // that had ended then.
        if let Some(mut reader) = logs.open(&build, offset).await {
            while let Some(bytes) = reader.next().await.map_err(failed)? {
                offset += bytes.len() as u64;
                match out.write_all(&bytes) {
                    // `brigandine log 7 | head`
                    Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
                    other => other.map_err(failed)?,
                }
            }
            let _ = out.flush();
            if reader.is_missing() && !build.log.path.is_empty() {
                return Err(Failure::failed("the build log: its file is not kept any more"));
            }
        }
        if build.status.is_finished() || !arguments.follow {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}
