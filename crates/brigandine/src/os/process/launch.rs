//! What the server tells a supervisor, and what that answers.
//!
//! A launch is a length and so many bytes: numbers, then lists of byte strings, each with its length
//! before it. Arguments and variables may hold any bytes, and there may be megabytes of them.

use super::cgroup::{Controllers, Wanted};
use super::limits::{Bounds, Limit, Limits};
use super::user::{Shown, User};
use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// No launch is larger: the kernel refuses less.
const BYTES_MAX: usize = 64 << 20;

/// A program to start, and all that is decided about it before it runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Launch {
    /// The program's file.
    pub(super) program: OsString,
    pub(super) arguments: Vec<OsString>,
    /// All variables that it has.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// Where it starts.
    pub(super) directory: PathBuf,
    /// The program is bubblewrap: a request to end goes past it to what it runs.
    pub(super) sandboxed: bool,
    /// What it may take.
    pub(super) bounds: Option<Bounds>,
    /// Who it runs as; without it, as the supervisor does.
    pub(super) user: Option<User>,
    /// What that user is to reach.
    pub(super) shown: Vec<Shown>,
    /// The control group that is to be made for it.
    pub(super) group: Option<Wanted>,
}

impl Launch {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; 4];
        let (bounds, user) = (self.bounds.is_some(), self.user.is_some());
        let group = self.group.is_some();
        put(&mut bytes, &[self.sandboxed, bounds, user, group].map(u8::from));
        if let Some(Bounds { limits, directory }) = &self.bounds {
            for limit in [limits.memory, limits.processes, limits.file, limits.disk] {
                put(&mut bytes, &limit.to_le_bytes());
            }
            put(&mut bytes, directory.as_os_str().as_bytes());
        }
        if let Some(User { id, group }) = self.user {
            put_count(&mut bytes, id as usize);
            put_count(&mut bytes, group as usize);
        }
        if let Some(Wanted { path, controllers }) = &self.group {
            put(&mut bytes, path.as_os_str().as_bytes());
            put(&mut bytes, &[controllers.memory, controllers.pids].map(u8::from));
        }
        put_count(&mut bytes, self.shown.len());
        for Shown { path, writable } in &self.shown {
            put(&mut bytes, &[u8::from(*writable)]);
            put(&mut bytes, path.as_os_str().as_bytes());
        }
        put(&mut bytes, self.program.as_bytes());
        put(&mut bytes, self.directory.as_os_str().as_bytes());
        put_count(&mut bytes, self.arguments.len());
        for argument in &self.arguments {
            put(&mut bytes, argument.as_bytes());
        }
        put_count(&mut bytes, self.environment.len());
        for (name, value) in &self.environment {
            put(&mut bytes, name.as_bytes());
            put(&mut bytes, value.as_bytes());
        }
        let length = u32::try_from(bytes.len() - 4).unwrap_or(u32::MAX);
        bytes[..4].copy_from_slice(&length.to_le_bytes());
        bytes
    }

    /// Shows its user what it needs, in the mount namespace of this process.
    pub(super) fn show(&self) -> io::Result<()> {
        self.user.map_or(Ok(()), |user| user.show(&self.shown))
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
        let mut rest = bytes.as_slice();
        let flags = take(&mut rest)?;
        let sandboxed = flags.first() == Some(&1);
        let bounds = match flags.get(1) {
            Some(1) => Some(take_bounds(&mut rest)?),
            _ => None,
        };
        let user = match flags.get(2) {
            Some(1) => {
                let mut number = || {
                    take_count(&mut rest).and_then(|it| {
                        u32::try_from(it).map_err(|_| io::ErrorKind::InvalidData.into())
                    })
                };
                Some(User { id: number()?, group: number()? })
            }
            _ => None,
        };
        let group = match flags.get(3) {
            Some(1) => {
                let path = PathBuf::from(text(&mut rest)?);
                let kept = take(&mut rest)?;
                let has = |place: usize| kept.get(place) == Some(&1);
                Some(Wanted { path, controllers: Controllers { memory: has(0), pids: has(1) } })
            }
            _ => None,
        };
        let shown = (0..take_count(&mut rest)?)
            .map(|_| {
                let writable = take(&mut rest)?.first() == Some(&1);
                Ok(Shown { path: PathBuf::from(text(&mut rest)?), writable })
            })
            .collect::<io::Result<_>>()?;
        let program = text(&mut rest)?;
        let directory = PathBuf::from(text(&mut rest)?);
        let arguments =
            (0..take_count(&mut rest)?).map(|_| text(&mut rest)).collect::<io::Result<_>>()?;
        let environment = (0..take_count(&mut rest)?)
            .map(|_| Ok((text(&mut rest)?, text(&mut rest)?)))
            .collect::<io::Result<_>>()?;
        Ok(Self {
            program,
            arguments,
            environment,
            directory,
            sandboxed,
            bounds,
            user,
            shown,
            group,
        })
    }
}

