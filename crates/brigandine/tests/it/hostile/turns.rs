//! Specifications that are slow on purpose do not keep other specifications waiting.

use crate::support::{Place, Process};
use std::io::Read;
use std::net::TcpListener;

#[test]
fn sleeping_evaluators_do_not_keep_another_specification_waiting() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    let asleep = "[specification.evaluator]\ncommand = [\"sleep\", \"1000\"]";
    let names: Vec<String> = (0..6).map(|number| format!("asleep-{number}")).collect();
    let mut specifications: Vec<_> =
        names.iter().map(|name| (name.as_str(), &repository, asleep)).collect();
    place.specify(&specifications);
    let server = Process::start(place.command(&[]));
    for _ in &names {
        server.trace("evaluation started");
    }
    specifications.push(("awake", &repository, ""));
    place.specify(&specifications);
    let added = place.tool(&["spec", "add", &place.path("specifications.toml").to_string_lossy()]);
    let added = crate::support::run(added);
    assert!(added.status.success(), "{}", added.stderr);
    server.trace("build ended");
    assert_eq!(place.rows("SELECT job, status FROM build"), ["one|0"]);
}

#[test]
fn mute_git_hosts_do_not_keep_another_specification_waiting() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    let host = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = host.local_addr().expect("an address");
    let mute: String = (0..9)
        .map(|number| {
            let inputs: String = (0..3)
                .map(|input| {
                    format!(
                        "[[specification.input]]\nname = \"i{input}\"\n\
                         url = \"git://{address}/{number}-{input}\"\nbranch = \"main\"\n"
                    )
                })
                .collect();
            format!("[[specification]]\nname = \"mute-{number}\"\n{inputs}")
        })
        .collect();
    place.write("specifications.toml", &mute);
    let server = Process::start(place.command(&[]));
    // Eight fetches have connected and sent a request. They never get an answer.
    let mut held = Vec::new();
    for _ in 0..8 {
        let (mut connection, _) = host.accept().expect("a fetch");
        connection.read_exact(&mut [0]).expect("its question");
        held.push(connection);
    }
    place.specify(&[("alive", &repository, "")]);
    let added = place.tool(&["spec", "add", &place.path("specifications.toml").to_string_lossy()]);
    let added = crate::support::run(added);
    assert!(added.status.success(), "{}", added.stderr);
    server.trace("build ended");
    assert_eq!(place.rows("SELECT job, status FROM build"), ["one|0"]);
    drop(held);
}
