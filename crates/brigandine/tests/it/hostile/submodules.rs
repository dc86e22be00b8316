//! Addresses in `.gitmodules`, and other contents of a repository that could mislead git.

use crate::support::{Place, Repository, run};
use std::fs;
use std::os::unix::fs::symlink;

/// A repository with a submodule `stolen` at the address that an attacker chose.
fn thief(place: &Place, name: &str, address: &str, revision: &str) -> Repository {
    let repository = place.repository(name);
    let modules = format!("[submodule \"stolen\"]\n\tpath = stolen\n\turl = {address}\n");
    let list = "[[job]]\nname = \"one\"\ncommand = \"cat stolen/secret\"\n";
    repository.commit(&[(".gitmodules", &modules), ("brigandine.toml", list)]);
    let entry = format!("160000,{revision},stolen");
    repository.git(&["update-index", "--add", "--cacheinfo", &entry]);
    repository.git(&["commit", "--quiet", "--message=a submodule"]);
    repository
}

#[test]
fn no_submodule_is_taken_from_another_specifications_clone() {
    let place = Place::new();
    let secret = place.repository("secret");
    secret.commit(&[("secret", "the secret\n")]);
    let revision =
        secret.jobs(&[("one", "command = \"cat secret\""), ("keep", "command = \"true\"")]);
    place.specify(&[("private", &secret, "")]);
    place.good_one_shot();
    let clones = fs::read_dir(place.state().join("repositories")).expect("clones");
    let clone = clones.flatten().next().expect("a clone").path();
    // From now on only the server's clone has the secret.
    fs::rename(&secret.path, place.path("moved")).expect("moved");
    symlink(place.state(), place.path("link")).expect("a link");
    fs::create_dir(place.path("folder")).expect("a folder");
    symlink(&clone, place.path("folder/clone")).expect("a link");
    let (clone, name) = (clone.display(), clone.file_name().expect("a name").to_string_lossy());
    let trap = place.path("trap");
    let addresses = [
        secret.path.display().to_string(),
        format!("file://{}", secret.path.display()),
        "../secret".to_owned(),
        clone.to_string(),
        format!("{clone}/"),
        format!("file://{clone}"),
        format!("file://localhost{clone}"),
        format!("file:{clone}"),
        format!("../state/repositories/{name}"),
        format!("./../state/./repositories//{name}"),
        format!("../link/repositories/{name}"),
        "../folder/clone".to_owned(),
        format!("{}/repositories/{name}", place.path("link").display()),
        format!("file://{}", clone.to_string().replace("state", "st%61te")),
        format!("ext::git upload-pack {clone}"),
        format!("ext::sh -c touch% {}", trap.display()),
        format!("fd::17,18{clone}"),
        format!("-c core.sshCommand=touch% {}:x", trap.display()),
        format!("--upload-pack=touch {}", trap.display()),
        format!("ssh://-oProxyCommand=touch% {}/x", trap.display()),
        "ssh://localhost/secret".to_owned(),
        "git@localhost:secret".to_owned(),
    ];
    let thieves: Vec<(String, Repository)> = addresses
        .iter()
        .enumerate()
        .map(|(number, address)| {
            let name = format!("thief-{number}");
            let repository = thief(&place, &name, address, &revision);
            (name, repository)
        })
        .collect();
    let specifications: Vec<(&str, &Repository, &str)> = thieves
        .iter()
        .map(|(name, repository)| (name.as_str(), repository, "submodules = true"))
        .collect();
    place.specify(&specifications);
    let home = place.path("home");
    fs::create_dir(&home).expect("a folder");
    // The configuration of this user allows more protocols than git does by default.
    fs::write(home.join(".gitconfig"), "[protocol]\n\tallow = always\n[safe]\n\tdirectory = *\n")
        .expect("written");
    let mut command = place.command(&["--one-shot"]);
    command.env("HOME", home).env("GIT_ALLOW_PROTOCOL", "ext:fd:file:ssh:https");
    let ended = run(command);
    assert_eq!(ended.status.code(), Some(1), "{}", ended.stderr);
    for (number, address) in addresses.iter().enumerate() {
        let row = place.rows(&format!(
            "SELECT e.status, e.message FROM evaluation AS e
             JOIN specification AS s ON s.id = e.specification_id WHERE s.name = 'thief-{number}'"
        ));
        assert!(row[0].starts_with("1|input `source`: "), "{address}: {row:?}");
    }
    assert_eq!(place.rows("SELECT count(*) FROM build"), ["2"], "the private ones and no others");
    assert!(!trap.exists(), "a program of the repository's choice was run");
}

