//! Inputs: everything that can happen to a repository.

use crate::support::{Place, Process, run, until};
use std::path::PathBuf;
use std::process::Command;

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
    // The repository is back at its path.
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
    // git would run the hook of the repository if the clone had been made with git's usual templates.
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.build_log("one"), "ran\nrun\n");
    assert!(!trap.exists());
}

/// The number of directories that were exported; 0 if the builds took all files from clones.
fn exports(place: &Place) -> usize {
    std::fs::read_dir(place.state().join("checkouts")).map_or(0, Iterator::count)
}

#[test]
fn plain_files_come_straight_out_of_the_clone_with_modes_and_links() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[
        ("a/run", "#!/bin/sh\necho ran\n"),
        (
            "brigandine.toml",
            "[[job]]\nname = \"one\"\ncommand = \"\"\"\n./a/run; readlink link; ls -l a/run | cut -c1-10\n\
             ls -l brigandine.toml | cut -c1-10; find . | sort\n\"\"\"\n",
        ),
    ]);
    std::os::unix::fs::symlink("a/run", repository.path.join("link")).expect("a link");
    repository.git(&["add", "link"]);
    repository.git(&["update-index", "--chmod=+x", "a/run"]);
    repository.git(&["commit", "--quiet", "--message=modes"]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(
        place.build_log("one"),
        "ran\na/run\n-rwxr-xr-x\n-rw-r--r--\n.\n./a\n./a/run\n./brigandine.toml\n./link\n"
    );
    assert_eq!(exports(&place), 0, "nothing was exported for it");
}

#[test]
fn attributes_have_their_say_in_what_a_file_is() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[
        ("deep/.gitattributes", "*.txt text eol=crlf\n"),
        ("deep/note.txt", "a\nb\n"),
        ("brigandine.toml", "[[job]]\nname = \"one\"\ncommand = \"cat deep/note.txt\"\n"),
    ]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.build_log("one"), "a\r\nb\r\n");
    assert_eq!(exports(&place), 1, "git's own program wrote the files");
}

#[test]
fn a_file_too_large_to_be_taken_out_in_one_piece_is_exported() {
    let place = Place::new();
    let repository = place.repository("sample");
    let large = "x".repeat((16 << 20) + 1);
    repository.commit(&[
        ("large", &large),
        (
            "brigandine.toml",
            "[[job]]\nname = \"large\"\ncommand = \"wc -c < large\"\n\
             [[job]]\nname = \"small\"\ncommand = \"ls\"\nsources = [\"brigandine.toml\"]\n",
        ),
    ]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.build_log("large").trim(), large.len().to_string());
    assert_eq!(place.build_log("small"), "brigandine.toml\n");
    assert_eq!(place.rows("SELECT losses FROM build"), ["0", "0"]);
}

#[test]
fn a_job_list_may_be_long_or_behind_a_link_or_absent() {
    let place = Place::new();
    let repository = place.repository("sample");
    let padding = format!("# {}\n", "p".repeat(1000)).repeat(200);
    let list = format!("{padding}[[job]]\nname = \"one\"\ncommand = \"ls\"\n");
    repository.commit(&[("lists/long.toml", &list)]);
    std::os::unix::fs::symlink("lists/long.toml", repository.path.join("brigandine.toml"))
        .expect("a link");
    repository.commit(&[]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.build_log("one"), "brigandine.toml\nlists\n");
    std::fs::remove_file(repository.path.join("brigandine.toml")).expect("removed");
    repository.commit(&[]);
    assert_eq!(place.one_shot().status.code(), Some(1));
    let told = "SELECT message FROM evaluation ORDER BY id DESC LIMIT 1";
    assert_eq!(place.rows(told), ["brigandine.toml: No such file or directory (os error 2)"]);
    repository.commit(&[("brigandine.toml", &list)]);
    place.good_one_shot();
    std::fs::remove_file(repository.path.join("brigandine.toml")).expect("removed");
    std::os::unix::fs::symlink("/etc/passwd", repository.path.join("brigandine.toml"))
        .expect("a link");
    repository.commit(&[]);
    assert_eq!(place.one_shot().status.code(), Some(1));
    assert_eq!(place.rows(told), ["brigandine.toml: leads out of the repository"]);
}

