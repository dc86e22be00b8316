//! Pages that show the state of the server, and downloads whose file names are right.

use crate::command::serve::{address, gated, get, open_gate, text};
use crate::support::{Place, Process, until};
use std::io::Read;

/// Downloads a product. Returns the head of the answer, and the bytes of the file.
fn download(address: &str, id: &str) -> (String, Vec<u8>) {
    let mut answer = Vec::new();
    get(address, &format!("/download/{id}")).read_to_end(&mut answer).expect("an answer");
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head");
    (String::from_utf8_lossy(&answer[..end]).into_owned(), answer[end + 4..].to_vec())
}

#[test]
fn products_are_downloaded_under_their_names_whatever_these_are() {
    let place = Place::new();
    let repository = place.repository("repository");
    let script = "mkdir d; cd d
for name in 'plain.txt' 'Grüße ✓.txt' 'a\"b' '100%25.txt' '.hidden' 'two words' 'a;b=c' \"$(printf 'Gr\\374\\337e.txt')\" \"$(printf 'line\\nend')\"; do
  printf 'contents of %s' \"$name\" > \"$name\"
done
";
    repository.commit(&[("make.sh", script)]);
    repository.jobs(&[("names", "command = \"sh -e make.sh\"\nproducts = [\"d/**\"]")]);
    place.specify(&[("spec", &repository, "")]);
    place.good_one_shot();
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let page = text(&address, "/build/1");
    let rows = place.rows("SELECT id, name, replace(name, char(10), '?') FROM product");
    assert_eq!(rows.len(), 9, "{rows:?}");
    let wanted: [(&str, &[u8], &str); 9] = [
        ("d/plain.txt", b"plain.txt", "filename=\"plain.txt\""),
        (
            "d/Grüße ✓.txt",
            "Grüße ✓.txt".as_bytes(),
            "filename=\"Gr__e _.txt\"; filename*=UTF-8''Gr%C3%BC%C3%9Fe%20%E2%9C%93.txt",
        ),
        ("d/a\"b", b"a\"b", "filename=\"a_b\"; filename*=UTF-8''a%22b"),
        ("d/100%25.txt", b"100%25.txt", "filename=\"100_25.txt\"; filename*=UTF-8''100%2525.txt"),
        ("d/.hidden", b".hidden", "filename=\".hidden\""),
        ("d/two words", b"two words", "filename=\"two words\""),
        ("d/a;b=c", b"a;b=c", "filename=\"a;b=c\""),
        (
            "d/Gr\u{fffd}\u{fffd}e.txt",
            b"Gr\xfc\xdfe.txt",
            "filename=\"Gr__e.txt\"; filename*=UTF-8''Gr%EF%BF%BD%EF%BF%BDe.txt",
        ),
        ("d/line?end", b"line\nend", "filename=\"line_end\""),
    ];
    for (name, bytes, disposition) in wanted {
        let row = rows.iter().find(|row| row.rsplit('|').next() == Some(name));
        let id =
            row.and_then(|row| row.split('|').next()).unwrap_or_else(|| panic!("{name}: {rows:?}"));
        assert!(page.contains(&format!("href=\"/download/{id}\"")), "{name}");
        let (head, body) = download(&address, id);
        assert!(head.starts_with("HTTP/1.0 200"), "{name}: {head}");
        assert!(
            head.contains(&format!("content-disposition: attachment; {disposition}\r\n")),
            "{name}: {head}"
        );
        assert_eq!(body, [b"contents of ", bytes].concat(), "{name}");
    }
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_product_that_is_a_link_is_the_file_that_it_leads_to_if_that_is_the_builds_own() {
    let place = Place::new();
    let repository = place.repository("repository");
    let script = "mkdir d; echo real > d/real; echo second > d/second
ln -s d/real relative; ln -s \"$PWD/d/real\" absolute; ln -s relative twice; ln -s d/second selected
ln -s /etc/hostname outside; ln -s gone dangling; ln -s circle circle; ln -s d folder; ln -s /dev/null device
echo kept > \"$BRIGANDINE_OUT/kept.1\"; ln -s kept.1 \"$BRIGANDINE_OUT/kept\"
ln -s \"$BRIGANDINE_OUT/kept.1\" result
";
    repository.commit(&[("make.sh", script)]);
    let only = |name: &str| format!("command = \"sh -e make.sh\"\nproducts = [\"{name}\"]");
    let bad = ["outside", "dangling", "circle", "folder", "device"];
    let mut jobs = vec![(
        "links".to_owned(),
        "command = \"sh -e make.sh\"\nproducts = [\"*\", \"d/second\"]".to_owned(),
    )];
    jobs.extend(bad.map(|name| (name.to_owned(), only(name))));
    let jobs: Vec<(&str, &str)> = jobs.iter().map(|(name, more)| (&**name, &**more)).collect();
    repository.jobs(&jobs);
    place.specify(&[("spec", &repository, "")]);
    place.one_shot();
    let names = place.rows(
        "SELECT p.name FROM product AS p JOIN build AS b ON b.id = p.build_id
         WHERE b.job = 'links' ORDER BY p.name",
    );
    let wanted = [
        "absolute",
        "brigandine.toml",
        "d/real",
        "d/second",
        "kept",
        "kept.1",
        "make.sh",
        "relative",
        "result",
        "selected",
        "twice",
    ];
    assert_eq!(names, wanted);
    let log = place.build_log("links");
    for name in bad {
        assert!(
            log.contains(&format!("left out of the products: `{name}` is a link to")),
            "{name}: {log}"
        );
        let rows = place.rows(&format!("SELECT status, message FROM build WHERE job = '{name}'"));
        let message = format!("3|product pattern `{name}` matches no file: `{name}` is a link to ");
        assert!(rows[0].starts_with(&message), "{rows:?}");
    }
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    for (name, contents) in [
        ("relative", "real\n"),
        ("absolute", "real\n"),
        ("twice", "real\n"),
        ("selected", "second\n"),
        ("d/second", "second\n"),
        ("kept", "kept\n"),
        ("kept.1", "kept\n"),
        ("result", "kept\n"),
    ] {
        let id = place.rows(&format!(
            "SELECT p.id FROM product AS p JOIN build AS b ON b.id = p.build_id
             WHERE b.job = 'links' AND p.name = '{name}'"
        ));
        let (head, body) = download(&address, &id[0]);
        assert!(head.starts_with("HTTP/1.0 200"), "{name}: {head}");
        assert_eq!(String::from_utf8_lossy(&body), contents, "{name}");
    }
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_repository_that_cannot_be_reached_is_an_error_and_the_next_look_is_told() {
    let place = Place::new();
    let repository = crate::support::Repository { path: place.path("nowhere") };
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let page = until(|| text(&address, "/"), |page| page.contains("inputs cannot be fetched"));
    assert!(page.contains("class=\"card spec bad\""), "{page}");
    assert!(page.contains("<p class=\"sub\"><span>No evaluation yet.</span></p>"), "{page}");
    assert!(page.contains("The next look is <time"), "{page}");
    let page = text(&address, "/jobset/spec");
    assert!(page.contains(" data-due=\"") && page.contains("later after each failure"), "{page}");
    assert!(!page.contains("Looked at every"), "{page}");
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn the_queue_is_in_the_order_in_which_builds_are_started() {
    let place = Place::new();
    let repository = place.repository("repository");
    let started = place.path("started");
    let note = |more: &str| {
        format!("command = \"echo $BRIGANDINE_NAME >> '{}'\"\n{more}", started.display())
    };
    let (low, plain, high) = (note("priority = -3"), note(""), note("priority = 7"));
    let (other, needs) =
        (note("priority = 1\nenv = { A = \"b\" }"), note("priority = 9\nneeds = [\"gate\"]"));
    let gate = gated(&place) + "\npriority = 100";
    repository.jobs(&[
        ("low", &low),
        ("plain", &plain),
        ("needs", &needs),
        ("high", &high),
        ("other", &other),
        ("gate", &gate),
    ]);
    place.specify(&[("spec", &repository, "")]);
    let server = Process::start(place.command_at("1", &[]));
    let address = address(&server);
    let page = until(|| text(&address, "/queue"), |page| page.contains(">Running<"));
    let main = &page[page.find("<main").expect("a main part")..];
    let names: Vec<&str> = main
        .match_indices("class=\"name\">")
        .map(|(at, found)| main[at + found.len()..].split('<').next().unwrap_or_default())
        .collect();
    assert_eq!(names, ["gate", "high", "other", "plain", "low", "needs"]);
    for title in ["Running", "Next", "Waiting for other builds"] {
        assert!(main.contains(&format!("<h2 class=\"quiet\">{title}</h2>")), "{title}: {main}");
    }
    let gate = place.rows("SELECT id FROM build WHERE job = 'gate'").concat();
    assert!(main.contains(&format!("waits for <a href=\"/build/{gate}\">gate</a>")), "{main}");
    assert!(main.contains("priority 7") && main.contains("priority -3"), "{main}");
    assert!(main.contains("by priority, then age, then name"), "{main}");
    open_gate(&place);
    let order = until(
        || std::fs::read_to_string(&started).unwrap_or_default(),
        |order| order.lines().count() == 5,
    );
    assert_eq!(order.lines().collect::<Vec<_>>(), ["needs", "high", "other", "plain", "low"]);
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn the_description_of_a_job_is_on_the_page_of_its_build_and_no_reason_to_build_again() {
    let place = Place::new();
    let repository = place.repository("repository");
    repository.commit(&[("seen", "text")]);
    let job = "command = \"true\"\nsources = [\"seen\"]\n";
    repository.jobs(&[("job", &format!("{job}description = \"Checks <everything>\""))]);
    place.specify(&[("spec", &repository, "")]);
    place.good_one_shot();
    repository.jobs(&[("job", &format!("{job}description = \"Other words\""))]);
    place.good_one_shot();
    assert_eq!(place.rows("SELECT evaluation_id, build_id FROM job"), ["1|1", "2|1"]);
    let server = Process::start(place.command(&[]));
    let address = address(&server);
    let page = text(&address, "/build/1");
    assert!(page.contains("<p class=\"about\">Checks &#60;everything&#62;</p>"), "{page}");
    server.signal("TERM");
    assert!(server.end().success());
}
