//! The step `api`: schemathesis makes requests from the document of the API, and checks every answer against it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::command::{Failed, Line, cargo, output, succeeds};
use crate::install::packages;
use crate::root;

/// schemathesis and all that it uses, with their versions. Others may make other requests.
const REQUIREMENTS: &str = "xtask/schemathesis.txt";

/// The tests that start a server and run the program against it.
const TESTS: &str = "weather::described::";

/// The seed of the default form, so that a failure is one of the change that is tested.
const SEED: u64 = 18;

/// Installs schemathesis below `target/` if it is not there, and runs the tests with it. `long`: with many examples, and
/// others each time. The line that is printed has the seed.
pub(crate) fn test(long: bool) -> Result<Vec<String>, Failed> {
    let tool = installed(&root().join("target/schemathesis"))?;
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let seed = if long { clock() } else { SEED };
    // For the whole workspace, as the step `tests` builds it: for one package, cargo would choose other features of
    // shared dependencies, and compile these again.
    let test = cargo(&["test", "--workspace", "--test", "it", "--", "--ignored", TESTS])
        .with("BRIGANDINE_SCHEMATHESIS", &tool.display().to_string())
        .with("BRIGANDINE_SCHEMATHESIS_SEED", &seed.to_string());
    if long { test.with("LOCKKEEPER_LONG", "1").run_tests() } else { test.run_tests() }
}

/// The program in the virtual environment `folder`, which is made anew unless it has all requirements, for this Python.
fn installed(folder: &Path) -> Result<PathBuf, Failed> {
    if !succeeds("python3", &["-c", "import ensurepip, venv"]) {
        // Debian has these modules in a package of their own, which brings Python too.
        packages(&["python3-venv"])?;
    }
    let failed = |error: std::io::Error| Failed(format!("{REQUIREMENTS}: {error}"));
    let requirements = root().join(REQUIREMENTS);
    let python = output(Command::new("python3").arg("--version"))?;
    let wanted = python + &std::fs::read_to_string(&requirements).map_err(failed)?;
    let tool = folder.join("bin/schemathesis");
    // Written when everything is installed.
    let mark = folder.join("installed");
    if std::fs::read_to_string(&mark).is_ok_and(|found| found == wanted) {
        return Ok(tool);
    }
    Line::new("python3", &["-m", "venv", "--clear", &folder.display().to_string()]).run()?;
    let pip = folder.join("bin/pip").display().to_string();
    let requirements = requirements.display().to_string();
    let words = ["install", "--quiet", "--disable-pip-version-check", "-r", &requirements];
    Line::new(&pip, &words).run()?;
    std::fs::write(&mark, wanted).map_err(failed)?;
    Ok(tool)
}
