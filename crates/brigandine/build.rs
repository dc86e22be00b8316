//! Tells the program from which commit it is built.
//!
//! If `BRIGANDINE_COMMIT` is set, that is the commit: whoever packages a tarball sets it. A debug build names no commit,
//! because each commit would compile the crate anew.

mod commit;

use std::path::Path;

fn main() {
    println!("cargo::rerun-if-env-changed=BRIGANDINE_COMMIT");
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=commit.rs");
    let named = std::env::var("BRIGANDINE_COMMIT").ok().filter(|commit| !commit.is_empty());
    let is_debug = std::env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    let commit = match named {
        Some(commit) => commit,
        None if is_debug => "debug".to_owned(),
        None => {
            // The package's folder is the present one.
            let here = Path::new(".");
            let sources = ["src", "../lockkeeper/src", "../../Cargo.lock"].map(Into::into);
            for path in commit::watched(here).into_iter().chain(sources) {
                println!("cargo::rerun-if-changed={}", path.display());
            }
            commit::commit(here).unwrap_or_else(|| "unknown".to_owned())
        }
    };
    println!("cargo::rustc-env=BRIGANDINE_COMMIT={commit}");
}
