//! Repositories of every form that git makes: what git can check out is built, and for everything else the server says
//! what to do.

use super::{newest_log, refusal};
use crate::command::serve::{address, text};
use crate::support::{Place, Process, Repository, run, until};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

/// Writes a specification. `url` is the address of its input, and `reference` has further lines of the input.
fn specify(place: &Place, url: &str, reference: &str) {
    place.write(
        "specifications.toml",
        &format!(
            "[[specification]]\nname = \"sample\"\n[[specification.input]]\nname = \"source\"\n\
             url = \"{url}\"\n{reference}\n"
        ),
    );
}

fn list(command: &str) -> String {
    format!("[[job]]\nname = \"one\"\ncommand = '''\n{command}\n'''\n")
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    Repository { path: directory.to_owned() }.git(arguments)
}

#[test]
fn a_branch_that_becomes_a_folder_of_branches_and_back_is_followed() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[("brigandine.toml", &list("echo main"))]);
    let moves = [("x", "release"), ("release", "release/1.0"), ("release/1.0", "release")];
    for (number, (old, new)) in moves.into_iter().enumerate() {
        for scheme in ["", "file://"] {
            if !repository.git(&["branch", "--list", old]).is_empty() {
                repository.git(&["branch", "--move", old, "aside"]);
                repository.git(&["pack-refs", "--all"]);
                repository.git(&["branch", "--move", "aside", new]);
            } else if repository.git(&["branch", "--list", new]).is_empty() {
                repository.git(&["branch", new]);
            }
            repository.git(&["checkout", "--quiet", new]);
            let text = format!("echo {number} {new} {scheme}x");
            repository.commit(&[("brigandine.toml", &list(&text))]);
            let url = format!("{scheme}{}", repository.path.display());
            specify(&place, &url, &format!("branch = \"{new}\""));
            place.good_one_shot();
            assert_eq!(newest_log(&place), format!("{number} {new} {scheme}x\n"));
        }
    }
}

#[test]
fn branches_that_were_deleted_and_made_again_and_tags_that_moved_are_followed() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.commit(&[("brigandine.toml", &list("echo main"))]);
    let url = repository.path.display().to_string();
    for number in 0..3 {
        repository.git(&["checkout", "--quiet", "--orphan", "topic"]);
        repository.commit(&[("brigandine.toml", &list(&format!("echo topic {number}")))]);
        specify(&place, &url, "branch = \"topic\"");
        place.good_one_shot();
        assert_eq!(newest_log(&place), format!("topic {number}\n"));
        repository.git(&["checkout", "--quiet", "main"]);
        repository.git(&["branch", "-D", "topic"]);
        assert!(
            refusal(&place)
                .contains("has no branch topic; was it renamed or removed? There are: main")
        );
        repository.commit(&[("brigandine.toml", &list(&format!("echo tag {number}")))]);
        repository.git(&["tag", "--force", "--annotate", "--message=it", "v1"]);
        specify(&place, &url, "tag = \"v1\"");
        place.good_one_shot();
        assert_eq!(newest_log(&place), format!("tag {number}\n"));
    }
}

