//! Pages that are drawn at random and changed at random: an open page that takes over what differs is the new page.

use std::fmt::Write as _;

use super::*;

/// Draws numbers that look random and are the same in each run.
struct Draw(u64);

impl Draw {
    fn below(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap_or(0) % below
    }
}

/// An element that is a part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    name: usize,
    class: usize,
    text: usize,
    since: usize,
    inner: Vec<Node>,
}

const ELEMENTS: [&str; 4] = ["div", "span", "section", "svg"];

impl Node {
    fn new(draw: &mut Draw, next: &mut usize, depth: usize) -> Self {
        *next += 1;
        let name = *next;
        let inner = if depth == 0 { 0 } else { draw.below(4) };
        let inner = (0..inner).map(|_| Self::new(draw, next, depth - 1)).collect();
        Self { name, class: draw.below(9), text: draw.below(9), since: draw.below(9), inner }
    }

    /// Writes the element. `words` are those of its times, which the script of a page changes.
    fn write(&self, words: usize, page: &mut String) {
        let Self { name, class, text, since, inner } = self;
        let element = ELEMENTS[name % ELEMENTS.len()];
        let _ = write!(
            page,
            "<{element} class=\"c{class}\" data-part=\"p {name}\">\n<{element}>t{text}</{element}><{element}/>\
             <time data-at=\"{since}\">~{words}~</time><span class=\"run\" data-since=\"{since}\">~{words}~</span>"
        );
        for node in inner {
            node.write(words, page);
            page.push_str("<br>");
        }
        let _ = write!(page, "</{element}>");
    }

    /// Changes this element or one in it.
    fn change(&mut self, draw: &mut Draw, next: &mut usize) {
        let inner = self.inner.len();
        if inner > 0 && draw.below(3) > 0 {
            let at = draw.below(inner);
            return self.inner[at].change(draw, next);
        }
        match draw.below(7) {
            0 => self.class += 1,
            1 => self.text += 1,
            2 => self.since += 1,
            3 => self.inner.insert(draw.below(inner + 1), Self::new(draw, next, 1)),
            4 if inner > 0 => drop(self.inner.remove(draw.below(inner))),
            5 if inner > 1 => self.inner.rotate_left(1),
            _ => {}
        }
    }
}

fn page(nodes: &[Node], title: usize, words: usize) -> String {
    let mut page =
        format!("<!doctype html><html><title>{title} &#60;</title><body data-version=\"\">");
    for node in nodes {
        page.push_str("<p>beside</p>");
        node.write(words, &mut page);
    }
    page + "</body></html>"
}

/// The page without the words of times.
fn without_words(page: &str) -> String {
    page.split('~').step_by(2).collect()
}

fn name<'a>(page: &'a str, part: &Part) -> &'a str {
    attribute(&page[part.range.clone()], " data-part=\"").expect("a name")
}

/// Does what the script of a page does with an answer.
fn take_over(page: &str, answer: &str) -> String {
    let mut page = page.replace(title(page), title(answer));
    let mut sent = 0;
    for fresh in parts_of(answer) {
        if fresh.range.start < sent {
            continue;
        }
        sent = fresh.range.end;
        let parts = parts_of(&page);
        let same = |part: &&Part| name(&page, part) == name(answer, &fresh);
        let range = parts.iter().find(same).expect("the part is on the page").range.clone();
        page.replace_range(range, &answer[fresh.range]);
    }
    page
}

fn digests(parts: &[Part]) -> Vec<u64> {
    let mut digests: Vec<u64> = parts.iter().map(|part| part.digest).collect();
    digests.sort_unstable();
    digests
}

#[test]
fn a_page_that_takes_over_what_differs_is_the_new_page() {
    for seed in 1..40 {
        let (mut draw, mut next) = (Draw(seed), 0);
        let mut nodes: Vec<Node> = (0..4).map(|_| Node::new(&mut draw, &mut next, 3)).collect();
        let mut shown = page(&nodes, 0, 0);
        for step in 1..20 {
            let before = nodes.clone();
            for _ in 0..draw.below(3) {
                let at = draw.below(nodes.len());
                nodes[at].change(&mut draw, &mut next);
            }
            let title = step / 7;
            let new = page(&nodes, title, step);
            let (old_parts, new_parts) = (parts_of(&shown), parts_of(&new));
            let old = version(&shown, &old_parts);
            let differs = before != nodes || title != (step - 1) / 7;
            assert_eq!(version(&new, &new_parts) != old, differs, "{shown}\n{new}");
            let answer = differing(&new, &new_parts, &digests(&old_parts));
            let taken = take_over(&shown, &answer);
            assert_eq!(without_words(&taken), without_words(&new), "{shown}\n{answer}");
            // A page whose version is not remembered gets everything.
            let all = take_over(&shown, &differing(&new, &new_parts, &[]));
            assert_eq!(all, new);
            // Nothing is sent that the page shows: a part that is sent alone differs itself.
            let known = digests(&old_parts);
            let mut sent = 0;
            for part in parts_of(&answer) {
                if part.range.start >= sent {
                    sent = part.range.end;
                    assert!(known.binary_search(&part.digest).is_err(), "{shown}\n{answer}");
                }
            }
            shown = taken;
        }
    }
}

