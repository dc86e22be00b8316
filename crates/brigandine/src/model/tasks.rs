//! The tasks of a running server.

/// Which tasks of the server run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tasks {
    /// The names of those that run.
    pub running: Vec<String>,
    /// Why the server does not do its work, in sentences for people; empty: all required tasks run.
    pub faults: Vec<String>,
    /// The server ends: nothing is looked at, evaluated or started any more. One of `faults` says so.
    pub ending: bool,
    /// The names of tasks that have the name of a specification which is or was private.
    pub private: Vec<String>,
}

impl Tasks {
    /// As those may know the tasks who may not see every specification.
    #[must_use]
    pub fn public(mut self) -> Self {
        let private = std::mem::take(&mut self.private);
        self.running.retain(|name| !private.contains(name));
        for fault in &mut self.faults {
            if private.iter().any(|name| fault.contains(name)) {
                "A required task exited.".clone_into(fault);
            }
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_of_private_specifications_are_not_named() {
        let tasks = |running: &[&str], faults: &[&str], private: &[&str]| Tasks {
            running: running.iter().map(|&name| name.to_owned()).collect(),
            faults: faults.iter().map(|&fault| fault.to_owned()).collect(),
            ending: false,
            private: private.iter().map(|&name| name.to_owned()).collect(),
        };
        let all =
            tasks(&["the builder", "of `a`", "of `ab`"], &["x: of `a`: y.", "z."], &["of `a`"]);
        let public = tasks(&["the builder", "of `ab`"], &["A required task exited.", "z."], &[]);
        assert_eq!(all.public(), public);
    }
}
