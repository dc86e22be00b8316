//! Which build of the program this is.

/// The version of the package.
pub const PACKAGE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit from which the program was built, with `-dirty` if files were changed; `debug` in a debug build, and
/// `unknown` if the sources are in no repository, as those of a tarball. The build script sets it.
pub const COMMIT: &str = env!("BRIGANDINE_COMMIT");

/// The version and the commit, for people.
pub fn version() -> &'static str {
    const DEBUG: &str = concat!(env!("CARGO_PKG_VERSION"), " (debug build)");
    const UNKNOWN: &str =
        concat!(env!("CARGO_PKG_VERSION"), " (commit unknown, not built from a repository)");
    const FULL: &str =
        concat!(env!("CARGO_PKG_VERSION"), " (commit ", env!("BRIGANDINE_COMMIT"), ")");
    match COMMIT {
        "debug" => DEBUG,
        "unknown" => UNKNOWN,
        _ => FULL,
    }
}