#[test]
fn every_form_in_which_git_keeps_a_repository_is_built() {
    let place = Place::new();
    let origin = place.repository("origin");
    origin.commit(&[("brigandine.toml", &list("cat text")), ("text", "first\n")]);
    origin.commit(&[("text", "second\n")]);
    let root = place.path("");
    let path = |name: &str| place.path(name).display().to_string();
    let from = |arguments: &[&str]| {
        git(&root, &[&["clone", "--quiet"], arguments].concat());
    };
    from(&["--bare", "origin", "bare.git"]);
    from(&["--shared", "origin", "shared"]);
    from(&["--bare", "--reference", "bare.git", "origin", "alternate.git"]);
    from(&["--separate-git-dir", "apart.git", "origin", "apart"]);
    from(&["--depth=1", &format!("file://{}", path("origin")), "shallow"]);
    from(&["--bare", "--depth=1", &format!("file://{}", path("origin")), "shallow.git"]);
    from(&["--bare", "--mirror", "origin", "mirror.git"]);
    from(&["origin", "packed"]);
    git(&place.path("packed"), &["gc", "--quiet"]);
    from(&["--sparse", "origin", "sparse"]);
    origin.git(&["worktree", "add", "--quiet", "-b", "main-2", &path("worktree")]);
    git(&place.path("worktree"), &["branch", "--force", "main-3"]);
    origin.git(&["bundle", "create", "--quiet", &path("bundle"), "main"]);
    std::os::unix::fs::symlink(place.path("bare.git"), place.path("link.git")).expect("a link");
    let mut forms = vec![
        path("bare.git"),
        path("bare"),
        path("shared"),
        path("alternate.git"),
        path("apart"),
        path("apart.git"),
        path("shallow"),
        path("shallow.git"),
        path("mirror.git"),
        path("packed"),
        path("packed/.git"),
        path("sparse"),
        path("worktree"),
        path("bundle"),
        path("link.git"),
        path("bare.git") + "/",
    ];
    let reftable =
        ["init", "--quiet", "--ref-format=reftable", "--initial-branch=main", "reftable"];
    let done = Command::new("git").arg("-C").arg(&root).args(reftable).output().expect("git");
    // git knows this form since version 2.45.
    if done.status.success() {
        git(&place.path("reftable"), &["pull", "--quiet", &path("origin"), "main"]);
        forms.push(path("reftable"));
    }
    // git reads a bundle only by its path, not by a `file://` URL.
    let bundle = format!("file://{}", path("bundle"));
    let schemes = forms.iter().flat_map(|form| [form.clone(), format!("file://{form}")]);
    let schemes = schemes.filter(|url| *url != bundle);
    for (number, url) in schemes.enumerate() {
        // Each form gets a new job, so that no earlier build is reused.
        place.write(
            "specifications.toml",
            &format!(
                "[[specification]]\nname = \"sample-{number}\"\n[[specification.job]]\nname = \"one\"\n\
                 command = \"cat text; echo {number}\"\n[[specification.input]]\nname = \"source\"\n\
                 url = \"{url}\"\nbranch = \"main\"\n"
            ),
        );
        let ended = place.one_shot();
        assert!(ended.status.success(), "{url}: {}\n{}", ended.stdout, ended.stderr);
        assert_eq!(newest_log(&place), format!("second\n{number}\n"), "{url}");
    }
}

#[test]
fn shallow_repositories_are_followed_as_they_are_pushed_to_and_deepened() {
    let place = Place::new();
    let origin = place.repository("origin");
    for number in 0..4 {
        origin.commit(&[("brigandine.toml", &list(&format!("echo {number}")))]);
    }
    let url = format!("file://{}", origin.path.display());
    git(&place.path(""), &["clone", "--quiet", "--depth=2", &url, "shallow"]);
    let shallow = Repository { path: place.path("shallow") };
    for scheme in ["", "file://"] {
        specify(&place, &format!("{scheme}{}", shallow.path.display()), "branch = \"main\"");
        for step in ["", "push", "deepen", "push", "new tip", "unshallow", "push"] {
            match step {
                "push" => {}
                "deepen" => drop(shallow.git(&["fetch", "--quiet", "--deepen=1"])),
                "new tip" => {
                    origin.commit(&[("brigandine.toml", &list("echo far"))]);
                    origin.commit(&[("other", scheme)]);
                    shallow.git(&["fetch", "--quiet", "--depth=1", "origin", "main"]);
                    shallow.git(&["reset", "--quiet", "--hard", "FETCH_HEAD"]);
                }
                "unshallow" if shallow.path.join(".git/shallow").exists() => {
                    drop(shallow.git(&["fetch", "--quiet", "--unshallow"]));
                }
                _ => {}
            }
            let text = format!("echo {scheme} {step} done");
            shallow.commit(&[("brigandine.toml", &list(&text))]);
            let ended = place.one_shot();
            assert!(ended.status.success(), "{scheme} {step}: {}\n{}", ended.stdout, ended.stderr);
        }
    }
}

