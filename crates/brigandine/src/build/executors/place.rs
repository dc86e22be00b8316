//! The directory that a build has for itself.

use crate::build::dispatch::BuildJob;
use crate::input::ExportedTree;
use crate::model;
use crate::os::file::of;
use crate::os::folder::remove_all;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A build's own directory, removed when dropped.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) root: PathBuf,
}

impl Place {
    pub(super) fn build(&self) -> PathBuf {
        self.root.join("build")
    }

    pub(super) fn out(&self) -> PathBuf {
        self.root.join("out")
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn needs(&self) -> PathBuf {
        self.root.join("needs")
    }

    pub(super) fn inputs(&self) -> PathBuf {
        self.root.join("inputs")
    }

    /// A script that is too long for an argument.
    pub(super) fn script(&self) -> PathBuf {
        self.root.join("script")
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
        for directory in [self.build(), self.out(), self.tmp()] {
            of(&directory, std::fs::create_dir(&directory))?;
        }
        if let Some(script) = model::script(&job.definition.command) {
            std::fs::write(self.script(), script)?;
        }
        for (source, tree) in job.definition.sources.iter().zip(trees) {
            let target = if source.main { self.build() } else { self.inputs().join(&source.input) };
            of(&target, std::fs::create_dir_all(&target))?;
            of(&target, tree.copy(&source.patterns, &target))?;
        }
        if !needs.is_empty() {
            of(&self.needs(), std::fs::create_dir(self.needs()))?;
        }
        for ((alias, _), path) in job.needs.iter().zip(needs) {
            let link = self.needs().join(alias);
            of(&link, std::os::unix::fs::symlink(path, &link))?;
        }
        Ok(self)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Err(error) = remove_all(&self.root) {
            tracing::warn!(%error, path = %self.root.display(), "cannot remove a build directory");
        }
    }
}
