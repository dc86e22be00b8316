//! Golden files of every page over `tests/data/pages/fill.sql`, without the parts that depend on the clock.
//! `cargo insta review` shows the differences; `INSTA_UPDATE=always` accepts them.

use std::collections::BTreeSet;

use super::routes::ROUTES;
use crate::model::BuildId;
use crate::model::LogName;
use crate::site::harness::{Served, served_with};

const LIST: &str = include_str!("../../tests/data/pages/routes.txt");

/// The lines of the list: the kind, the route, and the address or the name of the route's test.
fn routes() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    let lines = LIST.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (route, address) = rest.trim().split_once(' ').unwrap_or((rest.trim(), ""));
        (kind, route, address.trim())
    })
}

#[test]
fn every_route_of_the_router_is_in_the_list_of_pages() {
    let listed: BTreeSet<&str> = routes().map(|(_, route, _)| route).collect();
    let served = ROUTES.iter().map(|(route, _)| *route).chain(crate::site::SHARED);
    let served: BTreeSet<&str> = served.collect();
    assert_eq!(listed, served, "tests/data/pages/routes.txt");
    for (kind, route, address) in routes() {
        assert!(["page", "refused", "list", "file"].contains(&kind), "{kind} {route}");
        assert!(!address.is_empty(), "{kind} {route} says nothing more");
        // The route up to its first variable part.
        let fixed = route.split('{').next().unwrap_or_default();
        assert!(kind == "file" || address.starts_with(fixed), "{route}: {address}");
    }
}

/// A site over the sample, with build logs of several kinds.
async fn sample() -> Served {
    let served =
        served_with(include_str!("../../tests/data/pages/fill.sql"), crate::config::Web::default())
            .await;
    let text = b"\x1b[1;32mok\x1b[0m line <b>one</b>\nprogress 10%\rprogress 99%\nna\xc3\xafve \xff\nno end";
    for log in ["1001-1", "1002-2", "1010-1"] {
        served.put(&format!("logs/build/1/{log}.log"), text);
    }
    served.put("logs/build/1/1002-1.log", b"of the first attempt\n");
    served.put("logs/build/1/1012-1.log.zst", b"no zstd");
    served
}

/// The page without times and without the program's version.
fn stable(page: &str) -> String {
    let mut text = String::new();
    let mut rest = page;
    while let Some(at) = ["<time", "data-since=\"", "data-version=\"", ".css?", ".js?", ".svg?"]
        .into_iter()
        .filter_map(|mark| rest.find(mark).map(|at| at + mark.len()))
        .min()
    {
        text.push_str(&rest[..at]);
        rest = &rest[at..];
        if text.ends_with('?') || text.ends_with("data-version=\"") {
            text.push_str("VERSION");
            rest = &rest[rest.find('"').unwrap_or(0)..];
        } else {
            let open = rest.find('>').map_or(0, |at| at + 1);
            text.push_str(&rest[..open]);
            text.push_str("TIME");
            rest = &rest[open..];
            rest = &rest[rest.find('<').unwrap_or(0)..];
        }
    }
    text.push_str(rest);
    text
}

#[tokio::test]
async fn every_page_is_as_its_snapshot() {
    let served = sample().await;
    let mut running = served.logs.create(LogName::Build(BuildId::new(1006), 1));
    running.write(b"begun\n 10%\r 47% of <it>").await.expect("written");
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    let mut seen = BTreeSet::new();
    for (kind, _, address) in routes().filter(|(kind, ..)| !["list", "file"].contains(kind)) {
        let answer = served.page(address).await;
        let refused = (400..500).contains(&answer.status);
        assert!(if kind == "refused" { refused } else { answer.status == 200 }, "{}", answer.head);
        let mut name: String = address
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(60)
            .collect();
        name = format!("page{}", name.trim_end_matches('-'));
        assert!(seen.insert(name.clone()), "{address} has the name of another one: {name}");
        // The frame is the same for all pages, so only one golden file has it.
        let body = stable(&answer.body);
        let body = if address == "/" {
            &*body
        } else {
            let (begin, end) = (body.find("<main"), body.find("</main>"));
            &body[begin.expect("a main part")..end.expect("its end")]
        };
        settings.bind(|| insta::assert_snapshot!(name, body));
    }
    served.close().await;
}