fn take_bounds(rest: &mut &[u8]) -> io::Result<Bounds> {
    let mut number = || {
        let bytes = take(rest)?.try_into().map_err(|_| io::ErrorKind::InvalidData)?;
        Ok::<_, io::Error>(u64::from_le_bytes(bytes))
    };
    let limits =
        Limits { memory: number()?, processes: number()?, file: number()?, disk: number()? };
    Ok(Bounds { limits, directory: PathBuf::from(text(rest)?) })
}

fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
}

fn put(bytes: &mut Vec<u8>, word: &[u8]) {
    put_count(bytes, word.len());
    bytes.extend_from_slice(word);
}

fn take_count(rest: &mut &[u8]) -> io::Result<usize> {
    let (count, after) = rest.split_first_chunk().ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = after;
    Ok(u32::from_le_bytes(*count) as usize)
}

fn take<'a>(rest: &mut &'a [u8]) -> io::Result<&'a [u8]> {
    let count = take_count(rest)?;
    let (word, after) = rest.split_at_checked(count).ok_or(io::ErrorKind::UnexpectedEof)?;
    *rest = after;
    Ok(word)
}

fn text(rest: &mut &[u8]) -> io::Result<OsString> {
    take(rest).map(|word| OsString::from_vec(word.to_vec()))
}

/// What a supervisor says: always this many bytes.
pub(super) const REPORT_BYTES: usize = 16;

/// What a supervisor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Report {
    /// The program runs.
    Started,
    /// It could not be started; the number of the error.
    Refused(i32),
    /// The program and all that came of it have ended.
    Ended(End),
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The status of the program itself, as wait(2) has it.
    pub(super) status: i32,
    /// How many processes it left behind, which were killed.
    pub(crate) left: u32,
    /// The limit that it exceeded, for which it was killed.
    pub(crate) limit: Option<Limit>,
}

impl Report {
    pub(super) fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let (kind, first, second, limit) = match self {
            Self::Started => (0, 0, 0, None),
            Self::Refused(error) => (1, error, 0, None),
            Self::Ended(End { status, left, limit }) => (2, status, left, limit),
        };
        let place = limit.and_then(|limit| Limit::ALL.iter().position(|it| *it == limit));
        let mut bytes = [0; REPORT_BYTES];
        bytes[0] = kind;
        bytes[1] = place.and_then(|place| u8::try_from(place + 1).ok()).unwrap_or(0);
        bytes[4..8].copy_from_slice(&i32::to_le_bytes(first));
        bytes[8..12].copy_from_slice(&u32::to_le_bytes(second));
        bytes
    }

    pub(super) fn from_bytes(bytes: [u8; REPORT_BYTES]) -> Self {
        let [kind, limit, _, _, a, b, c, d, e, f, g, h, ..] = bytes;
        let limit = usize::from(limit).checked_sub(1).and_then(|place| Limit::ALL.get(place));
        let first = i32::from_le_bytes([a, b, c, d]);
        match kind {
            0 => Self::Started,
            1 => Self::Refused(first),
            _ => Self::Ended(End {
                status: first,
                left: u32::from_le_bytes([e, f, g, h]),
                limit: limit.copied(),
            }),
        }
    }
}

/// The server asks a supervisor to ask every process to end.
pub(super) const ASK: u8 = b'T';
/// The server asks a supervisor to kill every process.
pub(super) const KILL: u8 = b'K';

/// A program's file on a search path.
pub(super) fn find(program: &OsStr, path: &OsStr) -> OsString {
    if program.as_bytes().contains(&b'/') {
        return program.to_owned();
    }
    let mut found = std::env::split_paths(path).map(|part| part.join(program));
    found.find(|file| file.is_file()).map_or_else(|| program.to_owned(), PathBuf::into_os_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_arrives_as_it_was_sent_whatever_bytes_it_holds() {
        let word = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
        let launch = Launch {
            program: word(b"/bin/\xff"),
            arguments: vec![word(b""), word(&vec![b'x'; 3 << 20]), word(b"a\nb=c")],
            environment: vec![(word(b"A"), word(b"")), (word(b"B"), word(b"\xfe=\n"))],
            directory: PathBuf::from("/tmp/x y"),
            sandboxed: true,
            bounds: Some(Bounds {
                limits: Limits { memory: 1, processes: u64::MAX, file: 3, disk: 4 },
                directory: PathBuf::from("/d"),
            }),
            group: Some(Wanted {
                path: PathBuf::from("/g"),
                controllers: Controllers { memory: false, pids: true },
            }),
            user: Some(User { id: u32::MAX, group: 7 }),
            shown: vec![
                Shown { path: PathBuf::from("/w"), writable: true },
                Shown { path: PathBuf::from("/r"), writable: false },
            ],
        };
        let bytes = launch.to_bytes();
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
            assert_eq!(Report::from_bytes(report.to_bytes()), report);
        }
    }
}