#[test]
fn a_repository_with_sha256_is_built_with_its_tags_submodules_and_pushes() {
    let place = Place::new();
    let make = |name: &str| {
        let path = place.path(name);
        fs::create_dir_all(&path).expect("a folder");
        git(&path, &["init", "--quiet", "--initial-branch=main", "--object-format=sha256"]);
        Repository { path }
    };
    let (library, repository) = (make("library"), make("sample"));
    library.commit(&[("value", "from the library\n")]);
    let url = library.path.display().to_string();
    repository.git(&["submodule", "--quiet", "add", &url, "library"]);
    let first = repository.commit(&[
        (
            "brigandine.toml",
            &list("cat deep/note library/value | tr -d '\\r'; ls -l run | cut -c1-10"),
        ),
        ("deep/note", "one\n"),
        (".gitattributes", "note text eol=crlf\n"),
        ("run", ""),
    ]);
    assert_eq!(first.len(), 64);
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(repository.path.join("run"), mode).expect("a mode");
    repository.git(&["commit", "--quiet", "--all", "--message=mode"]);
    repository.git(&["tag", "--annotate", "--message=one", "v1"]);
    let url = repository.path.display();
    let with = "submodules = true\n";
    for (form, reference, note) in [
        ("", "branch = \"main\"", "one"),
        ("file://", "branch = \"main\"", "two"),
        ("", "tag = \"v1\"", "one"),
        ("", "", "two"),
    ] {
        if note == "two" && reference.starts_with("branch") {
            repository.commit(&[("deep/note", "two\n")]);
        }
        specify(&place, &format!("{form}{url}"), &format!("{with}{reference}"));
        place.good_one_shot();
        if !(reference.is_empty() || reference.starts_with("tag")) {
            assert_eq!(newest_log(&place), format!("{note}\nfrom the library\n-rwxr-xr-x\n"));
        }
    }
    let subject = place.rows("SELECT DISTINCT subject, author FROM checkout ORDER BY 1");
    assert_eq!(subject, ["a change|Sample", "mode|Sample"], "{subject:?}");
    // A repository without attributes and submodules. Builds take its files from the clone one by one.
    let plain = make("plain");
    let revision =
        plain.commit(&[("brigandine.toml", &list("cat a b")), ("a", "1\n"), ("b", "2\n")]);
    specify(&place, &plain.path.display().to_string(), &format!("revision = \"{revision}\""));
    place.good_one_shot();
    assert_eq!(newest_log(&place), "1\n2\n");
}

#[test]
fn what_cannot_be_built_is_told_in_words_that_say_what_to_do() {
    let place = Place::new();
    let repository = place.repository("sample");
    let url = repository.path.display().to_string();
    for scheme in ["", "file://"] {
        specify(&place, &format!("{scheme}{url}"), "branch = \"main\"");
        let told = refusal(&place);
        assert!(told.contains("has no branch main; it is empty: push a revision"), "{told}");
        specify(&place, &format!("{scheme}{url}"), "");
        let told = refusal(&place);
        assert!(told.contains("has no HEAD; it is empty: push a revision"), "{told}");
    }
    repository.commit(&[("file", "text")]);
    repository.git(&["tag", "tree", "HEAD^{tree}"]);
    repository.git(&["tag", "--annotate", "--message=it", "blob", "HEAD:file"]);
    for (reference, kind) in [("tree", "tree"), ("blob", "blob")] {
        specify(&place, &url, &format!("tag = \"{reference}\""));
        let told = refusal(&place);
        let expected = format!("what it names is a {kind} and no revision");
        assert!(told.contains(&expected), "{told}");
        let clones = fs::read_dir(place.state().join("repositories")).expect("clones").count();
        // One clone for each of the two spellings of the address.
        assert_eq!(clones, 2);
    }
    let tree = repository.git(&["rev-parse", "HEAD^{tree}"]);
    specify(&place, &url, &format!("revision = \"{tree}\""));
    let told = refusal(&place);
    assert!(told.contains("what it names is a tree and no revision"), "{told}");
    specify(&place, &url, "branch = \"main\"");
    let told = refusal(&place);
    assert!(told.contains("brigandine.toml: No such file or directory"), "{told}");
    repository.git(&["symbolic-ref", "HEAD", "refs/heads/nothing"]);
    specify(&place, &url, "");
    let told = refusal(&place);
    assert!(
        told.contains("its HEAD is on a branch that is not there: name a `branch` There are: main"),
        "{told}"
    );
    let gone = "1".repeat(40);
    specify(&place, &url, &format!("revision = \"{gone}\""));
    let told = refusal(&place);
    assert!(told.contains(&format!("has no revision {gone}")), "{told}");
}

