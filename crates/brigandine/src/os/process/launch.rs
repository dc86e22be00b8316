//! What the server tells a supervisor, and what the supervisor reports.
//!
//! A launch is sent as the length of a JSON text and then the text, a report as a line of JSON. Arguments and variables
//! may hold any bytes, and there may be megabytes of them.

use super::cgroup::PlannedGroup;
use super::limits::{Bounds, Limit};
use super::user::{Shown, User};
use crate::os::ffi::SingleThread;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The most bytes of a launch. The kernel's own limit on the arguments and variables of a program is lower.
const BYTES_MAX: usize = 64 << 20;

/// A program to start, with everything that the server decides about it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// The program's file.
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    /// All variables that it gets.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The program's working directory.
    #[serde(with = "super::path")]
    pub(super) directory: PathBuf,
    /// `true`: the program is bubblewrap, and a request to end goes only to the processes that it runs.
    pub(super) sandboxed: bool,
    /// The program's limits; `None`: it has none.
    pub(super) bounds: Option<Bounds>,
    /// The user that it runs as; `None`: the supervisor's.
    pub(super) user: Option<User>,
    /// Paths that this user must be able to reach.
    pub(super) shown: Vec<Shown>,
    /// The control group to make for the program.
    pub(super) group: Option<PlannedGroup>,
}

impl Launch {
    pub(super) fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; 4];
        serde_json::to_writer(&mut bytes, self)?;
        let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        Ok(bytes)
    }

    pub(super) fn read(from: &mut impl Read) -> io::Result<Self> {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let length = u32::from_le_bytes(length) as usize;
        if length > BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut bytes = vec![0; length];
        from.read_exact(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Makes the paths visible that the program's user needs, in the mount namespace of this process.
    pub(super) fn show(&self, thread: &SingleThread) -> io::Result<()> {
        self.user.map_or(Ok(()), |user| user.show(thread, &self.shown))
    }
}

/// What a supervisor reports: whether the program runs, then its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Report {
    /// The program runs.
    Started,
    /// The program could not be started; the number is the error's (errno).
    Refused(i32),
    /// The program and all its descendants have ended.
    Ended(End),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct End {
    /// The status of the program itself, as wait(2) gives it.
    pub(super) status: i32,
    /// How many processes the program left behind; these were killed.
    pub(crate) left: u32,
    /// The limit that the program exceeded.
    pub(crate) limit: Option<Limit>,
}

impl Report {
    pub(super) fn refused(error: &io::Error) -> Self {
        Self::Refused(error.raw_os_error().unwrap_or(Errno::INVAL.raw_os_error()))
    }

    /// Sends the report to the server, in one write.
    pub(super) fn send(self, server: &mut impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(&self)?;
        line.push(b'\n');
        server.write_all(&line)
    }
}

/// The byte by which the server tells a supervisor to ask every process to end.
pub(super) const ASK: u8 = b'T';
/// The byte by which the server tells a supervisor to kill every process.
pub(super) const KILL: u8 = b'K';

/// The file of a program: the first one on the search path, or the name itself if it has a slash or is not found.
pub(crate) fn find(program: &OsStr, path: &OsStr) -> OsString {
    if program.as_bytes().contains(&b'/') {
        return program.to_owned();
    }
    let mut found = std::env::split_paths(path).map(|part| part.join(program));
    found.find(|file| file.is_file()).map_or_else(|| program.to_owned(), PathBuf::into_os_string)
}

#[cfg(test)]
mod tests {
    use super::super::cgroup::Controllers;
    use super::super::limits::Limits;
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_launch_arrives_as_it_was_sent_whatever_bytes_it_holds() {
        let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let launch = Launch {
            program: word(b"/bin/\xff"),
            arguments: vec![word(b""), word(&vec![b'x'; 3 << 20]), word(b"a\nb=c")],
            environment: vec![(word(b"A"), word(b"")), (word(b"B"), word(b"\xfe=\n"))],
            directory: word(b"/tmp/x y\xff").into(),
            sandboxed: true,
            bounds: Some(Bounds {
                limits: Limits { memory: 1, processes: u64::MAX, file: 3, disk: 4 },
                directory: PathBuf::from("/d"),
            }),
            group: Some(PlannedGroup {
                path: PathBuf::from("/g"),
                controllers: Controllers { memory: false, pids: true },
            }),
            user: Some(User { id: u32::MAX, group: 7 }),
            shown: vec![
                Shown { path: PathBuf::from("/w"), writable: true },
                Shown { path: PathBuf::from("/r"), writable: false },
            ],
        };
        let bytes = launch.to_bytes().expect("JSON");
        assert_eq!(Launch::read(&mut bytes.as_slice()).expect("whole"), launch);
        for length in [0, 3, 4, 5, 20, bytes.len() - 1] {
            assert!(Launch::read(&mut &bytes[..length]).is_err(), "{length} bytes were enough");
        }
    }

    #[test]
    fn a_report_arrives_as_it_was_sent() {
        let reports = [
            Report::Started,
            Report::Refused(2),
            Report::Ended(End { status: -1, left: u32::MAX, limit: None }),
            Report::Ended(End { status: 9, left: 0, limit: Some(Limit::Memory) }),
            Report::Ended(End { status: 0, left: 1, limit: Some(Limit::Disk) }),
        ];
        for report in reports {
            let mut line = Vec::new();
            report.send(&mut line).expect("sent");
            assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            assert_eq!(serde_json::from_slice::<Report>(&line).expect("whole"), report);
        }
    }
}