#[test]
fn tags_are_read_as_templates_write_them() {
    for (tag, wanted) in [
        ("<div>", "div"),
        ("</div>", "/div"),
        ("<a href=\"/\">", "a"),
        ("<br/>", "br"),
        ("<rect x=\"1\"/>", "rect"),
        ("<svg\nclass=\"x\">", "svg"),
        ("<!doctype html>", "!doctype"),
    ] {
        assert_eq!(element(tag), wanted, "{tag}");
    }
}

#[test]
fn the_server_remembers_so_many_versions_and_forgets_the_oldest() {
    let versions = Versions::default();
    let parts: Vec<Part> = (0..1000).map(|digest| Part { range: 0..0, digest }).collect();
    let last = 3 * DIGESTS_MAX as u64 / 1000;
    for version in 1..=last {
        versions.put(version, &parts);
        versions.put(version, &parts);
        assert!(versions.remembered().digests <= DIGESTS_MAX);
    }
    assert_eq!(versions.get(1).len(), 0);
    assert_eq!(versions.get(last).len(), 1000);
    let remembered = versions.remembered();
    assert_eq!(remembered.versions.len(), remembered.order.len());
    let cost = |digests: &Arc<[u64]>| digests.len() + VERSION_COST;
    assert_eq!(remembered.versions.values().map(cost).sum::<usize>(), remembered.digests);
}

/// Where the conditions and loops of a template begin and end.
const CONTROLS: [(&str, i64); 6] =
    [("if", 1), ("for", 1), ("match", 1), ("endif", -1), ("endfor", -1), ("endmatch", -1)];

/// The template with blanks in the place of its statements, and the number of conditions and loops around each byte.
fn as_html(template: &str) -> (String, Vec<i64>) {
    let (mut html, mut depths, mut depth) = (String::new(), Vec::new(), 0);
    let mut rest = template;
    while let Some(begin) = rest.find("{%") {
        let end = begin + rest[begin..].find("%}").expect("the end of a statement") + 2;
        let word = rest[begin + 2..end].trim_start_matches('-').split_whitespace().next();
        html.push_str(&rest[..begin]);
        html.push_str(&" ".repeat(end - begin));
        depths.resize(html.len(), depth);
        depth += CONTROLS.iter().find(|(name, _)| Some(*name) == word).map_or(0, |(_, by)| *by);
        rest = &rest[end..];
    }
    html.push_str(rest);
    depths.resize(html.len(), depth);
    assert_eq!(depth, 0, "{template}");
    (html, depths)
}

/// The parts of a template that are in no other part, and are not always on its page.
fn optional_parts(template: &str) -> Vec<String> {
    let (html, depths) = as_html(template);
    let (mut found, mut end) = (Vec::new(), 0);
    for part in parts_of(&html) {
        let Range { start, .. } = part.range;
        if start >= end {
            end = part.range.end;
            if depths[start] > 0 {
                found.push(name(&html, &part).to_owned());
            }
        }
    }
    found
}

#[test]
fn a_part_that_is_in_no_other_part_is_always_on_its_page() {
    let wrong = "<p data-part=\"a\">{% if x %}<b data-part=\"b\"></b>{% endif %}</p>{% for x in all %}<p data-part=\"c\"></p>{% endfor %}";
    assert_eq!(optional_parts(wrong), ["c"]);
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates");
    let (mut files, mut parts) = (0, 0);
    for file in std::fs::read_dir(folder).expect("the templates").flatten() {
        let text = std::fs::read_to_string(file.path()).expect("a template");
        let of = file.file_name();
        assert_eq!(optional_parts(&text), [""; 0], "{}", of.display());
        files += 1;
        parts += parts_of(&as_html(&text).0).len();
    }
    assert!(files >= 8 && parts >= 25, "{files} templates with {parts} parts");
}