#[test]
fn a_partial_clone_is_built_or_it_is_told_what_to_name_instead() {
    let place = Place::new();
    let origin = place.repository("origin");
    origin.commit(&[("brigandine.toml", &list("cat text")), ("text", "first\n")]);
    origin.commit(&[("text", "second\n")]);
    origin.git(&["config", "uploadpack.allowFilter", "true"]);
    let from = format!("file://{}", origin.path.display());
    let clone = ["clone", "--quiet", "--bare", "--filter=blob:none", &from, "partial.git"];
    git(&place.path(""), &clone);
    for scheme in ["", "file://"] {
        let url = format!("{scheme}{}", place.path("partial.git").display());
        specify(&place, &url, "branch = \"main\"");
        let told = refusal(&place);
        assert!(told.contains("partial clone"), "{told}");
        assert!(told.contains(&from), "{told}");
    }
}

#[test]
fn file_names_of_any_bytes_are_checked_out_selected_and_shown() {
    let place = Place::new();
    let repository = place.repository("sample");
    let names: [&[u8]; 7] = [
        b"caf\xe9.txt",
        b"dir\xff/\xfe",
        b"with\nnewline",
        b"with\ttab\"quote",
        b" blank ",
        b"-rf",
        "naïve".as_bytes(),
    ];
    for name in names {
        let path = repository.path.join(OsStr::from_bytes(name));
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        fs::write(path, "text\n").expect("written");
    }
    let long = "l".repeat(255);
    fs::write(repository.path.join(&long), "text\n").expect("written");
    std::os::unix::fs::symlink(OsStr::from_bytes(b"caf\xe9.txt"), repository.path.join("link"))
        .expect("a link");
    let all = "cat -- * dir*/* link 2>/dev/null | grep -c text; cp caf* with* $BRIGANDINE_OUT";
    let jobs = format!(
        "[[job]]\nname = \"all\"\ncommand = \"{all}\"\nsources = [\"*\"]\n\
         [[job]]\nname = \"some\"\ncommand = \"ls -b\"\nproducts = [\"caf*\"]\n\
         sources = [\"caf?.txt\", \"with*\", \"dir[!x]\"]\n"
    );
    for attributes in [false, true] {
        if attributes {
            repository.commit(&[(".gitattributes", "*.none text\n")]);
        }
        repository.commit(&[("brigandine.toml", &format!("# {attributes}\n{jobs}"))]);
        place.specify(&[("sample", &repository, "")]);
        place.good_one_shot();
        let log =
            place.rows("SELECT log_path FROM build WHERE job = 'all' ORDER BY id DESC LIMIT 1");
        // There is a line for each name except the folder's, one for the long name, one for the file in the folder, and
        // one for the link.
        let folder_and_link = 2;
        let plain = names.len() - 1 + 1;
        assert!(
            place.stored_log(&log[0]).trim().parse::<usize>().expect("a number")
                >= plain + folder_and_link
        );
        let log =
            place.rows("SELECT log_path FROM build WHERE job = 'some' ORDER BY id DESC LIMIT 1");
        assert_eq!(
            place.stored_log(&log[0]),
            "caf\\351.txt\ndir\\377\nwith\\ttab\"quote\nwith\\nnewline\n"
        );
    }
}

#[test]
fn a_name_that_no_file_can_have_is_told() {
    let place = Place::new();
    let repository = place.repository("sample");
    let blob = repository.commit(&[("brigandine.toml", &list("true")), ("a", "text")]);
    let object = repository.git(&["rev-parse", &format!("{blob}:a")]);
    let name = "n".repeat(256);
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("100644,{object},{name}")]);
    repository.git(&["commit", "--quiet", "--message=long"]);
    place.specify(&[("sample", &repository, "")]);
    let told = refusal(&place);
    assert!(told.contains("no file here can have a name as long as that of `nnn"), "{told}");
}

