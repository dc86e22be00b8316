//! Selects the files of a build that are its products.
//!
//! A pattern selects files of the build directory, which are moved to the output, and files that are already in the
//! output. A link stands for the file to which it leads, if that file belongs to the build. For a link in the build
//! directory, the file is copied to the output; for a link in the output, the file is offered under the link's name. A
//! link that leads elsewhere could show any file of the machine, so it is left out, and the build log says so. If a
//! pattern selects only such links, or nothing, the build fails.

use super::tree::{DEPTH_MAX, FILES_MAX, NotKept};
use crate::input::Pattern;
use crate::os::file::of;
use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The products of a build, and notes about links that are left out.
#[derive(Debug, Default)]
pub(super) struct Selected {
    /// The paths in the output, by the names under which the files are offered.
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
    /// Notes for the build log. Bounded by [`NOTES_MAX`].
    pub(super) notes: Vec<String>,
}

/// The most links that the build log names.
const NOTES_MAX: usize = 20;

/// A pattern, and what it has selected so far.
struct Selector<'a> {
    text: &'a str,
    pattern: Pattern,
    matched: bool,
    /// The first link that the pattern would have selected, and why it was refused.
    refused: Option<String>,
}

/// Moves the files that the patterns select into `out`, and returns their names. The caller removes the build directory
/// next.
pub(super) fn select(build: &Path, out: &Path, patterns: &[String]) -> Result<Selected, NotKept> {
    if patterns.is_empty() {
        return Ok(Selected::default());
    }
    let mut selection = Selection::new(patterns)?;
    let roots = [of(build, build.canonicalize())?, of(out, out.canonicalize())?];
    let files = |root| {
        let mut found = Vec::new();
        list(root, Path::new(""), 0, &mut found)?;
        Ok::<_, NotKept>(found)
    };
    let mut built = files(build)?;
    // Links come first, because the files to which they lead may be moved afterwards.
    built.sort_by_key(|(_, link)| !*link);
    for (path, link) in &built {
        if !selection.wants(path) {
            continue;
        }
        let (source, target) = (build.join(path), out.join(path));
        let source = match *link {
            false => source,
            true => match resolve(&source, &roots) {
                Ok(file) => file,
                Err(why) => {
                    selection.refuse(path, &why);
                    continue;
                }
            },
        };
        if target.symlink_metadata().is_err() {
            make_parents(out, path)?;
            let moved = match *link {
                false => fs::rename(&source, &target),
                true => fs::copy(&source, &target).map(drop),
            };
            of(&source, moved)?;
        }
        selection.take(path, path.clone());
    }
    // Other files are in the output already.
    for (path, link) in files(out)? {
        if !selection.wants(&path) {
            continue;
        }
        let file = match link {
            false => Ok(path.clone()),
            true => resolve(&out.join(&path), &roots[1..])
                .map(|file| file.strip_prefix(&roots[1]).unwrap_or(&file).to_owned()),
        };
        match file {
            Ok(file) => selection.take(&path, file),
            Err(why) => selection.refuse(&path, &why),
        }
    }
    selection.finish(&built)
}

/// The patterns, and the files that they have selected so far.
struct Selection<'a> {
    wanted: Vec<Selector<'a>>,
    selected: Selected,
}

impl<'a> Selection<'a> {
    fn new(patterns: &'a [String]) -> Result<Self, NotKept> {
        let wanted = patterns.iter().map(|text| {
            let pattern = Pattern::new(text).map_err(NotKept::Rule)?;
            Ok::<_, NotKept>(Selector { text, pattern, matched: false, refused: None })
        });
        Ok(Self { wanted: wanted.collect::<Result<_, _>>()?, selected: Selected::default() })
    }

    fn wants(&self, path: &Path) -> bool {
        let name = path.as_os_str().as_bytes();
        self.wanted.iter().any(|wanted| wanted.pattern.matches(name))
    }

    fn wanting(&mut self, path: &Path) -> impl Iterator<Item = &mut Selector<'a>> {
        let name = path.as_os_str().as_bytes().to_owned();
        self.wanted.iter_mut().filter(move |wanted| wanted.pattern.matches(&name))
    }

    fn take(&mut self, path: &Path, file: PathBuf) {
        self.wanting(path).for_each(|wanted| wanted.matched = true);
        self.selected.files.insert(path.to_owned(), file);
    }

    fn refuse(&mut self, path: &Path, why: &str) {
        let what = format!("`{}` is a link {why}", path.display());
        for wanted in self.wanting(path) {
            wanted.refused.get_or_insert_with(|| what.clone());
        }
        if self.selected.notes.len() < NOTES_MAX {
            self.selected.notes.push(format!("left out of the products: {what}"));
        }
    }

    /// The selected files; an error if a pattern has matched no file.
    fn finish(self, built: &[(PathBuf, bool)]) -> Result<Selected, NotKept> {
        let Some(Selector { text, refused, .. }) = self.wanted.iter().find(|it| !it.matched) else {
            return Ok(self.selected);
        };
        let above = |path: &Path| Path::new(text).starts_with(path);
        let why = match (refused, built.iter().find(|(path, link)| *link && above(path))) {
            (Some(why), _) => format!(": {why}"),
            (None, Some((path, _))) => {
                let path = path.display();
                format!(": `{path}` is a link, and links to directories are not followed")
            }
            (None, None) => String::new(),
        };
        Err(NotKept::Rule(format!("product pattern `{text}` matches no file{why}")))
    }
}

/// The file to which a link leads, which must lie below one of the roots. An error says what is wrong with the link.
fn resolve(link: &Path, roots: &[PathBuf]) -> Result<PathBuf, String> {
    let said = fs::read_link(link).unwrap_or_default();
    let said = said.display();
    // No process of the build is alive, so nothing changes the path meanwhile.
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

/// Makes the directories above `out/path`, without following links that the build left there.
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

/// The files and links below `root`; `true`: it is a link. Links to directories are not followed.
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