#[test]
fn an_input_is_never_in_the_state_directory() {
    let place = Place::new();
    let secret = place.repository("secret");
    secret.jobs(&[("one", "command = \"true\"")]);
    place.specify(&[("private", &secret, "")]);
    place.good_one_shot();
    let clones = fs::read_dir(place.state().join("repositories")).expect("clones");
    let clone = clones.flatten().next().expect("a clone").path();
    symlink(&clone, place.path("link")).expect("a link");
    let addresses = [
        clone.display().to_string(),
        format!("file://{}", clone.display()),
        format!("file://{}", clone.display().to_string().replace("state", "%73tate")),
        place.path("link").display().to_string(),
    ];
    for (number, address) in addresses.iter().enumerate() {
        place.write(
            "specifications.toml",
            &format!(
                "[[specification]]\nname = \"thief-{number}\"\n[[specification.input]]\n\
                 url = \"{address}\"\nbranch = \"main\"\n"
            ),
        );
        assert_eq!(place.one_shot().status.code(), Some(1), "{address}");
        let told = format!("SELECT look_error FROM specification WHERE name = 'thief-{number}'");
        let told = place.rows(&told).remove(0);
        assert!(told.contains("the server's state directory"), "{address}: {told}");
    }
}

#[test]
fn nothing_of_a_repository_says_where_its_large_files_are_or_what_git_runs() {
    let place = Place::new();
    let repository = place.repository("sample");
    let (trap, seen) = (place.path("trap"), place.path("seen"));
    let hook = format!("#!/bin/sh\ntouch {}\n", trap.display());
    repository.commit(&[
        (".gitattributes", "*.dat filter=lfs\n*.txt filter=evil\n"),
        (".lfsconfig", "[lfs]\n\turl = https://evil.example/lfs\n[remote \"origin\"]\n\tlfsurl = https://evil.example\n"),
        (".gitconfig", &format!("[core]\n\tfsmonitor = {}\n[filter \"evil\"]\n\tsmudge = touch {}\n", trap.display(), trap.display())),
        ("hooks/post-checkout", &hook),
        (".git-hooks/post-checkout", &hook),
        ("file.txt", "text\n"),
        ("large.dat", "pointer\n"),
        ("brigandine.toml", "[[job]]\nname = \"one\"\ncommand = \"cat file.txt large.dat\"\n"),
    ]);
    place.specify(&[("sample", &repository, "")]);
    let home = place.path("home");
    fs::create_dir(&home).expect("a folder");
    // The filter prints the address from which git-lfs would fetch files. As in git-lfs, git's configuration takes
    // precedence over `.lfsconfig`.
    let smudge = format!("git config --get lfs.url | tee {}; cat", seen.display());
    let text = format!(
        "[filter \"lfs\"]\n\tsmudge = \"{smudge}\"\n[filter \"other\"]\n\tsmudge = touch {}\n\
         [core]\n\tfsmonitor = touch {}\n\thooksPath = {}\n[safe]\n\tdirectory = *\n",
        trap.display(),
        trap.display(),
        repository.path.join("hooks").display()
    );
    fs::write(home.join(".gitconfig"), text).expect("written");
    let mut command = place.command(&["--one-shot"]);
    command.env("HOME", &home);
    let ended = run(command);
    assert!(ended.status.success(), "{}", ended.stderr);
    let url = format!("file://{}", repository.path.display());
    assert_eq!(fs::read_to_string(seen).expect("the filter ran").trim(), url);
    assert_eq!(place.build_log("one"), format!("text\n{url}\npointer\n"));
    assert!(!trap.exists(), "a program of the repository's choice was run");
}