#[test]
fn gitlinks_without_a_submodule_are_empty_folders() {
    let place = Place::new();
    let (library, other) = (place.repository("library"), place.repository("other"));
    let revision = library.commit(&[("value", "from the library\n")]);
    other.commit(&[("value", "from the other\n")]);
    let repository = place.repository("sample");
    let url = library.path.display().to_string();
    repository.git(&["submodule", "--quiet", "add", &url, "third/library"]);
    repository.git(&[
        "submodule",
        "--quiet",
        "add",
        &other.path.display().to_string(),
        "third/off",
    ]);
    let modules = fs::read_to_string(repository.path.join(".gitmodules")).expect("a file");
    let modules = modules
        .replace("path = third/library", "path = ./third//library/")
        .replace("path = third/off", "path = third/off\n\tupdate = none");
    repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{revision},stray")]);
    fs::create_dir(repository.path.join("stray")).expect("a folder");
    repository.git(&["commit", "--quiet", "--message=links"]);
    fs::write(repository.path.join(".gitmodules"), &modules).expect("written");
    let text = list("cat third/library/value; find stray third/off");
    fs::write(repository.path.join("brigandine.toml"), text).expect("written");
    repository.git(&["add", ".gitmodules", "brigandine.toml"]);
    repository.git(&["commit", "--quiet", "--message=spelt otherwise"]);
    place.specify(&[("sample", &repository, "submodules = true")]);
    place.good_one_shot();
    assert_eq!(newest_log(&place), "from the library\nstray\nthird/off\n");
    // Without a `.gitmodules` the submodule is an empty folder as well.
    repository.git(&["rm", "--quiet", "--cached", ".gitmodules"]);
    let text = list("find stray third | sort");
    fs::write(repository.path.join("brigandine.toml"), text).expect("written");
    repository.git(&["add", "brigandine.toml"]);
    repository.git(&["commit", "--quiet", "--message=none"]);
    place.good_one_shot();
    assert_eq!(newest_log(&place), "stray\nthird\nthird/library\nthird/off\n");
    // A submodule that `.gitmodules` names without an address is a mistake.
    repository.commit(&[(".gitmodules", "[submodule \"x\"]\n\tpath = stray\n")]);
    assert!(refusal(&place).contains("`.gitmodules` has no `url` for `stray`"));
}

/// A repository that stores `*.bin` with git-lfs.
fn large(place: &Place, contents: &str) -> Repository {
    let repository = place.repository("sample");
    repository.git(&["lfs", "install", "--local"]);
    repository.commit(&[(".gitattributes", "*.bin filter=lfs diff=lfs merge=lfs -text\n")]);
    repository.commit(&[("a.bin", contents), ("brigandine.toml", &list("cat a.bin"))]);
    let pointer = repository.git(&["show", "HEAD:a.bin"]);
    assert!(pointer.starts_with("version https://git-lfs"), "{pointer}");
    repository
}

#[test]
fn large_files_are_checked_out_with_their_contents() {
    let place = Place::new();
    let repository = large(&place, "large\n");
    git(&place.path(""), &["clone", "--quiet", "--bare", "sample", "bare.git"]);
    let bare = place.path("bare.git").display().to_string();
    repository.git(&["lfs", "push", "--all", &format!("file://{bare}")]);
    let path = repository.path.display().to_string();
    let urls = [
        path.clone(),
        format!("file://{path}"),
        format!("{path}/.git"),
        bare.clone(),
        format!("file://{bare}"),
    ];
    for (number, url) in urls.iter().enumerate() {
        for settings in
            ["", "[filter \"lfs\"]\n\tprocess = git-lfs filter-process\n\trequired = true\n"]
        {
            let global = place.write("gitconfig", settings);
            let name = format!("sample-{number}-{}", settings.len());
            place.write(
                "specifications.toml",
                &format!(
                    "[[specification]]\nname = \"{name}\"\n[[specification.input]]\nname = \"source\"\n\
                     url = \"{url}\"\nbranch = \"main\"\n"
                ),
            );
            let mut command = place.command(&["--one-shot"]);
            command.env("GIT_CONFIG_GLOBAL", global).env("GIT_CONFIG_NOSYSTEM", "1");
            let ended = run(command);
            assert!(ended.status.success(), "{url}: {}\n{}", ended.stdout, ended.stderr);
            assert_eq!(newest_log(&place), "large\n", "{url}");
        }
    }
}

