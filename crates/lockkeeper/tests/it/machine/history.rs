//! Checks whether a history is linearizable.

use std::collections::BTreeMap;

use super::map::{Map, Write};

/// One operation of a history.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) op: u64,
    pub(crate) called: u64,
    /// When the operation was answered; `None`: it was canceled and never answered.
    pub(crate) answered: Option<u64>,
    pub(crate) what: What,
}

#[derive(Debug)]
pub(crate) enum What {
    /// A write with its version and result; `Err`: the map refused the write at this version.
    Wrote(Write, Result<(u64, i64), u64>),
    Canceled(Write),
    /// The library's error says that the write was not stored.
    NotStored,
    Got(i64, u64, Option<i64>),
    Saw(u64, Map),
}
/// Checks that the order in `history` explains the answers of all `events`, and that it agrees with real time.
pub(crate) fn linearizable(events: &mut [Event], history: &[(u64, u64)]) -> Result<(), String> {
    let mut version_of = BTreeMap::new();
    for (index, &(version, op)) in history.iter().enumerate() {
        if version != index as u64 + 1 {
            return Err(format!("version {version} is at place {index}"));
        }
        version_of.insert(op, version);
    }
    let writes: BTreeMap<u64, &Event> = events.iter().map(|event| (event.op, event)).collect();
    let mut maps = vec![Map::new()];
    for &(version, op) in history {
        let mut map = maps[version as usize - 1].clone();
        let event = writes.get(&op).ok_or(format!("nobody called {op}"))?;
        let (write, told) = match event.what {
            What::Wrote(write, Ok(told)) => (write, Some(told)),
            What::Canceled(write) => (write, None),
            _ => return Err(format!("stored, against the answer: {event:?}")),
        };
        let result = write.on_map(&mut map).map_err(|()| format!("refused: {event:?}"))?;
        if told.is_some_and(|told| told != (version, result)) {
            return Err(format!("version {version} gives {result}: {event:?}"));
        }
        maps.push(map);
    }
    // For each event its version, and whether it is a stored write. A write must be later than all versions that were
    // known before.
    let mut placed = Vec::new();
    for event in &*events {
        let at = |version: u64| maps.get(version as usize).ok_or(format!("no such: {event:?}"));
        let (version, right) = match &event.what {
            What::Wrote(_, Ok((version, _))) => {
                (*version, version_of.get(&event.op) == Some(version))
            }
            What::Wrote(write, Err(version)) => {
                (*version, write.on_map(&mut at(*version)?.clone()).is_err())
            }
            What::Canceled(_) => match version_of.get(&event.op) {
                Some(version) => (*version, true),
                None => continue,
            },
            What::NotStored => continue,
            What::Got(k, version, value) => (*version, at(*version)?.get(k) == value.as_ref()),
            What::Saw(version, map) => (*version, at(*version)? == map),
        };
        if !right {
            return Err(format!("not so at its version: {event:?}"));
        }
        let writes = version_of.contains_key(&event.op);
        placed.push((event, version, writes));
    }
    // Real time: goes through the events in the order of their calls. Each must be at least as new as the newest
    // version that was answered before its call.
    let mut answers: Vec<(u64, u64)> =
        placed.iter().filter_map(|(event, version, _)| Some((event.answered?, *version))).collect();
    answers.sort_unstable();
    placed.sort_unstable_by_key(|(event, ..)| event.called);
    let (mut next, mut newest) = (0, 0);
    for (event, version, writes) in placed {
        while next < answers.len() && answers[next].0 < event.called {
            newest = newest.max(answers[next].1);
            next += 1;
        }
        if version < newest + u64::from(writes) {
            return Err(format!("version {newest} was known before: {event:?}"));
        }
    }
    Ok(())
}

/// The checker must be able to reject a history.
#[test]
fn a10_the_checker_refuses_stale_lost_and_doubled_rows() {
    let wrote = |op, called, version, k, before| Event {
        op,
        called,
        answered: Some(called + 1),
        what: What::Wrote(Write::Put(k, op as i64), Ok((version, before))),
    };
    let got = |op, called, version, value| Event {
        op,
        called,
        answered: Some(called + 1),
        what: What::Got(0, version, value),
    };
    let history = [(1, 1), (2, 2)];
    let good = || vec![wrote(1, 1, 1, 0, -1), wrote(2, 3, 2, 0, 1), got(3, 5, 2, Some(2))];
    assert_eq!(linearizable(&mut good(), &history), Ok(()));
    let refused = |events: Vec<Event>, history: &[(u64, u64)], why: &str| {
        let mut events = events;
        let error = linearizable(&mut events, history).expect_err(why);
        assert!(error.contains(why), "{error}");
    };
    let mut stale = good();
    stale[2] = got(3, 5, 1, Some(1));
    refused(stale, &history, "was known before");
    let mut wrong = good();
    wrong[2] = got(3, 5, 2, Some(1));
    refused(wrong, &history, "not so at its version");
    refused(good(), &history[..1], "not so at its version");
    refused(good(), &[(1, 1), (2, 2), (3, 3)], "stored, against the answer");
    refused(good(), &[(1, 2), (2, 1)], "gives");
    let mut early = good();
    early[1] = wrote(2, 0, 2, 0, 1);
    early[0] = wrote(1, 3, 1, 0, -1);
    refused(early, &history, "was known before");
}
