//! Which files of a build are its products.
//!
//! A pattern selects files of the build directory, which are moved to the output, and files that are in the output
//! already. A link counts as the file that it leads to, if that is one of the build's own: a link of the build
//! directory becomes a copy of the file, a link of the output is offered as the file. A link that leads anywhere else
//! could show any file of the machine, so it is left out and the build log says so; where a pattern selects
//! nothing else, the build fails.

use super::tree::{DEPTH_MAX, FILES_MAX, NotKept};
use crate::input::Pattern;
use crate::os::file::of;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Products, and what there is to say about links that are none.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// The file in the output by the name that it is offered under.
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
    /// For the build log. Bounded by [`NOTES_MAX`].
    pub(super) notes: Vec<String>,
}

/// Links that the build log names.
const NOTES_MAX: usize = 20;

/// A pattern, and what it has selected so far.
struct Wanted<'a> {
    text: &'a str,
    pattern: Pattern,
    matched: bool,
    /// The first link that it would have selected, and why that is none.
    refused: Option<String>,
}

/// Brings the files that the patterns select into `out`, and names them. The build directory is about to go, so
/// files are moved.
pub(super) fn select(build: &Path, out: &Path, patterns: &[String]) -> Result<Selected, NotKept> {
    let mut selected = Selected::default();
    if patterns.is_empty() {
        return Ok(selected);
    }
    let mut wanted = Vec::with_capacity(patterns.len());
    for text in patterns {
        let pattern = Pattern::new(text).map_err(NotKept::Rule)?;
        wanted.push(Wanted { text, pattern, matched: false, refused: None });
    }
    let roots = [of(build, build.canonicalize())?, of(out, out.canonicalize())?];
    let files = |root| {
        let mut found = Vec::new();
        list(root, Path::new(""), 0, &mut found)?;
        Ok::<_, NotKept>(found)
    };
    let built = files(build)?;
    // Links first: what they lead to may be moved afterwards.
    for (path, _) in built.iter().filter(|(_, link)| *link) {
        if !chosen(&wanted, path) {
            continue;
        }
        let target = out.join(path);
        match resolve(&build.join(path), &roots) {
            Ok(file) => {
                if target.symlink_metadata().is_err() {
                    make_parents(out, path)?;
                    of(&file, fs::copy(&file, &target))?;
                }
                take(&mut wanted, &mut selected, path, path.clone());
            }
            Err(why) => refuse(&mut wanted, &mut selected, path, &why),
        }
    }
    for (path, _) in built.iter().filter(|(_, link)| !*link) {
        if !chosen(&wanted, path) {
            continue;
        }
        let target = out.join(path);
        if target.symlink_metadata().is_err() {
            make_parents(out, path)?;
            of(&build.join(path), fs::rename(build.join(path), &target))?;
        }
        take(&mut wanted, &mut selected, path, path.clone());
    }
    // Or it lies at its place already.
    for (path, link) in files(out)? {
        if !chosen(&wanted, &path) {
            continue;
        }
        let file = match link {
            false => Ok(path.clone()),
            true => resolve(&out.join(&path), &roots[1..])
                .map(|file| file.strip_prefix(&roots[1]).unwrap_or(&file).to_owned()),
        };
        match file {
            Ok(file) => take(&mut wanted, &mut selected, &path, file),
            Err(why) => refuse(&mut wanted, &mut selected, &path, &why),
        }
    }
    match wanted.iter().find(|wanted| !wanted.matched) {
        None => Ok(selected),
        Some(Wanted { text, refused: Some(why), .. }) => {
            Err(NotKept::Rule(format!("product pattern `{text}` matches no file: {why}")))
        }
        Some(Wanted { text, .. }) => {
            let above = |path: &Path| Path::new(text).starts_with(path);
            let why = match built.iter().find(|(path, link)| *link && above(path)) {
                Some((path, _)) => {
                    let path = path.display();
                    format!(": `{path}` is a link, and links to directories are not followed")
                }
                None => String::new(),
            };
            Err(NotKept::Rule(format!("product pattern `{text}` matches no file{why}")))
        }
    }
}

fn chosen(wanted: &[Wanted<'_>], path: &Path) -> bool {
    let name = path.as_os_str().as_bytes();
    wanted.iter().any(|wanted| wanted.pattern.matches(name))
}

fn take(wanted: &mut [Wanted<'_>], selected: &mut Selected, path: &Path, file: PathBuf) {
    let name = path.as_os_str().as_bytes();
    for wanted in wanted.iter_mut().filter(|wanted| wanted.pattern.matches(name)) {
        wanted.matched = true;
    }
    selected.files.insert(path.to_owned(), file);
}

fn refuse(wanted: &mut [Wanted<'_>], selected: &mut Selected, path: &Path, why: &str) {
    let what = format!("`{}` is a link {why}", path.display());
    let name = path.as_os_str().as_bytes();
    for wanted in wanted.iter_mut().filter(|wanted| wanted.pattern.matches(name)) {
        wanted.refused.get_or_insert_with(|| what.clone());
    }
    if selected.notes.len() < NOTES_MAX {
        selected.notes.push(format!("left out of the products: {what}"));
    }
}

/// The file that a link leads to, which lies below one of the roots; or what is wrong with the link.
fn resolve(link: &Path, roots: &[PathBuf]) -> Result<PathBuf, String> {
    let said = fs::read_link(link).unwrap_or_default();
    let said = said.display();
    // Nothing of the build runs any more that could change the way while it is gone.
    let file = link.canonicalize().map_err(|error| match error.kind() {
        ErrorKind::NotFound => format!("to `{said}`, which is not there"),
        _ => format!("to `{said}`: {error}"),
    })?;
    if !roots.iter().any(|root| file.starts_with(root)) {
        return Err(format!(
            "to `{said}`, which is outside of what is kept; copy the file instead"
        ));
    }
    let metadata = file.symlink_metadata().map_err(|error| format!("to `{said}`: {error}"))?;
    if metadata.is_dir() {
        return Err(format!("to the directory `{said}`; name the files in it"));
    }
    if !metadata.is_file() {
        return Err(format!("to `{said}`, which is no file"));
    }
    Ok(file)
}

/// Makes the directories above `out/path`, following no link that the build left there.
fn make_parents(out: &Path, path: &Path) -> Result<(), NotKept> {
    let mut directory = out.to_owned();
    for part in path.parent().into_iter().flat_map(Path::components) {
        directory.push(part);
        match fs::create_dir(&directory) {
            Ok(()) => {}
            Err(_) if directory.symlink_metadata().is_ok_and(|found| found.is_dir()) => {}
            Err(error) => {
                let message =
                    format!("product `{}` has no place in its output: {error}", path.display());
                return Err(NotKept::Rule(message));
            }
        }
    }
    Ok(())
}

/// Files and links below `root`, and which of them are links. Links to directories are not followed.
fn list(
    root: &Path,
    below: &Path,
    depth: usize,
    found: &mut Vec<(PathBuf, bool)>,
) -> Result<(), NotKept> {
    let directory = root.join(below);
    for entry in of(&directory, fs::read_dir(&directory))? {
        let entry = of(&directory, entry)?;
        let kind = of(&entry.path(), entry.file_type())?;
        let path = below.join(entry.file_name());
        if kind.is_dir() && depth < DEPTH_MAX {
            list(root, &path, depth + 1, found)?;
        } else if kind.is_file() || kind.is_symlink() {
            found.push((path, kind.is_symlink()));
        }
        if found.len() > FILES_MAX {
            return Err(NotKept::Rule(format!("more than {FILES_MAX} files")));
        }
    }
    Ok(())
}