#[test]
fn only_the_job_list_decides_whether_a_job_list_is_read() {
    let place = Place::new();
    let repository = place.repository("sample");
    // A file that could not be copied from the clone, beside a list that the server does not read itself.
    let large = "x".repeat((16 << 20) + 1);
    let job = "[[job]]\nname = \"one\"\ncommand = \"ls\"\nsources = [\"*.toml\"]\n";
    let padding = format!("# {}\n", "p".repeat(1000));
    let list = |bytes: usize| format!("{}{job}", padding.repeat(bytes / 1000));
    repository.commit(&[("large", &large), ("brigandine.toml", &list(200_000))]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    assert_eq!(place.build_log("one"), "brigandine.toml\n");
    // A list behind links that the tree itself has, and a list that is as large.
    repository.commit(&[("lists/deep/list", &list(17 << 20))]);
    std::fs::remove_file(repository.path.join("brigandine.toml")).expect("removed");
    for (target, link) in [("folder/list", "brigandine.toml"), ("lists/deep", "folder")] {
        std::os::unix::fs::symlink(target, repository.path.join(link)).expect("a link");
    }
    repository.commit(&[]);
    place.good_one_shot();
    let told = "SELECT status, message FROM evaluation ORDER BY id";
    assert_eq!(place.rows(told), ["0|", "0|"]);
    assert_eq!(exports(&place), 0, "nothing was exported for it");
}

/// Makes the server find another `git`: a shell script that runs `first` and then the real git.
fn other_git(place: &Place, command: &mut Command, first: &str) {
    let real = Command::new("sh").args(["-c", "command -v git"]).output().expect("sh").stdout;
    let real = String::from_utf8(real).expect("text");
    let folder = place.path("other-git");
    std::fs::create_dir_all(&folder).expect("a folder");
    let script = format!("#!/bin/sh\n{first}\nexec {} \"$@\"\n", real.trim());
    std::fs::write(folder.join("git"), script).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(folder.join("git"), mode).expect("a mode");
    let path = std::env::var("PATH").expect("a path");
    command.env("PATH", format!("{}:{path}", folder.display()));
}

/// Makes the server find a `git` that notes its arguments in a file and then runs the real git.
fn noted_git(place: &Place, command: &mut Command) -> PathBuf {
    let notes = place.path("git-notes");
    std::fs::write(&notes, "").expect("written");
    other_git(place, command, &format!("echo \"$*\" >> {}", notes.display()));
    notes
}

#[test]
fn a_push_to_a_repository_on_this_machine_is_followed_without_a_fetch_unless_urls_are_rewritten() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("sample", &repository, "")]);
    place.good_one_shot();
    for (number, settings, fetches) in [
        (2, "", 0),
        (3, "[user]\n\tname = Somebody\n[core]\n\tautocrlf = input\n", 0),
        (4, "[url \"https://host.invalid/\"]\n\tinsteadOf = there:\n", 1),
        (5, "[protocol \"file\"]\n\tallow = always\n", 1),
    ] {
        let pushed = repository.jobs(&[("one", &format!("command = \"echo {number}\""))]);
        let global = place.write("gitconfig", settings);
        let mut command = place.command(&["--one-shot"]);
        command.env("GIT_CONFIG_GLOBAL", global).env("GIT_CONFIG_NOSYSTEM", "1");
        let notes = noted_git(&place, &mut command);
        let ended = run(command);
        assert!(ended.status.success(), "{}", ended.stderr);
        let latest = "SELECT revision FROM checkout ORDER BY evaluation_id DESC LIMIT 1";
        assert_eq!(place.rows(latest), [pushed]);
        let noted = std::fs::read_to_string(notes).expect("notes");
        assert!(noted.contains("config"), "the server asked another git: {noted}");
        let fetched = noted.lines().filter(|line| line.contains(" fetch ")).count();
        assert_eq!(fetched, fetches, "with {settings:?}: {noted}");
    }
}

/// If the failure were kept as an empty configuration, every filter of the machine would run from then on.
#[test]
fn a_configuration_of_git_that_could_not_be_read_is_read_again() {
    let place = Place::new();
    let repository = place.repository("sample");
    let list = "[[job]]\nname = \"one\"\nsources = [\"*.txt\"]\ncommand = \"cat a.txt\"\n";
    repository.commit(&[
        ("brigandine.toml", list),
        (".gitattributes", "*.txt filter=forbidden\n"),
        ("a.txt", "plain\n"),
    ]);
    place.specify(&[("sample", &repository, "")]);
    let global =
        place.write("gitconfig", "[filter \"forbidden\"]\n\tsmudge = sed s/^/forbidden/\n");
    let fails = place.write("fails", "");
    let mut command = place.command(&[]);
    command.env("GIT_CONFIG_GLOBAL", global).env("GIT_CONFIG_NOSYSTEM", "1");
    let first =
        format!("case \" $* \" in *' config '*) test -e {} && exit 7;; esac", fails.display());
    other_git(&place, &mut command, &first);
    let server = Process::start(command);
    server.trace("the server runs");
    let messages = || place.rows("SELECT message FROM evaluation WHERE status > 0");
    let messages = until(messages, |messages| !messages.is_empty());
    assert!(messages[0].contains("read the configuration of git"), "{messages:?}");
    std::fs::remove_file(fails).expect("removed");
    repository.commit(&[("b.txt", "")]);
    let evaluated = run(place.tool(&["evaluate", "sample"]));
    assert!(evaluated.status.success(), "{}", evaluated.stderr);
    until(|| place.rows("SELECT status FROM build"), |rows| rows == &["0"]);
    assert_eq!(place.build_log("one"), "plain\n");
    server.signal("TERM");
    assert!(server.end().success());
}