#[test]
fn a_large_file_that_is_lost_is_an_error_with_its_name() {
    let place = Place::new();
    let repository = large(&place, "lost\n");
    fs::remove_dir_all(repository.path.join(".git/lfs/objects")).expect("removed");
    place.specify(&[("sample", &repository, "")]);
    let told = refusal(&place);
    assert!(told.contains("a.bin"), "{told}");
    assert!(told.contains("missing"), "{told}");
    let clones = fs::read_dir(place.state().join("repositories")).expect("clones").count();
    assert_eq!(clones, 1, "nothing is wrong with the clone");
    let logs = Command::new("find").arg(place.state()).args(["-path", "*lfs/logs*"]).output();
    assert_eq!(String::from_utf8_lossy(&logs.expect("find").stdout), "");
    // The next look searches for the file again, because people may push it later.
    let objects = repository.path.join(".git/lfs/objects");
    let stored = repository.git(&["show", "HEAD:a.bin"]);
    let digest = stored.split("sha256:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let digest = digest.expect(&stored);
    let folder = objects.join(&digest[..2]).join(&digest[2..4]);
    fs::create_dir_all(&folder).expect("folders");
    fs::copy(repository.path.join("a.bin"), folder.join(digest)).expect("put back");
    place.good_one_shot();
    assert_eq!(place.rows("SELECT id, status FROM evaluation"), ["1|0"]);
}

#[test]
fn without_git_lfs_it_is_told_what_to_install() {
    let place = Place::new();
    let repository = large(&place, "large\n");
    place.specify(&[("sample", &repository, "")]);
    // A search path with every program except git-lfs.
    let folder = place.path("programs");
    fs::create_dir(&folder).expect("a folder");
    for directory in std::env::split_paths(&std::env::var_os("PATH").expect("a path")) {
        for program in fs::read_dir(directory).into_iter().flatten().flatten() {
            if program.file_name() != "git-lfs" {
                let _ =
                    std::os::unix::fs::symlink(program.path(), folder.join(program.file_name()));
            }
        }
    }
    let mut command = place.command(&["--one-shot"]);
    command.env("PATH", &folder).env("GIT_EXEC_PATH", git(&place.path(""), &["--exec-path"]));
    let ended = run(command);
    assert_eq!(ended.status.code(), Some(1));
    let told = place.rows("SELECT message FROM evaluation").remove(0);
    assert!(told.contains("install git-lfs where the server runs"), "{told}");
    // The other remedy is to build with git-lfs's pointers instead of the files.
    place.write("config.toml", "git-filters = []\n");
    repository.commit(&[("brigandine.toml", &list("head -c 24 a.bin"))]);
    let mut command = place.command(&["--one-shot"]);
    command.env("PATH", &folder);
    assert!(run(command).status.success());
    assert_eq!(newest_log(&place), "version https://git-lfs.");
}

/// Lists the kind, mode and contents of every file, except git's own.
const LISTING: &str = "find . -name .git -prune -o ! -type d -print | LC_ALL=C sort | while read -r f; do \
     test -L $f && echo link $(readlink $f) || (stat -c %a $f; sha256sum < $f); echo $f; done";

#[test]
fn files_are_what_a_checkout_by_git_makes_of_them_whatever_attributes_say() {
    let place = Place::new();
    let repository = place.repository("sample");
    let attributes = "* text=auto\n*.bat eol=crlf\n*.sh eol=lf\n*.ident ident\n*.bin -text\n\
        *.utf16 text working-tree-encoding=UTF-16LE-BOM eol=crlf\n[attr]windows text eol=crlf\n\
        *.win windows\nhidden/** export-ignore\n*.subst export-subst\n*.gone filter=unknown\n\
        *.merged merge=union -diff\n";
    for (name, text) in [
        ("a.bat", "one\ntwo\n"),
        ("a.sh", "one\ntwo\n"),
        ("a.ident", "$Id$\n"),
        ("a.bin", "one\r\ntwo\n"),
        ("mixed.txt", "one\r\ntwo\n"),
        ("a.win", "one\n"),
        ("hidden/file", "still there\n"),
        ("a.subst", "$Format:%H$\n"),
        ("a.gone", "as it is\n"),
        ("a.merged", "one\n"),
        ("deep/.gitattributes", "*.txt eol=crlf\n*.sh -text\n"),
        ("deep/b.txt", "one\n"),
        ("deep/b.sh", "one\n"),
        ("empty", ""),
    ] {
        repository.commit(&[(name, text)]);
    }
    let utf16: Vec<u8> = "\u{feff}one\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    fs::write(repository.path.join("a.utf16"), utf16).expect("written");
    std::os::unix::fs::symlink("deep/b.txt", repository.path.join("link")).expect("a link");
    std::os::unix::fs::symlink("nowhere", repository.path.join("broken")).expect("a link");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(repository.path.join("a.sh"), mode).expect("a mode");
    for attributes in ["", attributes] {
        let list = list(&format!("set +e\n{LISTING}"));
        repository.commit(&[(".gitattributes", attributes), ("brigandine.toml", &list)]);
        place.specify(&[("sample", &repository, "")]);
        // The configuration of the machine must not affect the files.
        let global = place.write("gitconfig", "[core]\n\tautocrlf = true\n\teol = crlf\n");
        let mut command = place.command(&["--one-shot"]);
        command.env("GIT_CONFIG_GLOBAL", global).env("GIT_CONFIG_NOSYSTEM", "1");
        let ended = run(command);
        assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
        let _ = fs::remove_dir_all(place.path("checkout"));
        git(&place.path(""), &["clone", "--quiet", "sample", "checkout"]);
        let mut command = Command::new("sh");
        command.args(["-c", LISTING]).current_dir(place.path("checkout"));
        let listing = command.output().expect("sh").stdout;
        assert_eq!(newest_log(&place), String::from_utf8_lossy(&listing));
    }
}

#[test]
fn a_submodule_that_cannot_be_fetched_is_fetched_by_a_later_look() {
    let place = Place::new();
    let below = place.repository("below");
    let first = below.commit(&[("text", "first\n")]);
    let repository = place.repository("sample");
    let modules =
        format!("[submodule \"below\"]\n\tpath = below\n\turl = {}\n", below.path.display());
    let list = "[[job]]\nname = \"one\"\ncommand = \"cat below/text\"\n";
    let push = |revision: &str| {
        for (name, text) in [(".gitmodules", &*modules), ("brigandine.toml", list)] {
            fs::write(repository.path.join(name), text).expect("written");
            repository.git(&["add", name]);
        }
        let entry = format!("160000,{revision},below");
        repository.git(&["update-index", "--add", "--cacheinfo", &entry]);
        repository.git(&["commit", "--quiet", "--message=a submodule"]);
    };
    push(&first);
    place.specify(&[("sample", &repository, "submodules = true")]);
    let away = place.path("away");
    fs::rename(&below.path, &away).expect("moved");
    let server = Process::start(place.command(&["--interval", "1s"]));
    let address = address(&server);
    let page = until(|| text(&address, "/jobset/sample"), |page| page.contains("times in a row"));
    assert!(page.contains("The last look at the inputs failed"), "{page}");
    assert!(page.contains("evaluation failed"), "{page}");
    fs::rename(&away, &below.path).expect("moved back");
    until(|| place.jobs(1), |jobs| jobs == &["one|0"]);
    until(|| text(&address, "/jobset/sample"), |page| !page.contains("look at the inputs failed"));
    // The submodule's revision is pushed only after the revision that names it.
    let elsewhere = place.path("elsewhere");
    let (from, to) = (below.path.to_str().expect("text"), elsewhere.to_str().expect("text"));
    below.git(&["clone", "--quiet", from, to]);
    let elsewhere = place.repository_of("elsewhere");
    push(&elsewhere.commit(&[("text", "second\n")]));
    until(
        || text(&address, "/jobset/sample"),
        |page| page.contains("#2") && page.contains("look at the inputs failed"),
    );
    below.git(&["pull", "--quiet", to, "main"]);
    until(|| place.jobs(2), |jobs| jobs == &["one|0"]);
    assert_eq!(place.rows("SELECT count(*) FROM evaluation"), ["2"]);
    server.signal("TERM");
    assert!(server.end().success());
}
