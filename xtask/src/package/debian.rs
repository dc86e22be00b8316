//! The Debian package: a tree of files, and what dpkg is to know of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use super::tree::{below, failed, put, set_mode};
use super::{Release, printed};
use crate::command::{Failed, Line};
use crate::root;

/// The scripts that dpkg runs while it installs and removes the package.
pub(super) const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Packs `tree`, in which `program` was laid out, into `place`.
pub(super) fn pack(
    tree: &Path,
    program: &Path,
    place: &Path,
    release: &Release,
) -> Result<PathBuf, Failed> {
    let folder = place.join("debian");
    let copied = folder.join("tree");
    fs::create_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
    let (from, to) = (tree.display().to_string(), copied.display().to_string());
    Line::new("cp", &["--archive", &from, &to]).quietly()?;
    let about = copied.join("DEBIAN");
    for name in SCRIPTS.iter().chain(&["conffiles"]) {
        put(&root().join("packaging/debian").join(name), &about.join(name))?;
        let mode = if *name == "conffiles" { 0o644 } else { 0o755 };
        set_mode(&about.join(name), mode).map_err(|error| failed(&about, &error))?;
    }
    let architecture = printed(Path::new("dpkg"), &["--print-architecture"])?.trim().to_owned();
    let listed = printed(Path::new("objdump"), &["-p", &program.display().to_string()])?;
    let control = control(&[
        ("@VERSION@", &release.version),
        ("@ARCHITECTURE@", &architecture),
        ("@SIZE@", &kibibytes(tree)?.to_string()),
        ("@LIBRARIES@", &libraries(&listed)?),
    ])?;
    let written = fs::write(about.join("control"), control)
        .and_then(|()| set_mode(&about, 0o755))
        .and_then(|()| set_mode(&about.join("control"), 0o644));
    written.map_err(|error| failed(&about, &error))?;
    let package = place.join(format!("brigandine_{}_{architecture}.deb", release.version));
    let file = package.display().to_string();
    // A tenth of the time that xz takes, for a package that is a quarter larger; dpkg reads it since Debian 12.
    Line::new("dpkg-deb", &["--build", "--root-owner-group", "-Zzstd", "-z9", &to, &file])
        .with("SOURCE_DATE_EPOCH", &release.time)
        .run()?;
    fs::remove_dir_all(&folder).map_err(|error| failed(&folder, &error))?;
    Ok(package)
}

/// The package's description with its values.
pub(super) fn control(values: &[(&str, &str)]) -> Result<String, Failed> {
    let path = root().join("packaging/debian/control");
    let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
    let filled = values.iter().fold(text, |text, (name, value)| text.replace(name, value));
    let is_name =
        |piece: &&str| !piece.is_empty() && piece.chars().all(|char| char.is_ascii_uppercase());
    match filled.split('@').find(is_name) {
        Some(name) => Err(Failed(format!("{}: nothing fills in @{name}@", path.display()))),
        None => Ok(filled),
    }
}

/// The size of an installed tree as Debian counts it: each file in whole kibibytes, one for all else.
fn kibibytes(tree: &Path) -> Result<u64, Failed> {
    let mut sum = 0;
    for path in below(tree)? {
        let metadata = path.symlink_metadata().map_err(|error| failed(&path, &error))?;
        sum += if metadata.is_file() { metadata.len().div_ceil(1024) } else { 1 };
    }
    Ok(sum)
}

/// The packages with the libraries that the program needs, from what `objdump -p` lists. Of glibc at least the version
/// whose symbols the program uses.
pub(super) fn libraries(listed: &str) -> Result<String, Failed> {
    let mut packages = BTreeSet::new();
    for library in listed.lines().filter_map(|line| line.trim().strip_prefix("NEEDED")) {
        packages.insert(match library.trim() {
            "libgcc_s.so.1" => "libgcc-s1".to_owned(),
            "libz.so.1" => "zlib1g".to_owned(),
            name if ["libc.so.", "libm.so.", "ld-linux"].iter().any(|of| name.starts_with(of)) => {
                format!("libc6 (>= 2.{})", glibc(listed))
            }
            other => {
                return Err(Failed(format!(
                    "the program needs {other}, and xtask/src/package/debian.rs does not know in which package it is"
                )));
            }
        });
    }
    match packages.is_empty() {
        true => Err(Failed("objdump lists no library of the program".to_owned())),
        false => Ok(packages.into_iter().collect::<Vec<_>>().join(", ")),
    }
}

/// N of the highest version `GLIBC_2.N` whose symbols are used.
fn glibc(listed: &str) -> u32 {
    let versions = listed.split("GLIBC_2.").skip(1).filter_map(|rest| {
        let digits = rest.split(|char: char| !char.is_ascii_digit()).next();
        digits.and_then(|digits| digits.parse().ok())
    });
    versions.max().unwrap_or(0)
}
