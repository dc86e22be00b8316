//! Tests of the bounds, and of the sums over random events of connections.

use super::*;
use crate::config::Web;
use std::net::IpAddr;

fn client(last: u8) -> Client {
    Client::new(IpAddr::from([192, 0, 2, last]))
}

#[test]
fn connections_keep_to_the_limit_of_open_files() {
    let bounds = |connections: Option<usize>, files: u64| {
        let bounds = Bounds::new(&Web { connections, ..Web::default() }, files);
        // Each connection has a file, and each stream may need another. Some files must be left.
        let most = (bounds.connections + bounds.streams) as u64;
        assert!(most < files || files < 8, "{bounds:?} of {files} files");
        assert!(bounds.streams_per_client <= bounds.connections_per_client, "{bounds:?}");
        (bounds.connections, bounds.connections_per_client)
    };
    assert_eq!(bounds(None, 1 << 20), (1024, 256));
    assert_eq!(bounds(None, u64::MAX), (1024, 256));
    assert_eq!(bounds(None, 1024), (512, 128));
    assert_eq!(bounds(Some(5000), 1024), (512, 128));
    assert_eq!(bounds(Some(100), 1024), (100, 25));
    assert_eq!(bounds(Some(2), 1024), (2, 2));
    assert_eq!(bounds(None, 64), (20, 8));
    for files in 0..300 {
        assert!(bounds(None, files).0 > 0);
    }
}

/// Compares the sums with sums computed from all connections (CLNT1).
fn check(clients: &Clients) {
    let state = clients.state();
    let (mut total, mut each) = (Sum::default(), HashMap::<Client, Sum>::new());
    for connection in state.connections.values().filter(|connection| !connection.leaving) {
        total.add(connection.held);
        each.entry(connection.client).or_default().add(connection.held);
    }
    assert_eq!(total, state.total);
    let held: HashMap<_, _> = state.clients.iter().map(|(client, it)| (*client, it.sum)).collect();
    assert_eq!(each, held);
    let leaving = state.connections.values().filter(|connection| connection.leaving).count();
    assert_eq!(leaving, state.leaving);
    let bounds = clients.bounds;
    assert!(total.connections <= bounds.connections && total.streams <= bounds.streams);
    let largest = state.connections.values().map(|it| it.held.bytes).max().unwrap_or(0);
    assert!(total.bytes <= bounds.answers_bytes.max(largest), "{total:?}");
    for (client, sum) in held {
        // Client 0 is the trusted proxy.
        let most =
            if client == self::client(0) { usize::MAX } else { bounds.connections_per_client };
        assert!(sum.connections <= most, "{client}: {sum:?}");
        assert!(sum.streams <= bounds.streams_per_client, "{client}: {sum:?}");
    }
}

#[test]
fn sums_are_what_connections_hold_whatever_they_do() {
    let bounds = Bounds {
        connections: 12,
        connections_per_client: 5,
        streams: 6,
        streams_per_client: 3,
        turns_per_client: 1,
        answers_bytes: 1000,
    };
    for seed in 1..200_u64 {
        let clients = Clients::new(bounds);
        let mut random = seed;
        let mut draw = |below: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(random >> 33).unwrap_or(0) % below
        };
        let (mut permits, mut answers, mut bytes) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..300 {
            let (step, some) = (draw(9), draw(64));
            let who = client(u8::try_from(some % 5).unwrap_or(0));
            let permit = (!permits.is_empty()).then(|| Arc::clone(&permits[some % permits.len()]));
            match (step, permit) {
                (0..=2, _) => {
                    if let Ok(permit) = clients.enter(who, who == client(0)) {
                        permits.push(Arc::new(permit));
                    }
                }
                (3, Some(permit)) => {
                    let peer = clients.state().connections[&permit.id].peer;
                    let named = if peer == client(0) { who } else { peer };
                    let begun = answers.iter().any(|it: &Answering| it.permit.id == permit.id);
                    if !begun && named != client(0) {
                        answers.extend(permit.begin(named));
                    }
                }
                (4, _) if !answers.is_empty() => {
                    let answer: &mut Answering = {
                        let at = some % answers.len();
                        &mut answers[at]
                    };
                    if !answer.streams {
                        let _ = answer.stream();
                    }
                }
                (5, Some(permit)) => bytes.push(permit.charge(vec![0; some * 10].into())),
                (6, Some(_)) => drop(permits.swap_remove(some % permits.len())),
                (7, _) if !answers.is_empty() => {
                    drop(answers.swap_remove(some % answers.len()));
                }
                (8, _) if !bytes.is_empty() => drop(bytes.swap_remove(some % bytes.len())),
                (_, permit) => {
                    if let Some(permit) = permit {
                        permit.stalled(some % 2 == 0);
                    }
                }
            }
            check(&clients);
        }
        drop((permits, answers, bytes));
        let state = clients.state();
        assert!(state.connections.is_empty() && state.clients.is_empty(), "{state:?}");
        assert_eq!((state.total, state.leaving), (Sum::default(), 0));
    }
}
