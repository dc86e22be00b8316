//! Looks at every page with axe-core, which finds what keeps people from using a page who cannot see it well or use no
//! mouse. Findings that axe calls serious or critical are faults.

use super::browser::{busy, pages};
use crate::command::serve::open_gate;
use crate::support::browser::Browser;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;

/// The findings of axe-core on the open page, each in a line. `rules`: only these; empty: all.
pub(crate) fn findings(browser: &Browser, rules: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../target/axe-core/node_modules/axe-core/axe.min.js");
    let axe = std::fs::read_to_string(&file).unwrap_or_else(|error| {
        panic!("{}: {error}; `cargo xtask test --only install` installs it", file.display())
    });
    browser.run(&format!("{axe}; return 0"));
    let only = if rules.is_empty() { String::new() } else { format!(", runOnly: [{rules}]") };
    browser.run(&format!(
        "window.found = undefined;
         // Of a long log the first lines are enough; its colours are the same everywhere.
         document.querySelectorAll('#log *').forEach((it, at) => {{ if (at > 200) it.remove(); }});
         axe.run(document, {{ resultTypes: ['violations']{only} }}).then(
           (it) => {{ window.found = it.violations; }},
           (error) => {{ window.found = [{{ id: String(error), impact: 'critical', nodes: [] }}]; }});
         return 0",
    ));
    browser.wait("return window.found !== undefined");
    let found = browser.run(
        "return window.found.filter((it) => ['serious', 'critical'].includes(it.impact))
           .map((it) => `${it.impact} ${it.id}: ${it.nodes.map((node) => node.html).slice(0, 3).join(' ')}`)",
    );
    let lines = found.as_array().cloned().unwrap_or_default();
    lines.iter().map(|line| line.as_str().map_or_else(|| line.to_string(), str::to_owned)).collect()
}

/// One page of each route in the default form of the tests, and every page in the long one.
fn chosen() -> Vec<&'static str> {
    let mut routes = BTreeSet::new();
    let is_long = std::env::var_os("LOCKKEEPER_LONG").is_some();
    let mut first = |path: &str| {
        let route = path.split(['/', '?']).nth(1).map(str::to_owned);
        routes.insert((route, path.contains('?'), path.split('/').count()))
    };
    pages().map(|(_, path)| path).filter(|path| first(path) || is_long).collect()
}

#[test]
fn no_page_has_a_serious_finding_in_light_and_in_dark() {
    let (place, server, site) = busy();
    let browser = Browser::start(&place.path("profile"));
    let mut faults = Vec::new();
    for path in chosen() {
        browser.open(&format!("{site}{path}"));
        for (scheme, background, rules) in
            [("light", "lighter", ""), ("dark", "darker", "'color-contrast', 'link-in-text-block'")]
        {
            browser.prefer(scheme);
            let is_so = browser.run(
                "const [r, g, b] = getComputedStyle(document.body).backgroundColor.match(/\\d+/g);
                 return (+r + +g + +b > 384) ? 'lighter' : 'darker'",
            );
            assert_eq!(is_so, Value::from(background), "{path} in {scheme}");
            for finding in findings(&browser, rules) {
                faults.push(format!("{path} in {scheme}: {finding}"));
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    open_gate(&place);
    drop(browser);
    server.signal("TERM");
    assert!(server.end().success());
}
