//! A build's own directory.

use crate::build::dispatch::BuildJob;
use crate::input::ExportedTree;
use crate::model;
use crate::os::file::of;
use crate::os::folder::remove_all;
use crate::os::process::Limits;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A build's own directory, removed when dropped.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) root: PathBuf,
    /// What the build may take. A reload of the configuration changes it for builds that begin later.
    pub(super) limits: Limits,
}

impl Directory {
    /// The path of one of the directory's folders, or of its `script`. A script is in a file because it may be too long
    /// for an argument.
    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// Makes the directory and fills it. Blocks.
    pub(super) fn prepare(
        self,
        job: &BuildJob,
        trees: &[Arc<ExportedTree>],
        needs: &[PathBuf],
    ) -> io::Result<Self> {
        of(&self.root, remove_all(&self.root))?;
        of(&self.root, std::fs::create_dir(&self.root))?;
        for directory in ["build", "out", "tmp"].map(|name| self.at(name)) {
            of(&directory, std::fs::create_dir(&directory))?;
        }
        if let Some(script) = model::script(&job.definition.command) {
            std::fs::write(self.at("script"), script)?;
        }
        for (source, tree) in job.definition.sources.iter().zip(trees) {
            let target = match source.main {
                true => self.at("build"),
                false => self.at("inputs").join(&source.input),
            };
            of(&target, std::fs::create_dir_all(&target))?;
            of(&target, tree.copy(&source.patterns, &target))?;
        }
        let links = self.at("needs");
        if !needs.is_empty() {
            of(&links, std::fs::create_dir(&links))?;
        }
        for ((alias, _), path) in job.needs.iter().zip(needs) {
            let link = links.join(alias);
            of(&link, std::os::unix::fs::symlink(path, &link))?;
        }
        Ok(self)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = remove_all(&self.root) {
            tracing::warn!(%error, path = %self.root.display(), "cannot remove a build directory");
        }
    }
}
