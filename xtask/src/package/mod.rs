//! `cargo xtask package`: the server as a Debian package and as a tarball, in `target/package`.
//!
//! `tree.rs` lays the files out as they are installed, and `debian.rs` makes the package of them. Both need only programs
//! that every Debian has. `docs/design/package.md` says why this is not left to cargo-deb.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::command::{Failed, Line, cargo, output};
use crate::install::programs;
use crate::root;

mod debian;
#[cfg(test)]
mod tests;
mod tree;

/// What was made.
pub(crate) struct Made {
    pub(crate) package: PathBuf,
    pub(crate) tarball: PathBuf,
}

/// Compiles the server, and makes the package and the tarball of it.
pub(crate) fn package() -> Result<(), Failed> {
    cargo(&["build", "--release", "--package", "brigandine", "--features", "oidc"]).run()?;
    let program = root().join("target/release/brigandine");
    let made = make(&root().join("target/package"), &program)?;
    println!("xtask: {}\nxtask: {}", made.package.display(), made.tarball.display());
    Ok(())
}

/// Packs the compiled server `program` into `place`, which is emptied before.
pub(crate) fn make(place: &Path, program: &Path) -> Result<Made, Failed> {
    install()?;
    let release = Release::find()?;
    let failed = |error| Failed(format!("{}: {error}", place.display()));
    if place.exists() {
        fs::remove_dir_all(place).map_err(failed)?;
    }
    let name = format!("brigandine-{}-{}", release.version, std::env::consts::ARCH);
    let tree = place.join(&name);
    fs::create_dir_all(&tree).map_err(failed)?;
    tree::lay_out(&tree, program)?;
    let tarball = place.join(format!("{name}.tar.gz"));
    pack(&tree, &tarball, &release)?;
    let package = debian::pack(&tree, program, place, &release)?;
    Ok(Made { package, tarball })
}

/// Which state of the sources is packed.
struct Release {
    version: String,
    /// Seconds since 1970: every file in the package has this time, so that the same sources give the same package.
    time: String,
}

impl Release {
    /// The workspace's version if its tag names this commit; otherwise with the commit's time and name, so that a package
    /// of a later commit replaces one of an earlier commit.
    fn find() -> Result<Self, Failed> {
        const VERSION: &str = env!("CARGO_PKG_VERSION");
        let git = |words: &[&str]| {
            let line = Line::new("git", words).with("TZ", "UTC");
            output(line.command().current_dir(root())).map(|text| text.trim().to_owned())
        };
        // Sources out of a tarball are those of a release.
        let Ok(time) = git(&["log", "-1", "--format=%ct"]) else {
            return Ok(Self { version: VERSION.to_owned(), time: "0".to_owned() });
        };
        let tags = git(&["tag", "--points-at", "HEAD"])?;
        let commit = ["log", "-1", "--format=%cd.%h", "--date=format-local:%Y%m%d%H%M%S"];
        let version = match tags.lines().any(|tag| tag == format!("v{VERSION}")) {
            true => VERSION.to_owned(),
            false => format!("{VERSION}+git{}", git(&commit)?),
        };
        Ok(Self { version, time })
    }
}

/// Installs what packing needs, if the machine allows it.
fn install() -> Result<(), Failed> {
    const PROGRAMS: [(&str, &str); 4] =
        [("dpkg-deb", "dpkg"), ("objdump", "binutils"), ("tar", "tar"), ("gzip", "gzip")];
    programs(&PROGRAMS)
}

fn pack(tree: &Path, tarball: &Path, release: &Release) -> Result<(), Failed> {
    let (Some(place), Some(name)) = (tree.parent(), tree.file_name()) else {
        return Err(Failed(format!("{} is no folder to pack", tree.display())));
    };
    let (place, name) = (place.display().to_string(), name.to_string_lossy().into_owned());
    let file = tarball.display().to_string();
    let mut words = vec!["--create", "--gzip", "--file", &file, "--directory", &place];
    let time = format!("--mtime=@{}", release.time);
    words.extend(["--sort=name", "--owner=0", "--group=0", "--numeric-owner", &time, &name]);
    Line::new("tar", &words).run()
}

/// What the program `program` prints.
fn printed(program: &Path, words: &[&str]) -> Result<String, Failed> {
    output(Command::new(program).args(words))
}
