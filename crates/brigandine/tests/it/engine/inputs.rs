//! Inputs: what can happen to a repository.

use crate::support::Place;

#[test]
fn a_force_push_is_evaluated_like_any_other() {
    let place = Place::new();
    let repository = place.repository("sample");
    let old = repository.jobs(&[("one", "command = \"echo 1\"")]);
    repository.jobs(&[("one", "command = \"echo 2\"")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    repository.git(&["reset", "--quiet", "--hard", &old]);
    let forced = repository.jobs(&[("one", "command = \"echo 3\"")]);
    repository.git(&["reflog", "expire", "--expire=now", "--all"]);
    repository.git(&["gc", "--quiet", "--prune=now"]);
    place.good_one_shot();
    let latest = "SELECT revision FROM checkout ORDER BY evaluation_id DESC LIMIT 1";
    assert_eq!(place.rows(latest), [forced]);
    assert_eq!(place.rows("SELECT status FROM build ORDER BY id"), ["0", "0"]);
}

#[test]
fn an_unreachable_repository_is_an_error_of_that_look_alone() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    let lost = place.repository("lost");
    lost.commit(&[("file", "text")]);
    std::fs::rename(&lost.path, place.path("elsewhere")).expect("moved");
    place.specify(&[("sample", &repository, ""), ("lost", &lost, "")]);
    assert_eq!(place.one_shot().status.code(), Some(1));
    assert_eq!(place.rows("SELECT count(*), max(status) FROM evaluation"), ["1|0"]);
    let row = place.rows("SELECT look_failures, look_error FROM specification WHERE name = 'lost'");
    assert!(row[0].starts_with("1|input `source`: fetch "), "{row:?}");
    assert!(row[0].contains("does not appear to be a git repository"), "{row:?}");
    // It comes back.
    std::fs::rename(place.path("elsewhere"), &lost.path).expect("moved back");
    lost.jobs(&[("two", "command = \"true\"")]);
    place.good_one_shot();
    let row = place.rows("SELECT look_failures, look_error FROM specification WHERE name = 'lost'");
    assert_eq!(row, ["0|"]);
}

#[test]
fn a_vanished_branch_is_told_by_name() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    repository.git(&["branch", "--move", "main", "trunk"]);
    assert_eq!(place.one_shot().status.code(), Some(1));
    let error = place.rows("SELECT look_error FROM specification").remove(0);
    assert!(error.contains("has no branch main; was it renamed or removed?"), "{error}");
    assert_eq!(place.rows("SELECT count(*) FROM evaluation"), ["1"]);
}

#[test]
fn tags_revisions_and_several_inputs_are_taken_as_named() {
    let place = Place::new();
    let (code, data) = (place.repository("code"), place.repository("data"));
    code.jobs(&[
        (
            "one",
            "command = \"cat $BRIGANDINE_INPUTS/tagged/value $BRIGANDINE_INPUTS/pinned/value\"",
        ),
        (
            "two",
            "command = \"cat $BRIGANDINE_INPUTS/pinned/value; ls\"\nsources = [\"pinned:value\"]",
        ),
    ]);
    data.commit(&[("value", "1\n")]);
    data.git(&["tag", "--annotate", "--message=one", "v1"]);
    let second = data.commit(&[("value", "2\n")]);
    data.commit(&[("value", "3\n")]);
    let url = data.path.display();
    let more = format!(
        "[[specification.input]]\nname = \"tagged\"\nurl = \"{url}\"\ntag = \"v1\"\n\
         [[specification.input]]\nname = \"pinned\"\nurl = \"file://{url}\"\nrevision = \"{second}\"\n"
    );
    place.specify(&[("sample", &code, &more)]);
    place.good_one_shot();
    assert_eq!(place.build_log("one"), "1\n2\n");
    assert_eq!(place.build_log("two"), "2\n");
}

#[test]
fn submodules_come_along_when_asked_for() {
    let place = Place::new();
    let (code, library) = (place.repository("code"), place.repository("library"));
    library.commit(&[("value", "from the library\n")]);
    let url = library.path.display().to_string();
    code.git(&["submodule", "--quiet", "add", &url, "third/library"]);
    code.jobs(&[("one", "command = \"cat third/library/value\"\nsources = [\"third\"]")]);
    place.specify(&[("sample", &code, "submodules = true")]);
    place.good_one_shot();
    assert_eq!(place.build_log("one"), "from the library\n");
}

#[test]
fn modes_and_links_survive_and_nothing_of_a_repository_is_executed() {
    let place = Place::new();
    let repository = place.repository("sample");
    let trap = place.path("trap");
    let script = format!("#!/bin/sh\ntouch {}\n", trap.display());
    repository.commit(&[
        (".gitattributes", "* filter=evil\n"),
        ("hooks/post-checkout", &script),
        ("run", "#!/bin/sh\necho ran\n"),
        ("brigandine.toml", "[[job]]\nname = \"one\"\ncommand = \"./run; readlink link\"\n"),
    ]);
    std::os::unix::fs::symlink("run", repository.path.join("link")).expect("a link");
    repository.git(&["add", "link"]);
    repository.git(&["update-index", "--chmod=+x", "run", "hooks/post-checkout"]);
    repository.git(&["commit", "--quiet", "--message=modes"]);
    // A hook where git would look for one, had the clone been made with the usual templates.
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.build_log("one"), "ran\nrun\n");
    assert!(!trap.exists());
}
