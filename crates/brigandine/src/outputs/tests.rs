use super::tree::digest;
use super::*;
use rustix::io::Errno;

struct Place {
    directory: tempfile::TempDir,
    outputs: Outputs,
}

fn place(bytes_max: u64) -> Place {
    let directory = tempfile::tempdir().expect("directory");
    let outputs = Outputs::new(directory.path().join("outputs"), bytes_max).expect("outputs");
    Place { directory, outputs }
}

impl Place {
    fn collect(&self, files: &[(&str, &str)], products: &[&str]) -> Kept {
        self.try_collect(files, products).expect("it is kept")
    }

    fn try_collect(&self, files: &[(&str, &str)], products: &[&str]) -> Result<Kept, NotKept> {
        let work = self.directory.path().join("work");
        let _ = fs::remove_dir_all(&work);
        for directory in ["build", "out"] {
            fs::create_dir_all(work.join(directory)).expect("directory");
        }
        for (path, text) in files {
            let path = work.join(path);
            fs::create_dir_all(path.parent().expect("parent")).expect("directory");
            fs::write(path, text).expect("file");
        }
        let products: Vec<String> = products.iter().map(|p| (*p).to_owned()).collect();
        self.outputs.collect(&work.join("build"), &work.join("out"), &products)
    }
}

/// The message about a broken rule.
fn rule(kept: Result<Kept, NotKept>) -> String {
    match kept {
        Err(NotKept::Rule(message)) => message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_damaged_output_is_never_shared() {
    let place = place(1000);
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("other bytes", |root| fs::write(root.join("a"), "evil").expect("written")),
        ("one file more", |root| fs::write(root.join("more"), "evil").expect("written")),
        ("one file less", |root| fs::remove_file(root.join("a")).expect("removed")),
        ("a link", |root| {
            fs::remove_file(root.join("a")).expect("removed");
            std::os::unix::fs::symlink("/etc/passwd", root.join("a")).expect("a link");
        }),
        ("another mode", |root| {
            let mode = fs::Permissions::from_mode(0o555);
            fs::set_permissions(root.join("a"), mode).expect("a mode");
        }),
    ];
    for (what, damage) in damages {
        let one = place.collect(&[("out/a", "x"), ("out/b/c", "y")], &[]);
        let root = place.outputs.path(&one.digest).expect("there");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).expect("a mode");
        let file = fs::Permissions::from_mode(0o644);
        fs::set_permissions(root.join("a"), file).expect("a mode");
        damage(&root);
        let two = place.collect(&[("out/a", "x"), ("out/b/c", "y")], &[]);
        assert_eq!(one.digest, two.digest);
        assert_eq!(fs::read(root.join("a")).expect("read"), b"x", "{what}");
        let digest = digest(&root, 1000).expect("a digest").0;
        assert_eq!(digest, two.digest, "{what}");
    }
    let nothing = place.collect(&[], &[]);
    let root = place.outputs.path(&nothing.digest).expect("there");
    fs::write(root.join("evil"), "evil").expect("written");
    assert_eq!(place.collect(&[], &[]).digest, nothing.digest);
    assert_eq!(fs::read_dir(&root).expect("there").count(), 0);
    fs::remove_dir_all(&root).expect("removed");
    assert_eq!(place.collect(&[], &[]).digest, nothing.digest);
    assert!(root.is_dir());
    let left = fs::read_dir(place.directory.path().join("outputs")).expect("there").count();
    assert_eq!(left, 2, "what was damaged is gone");
}

#[test]
fn the_same_contents_give_the_same_folder() {
    let place = place(1000);
    let one = place.collect(&[("out/a", "x")], &[]);
    let two = place.collect(&[("build/a", "x")], &["a"]);
    let other = place.collect(&[("out/a", "y")], &[]);
    assert_eq!(one.digest, two.digest);
    assert_ne!(one.digest, other.digest);
    let path = place.outputs.path(&one.digest).expect("there");
    assert_eq!(fs::read_to_string(path.join("a")).expect("readable"), "x");
}

#[test]
fn products_are_named_by_patterns_with_size_and_digest() {
    let place = place(1000);
    let kept = place.collect(
        &[("build/dist/a.tar", "aa"), ("build/dist/b.txt", "b"), ("out/dist/c.tar", "c")],
        &["dist/*.tar"],
    );
    let names: Vec<&str> = kept.products.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(names, ["dist/a.tar", "dist/c.tar"]);
    assert_eq!(kept.products[0].bytes, 2);
    assert_eq!(kept.products[0].checksum, hex(&Sha256::digest("aa")));
    let stored = place.directory.path().join(&kept.products[0].path);
    assert_eq!(fs::read_to_string(stored).expect("there"), "aa");
}

#[test]
fn links_lead_nowhere_but_into_the_output() {
    let place = place(1000);
    let outside = place.directory.path().join("outside");
    fs::create_dir(&outside).expect("directory");
    fs::write(outside.join("secret"), "s").expect("file");
    let work = place.directory.path().join("work");
    let collect = |link: &str, products: &[&str]| {
        let _ = fs::remove_dir_all(&work);
        for directory in ["build/dist", "out"] {
            fs::create_dir_all(work.join(directory)).expect("directory");
        }
        fs::write(work.join("build/dist/it"), "x").expect("file");
        let link = work.join(link);
        let _ = fs::remove_dir_all(&link);
        std::os::unix::fs::symlink(&outside, &link).expect("link");
        let products: Vec<String> = products.iter().map(|p| (*p).to_owned()).collect();
        rule(place.outputs.collect(&work.join("build"), &work.join("out"), &products))
    };
    let replaced = collect("build", &["**"]);
    assert_eq!(replaced, "it replaced its own directory by something else");
    let diverted = collect("out/dist", &["dist/it"]);
    assert!(diverted.contains("has no place in its output"), "{diverted}");
    let hidden = collect("build/more", &["more/secret"]);
    assert_eq!(
        hidden,
        "product pattern `more/secret` matches no file: `more` is a link, and links to directories are not followed"
    );
    assert_eq!(fs::read_dir(&outside).expect("there").count(), 1, "nothing came or went");
}

#[test]
fn an_error_of_a_file_names_it_as_the_build_knows_it() {
    let place = place(1000);
    // The folders are nested deeper than a path can be long, so a removal by path would fail.
    let mut folder = fs::File::open(place.directory.path()).expect("a folder");
    for name in ["work", "out"].into_iter().chain([&*"d".repeat(250); 20]) {
        let mode = rustix::fs::Mode::RWXU;
        match rustix::fs::mkdirat(&folder, name, mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => panic!("{error}"),
        }
        let flags = rustix::fs::OFlags::DIRECTORY;
        folder = rustix::fs::openat(&folder, name, flags, mode).expect("opened").into();
    }
    let work = place.directory.path().join("work");
    fs::create_dir(work.join("build")).expect("a directory");
    let message = match place.outputs.collect(&work.join("build"), &work.join("out"), &[]) {
        Err(NotKept::Io(error)) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(message.starts_with("`out/dddd"), "{message}");
    assert!(message.len() < 1_000, "it is cut: {} bytes", message.len());
    assert!(message.contains("too long"), "{message}");
}

#[test]
fn a_missing_product_and_too_large_an_output_are_refused() {
    let place = place(3);
    let missing = rule(place.try_collect(&[("build/x", "1")], &["dist/*"]));
    assert_eq!(missing, "product pattern `dist/*` matches no file");
    let large = rule(place.try_collect(&[("out/x", "12345")], &[]));
    assert_eq!(large, "its output has more than 3 bytes");
    assert_eq!(place.collect(&[], &[]).digest, hex(&Sha256::digest([])));
}

#[test]
fn names_that_are_taken_keep_nothing_from_being_stored_or_removed() {
    let place = place(1000);
    let beside = |name: &str| place.directory.path().join("outputs").join(name);
    let take = |path: &Path| fs::create_dir_all(path.join("left")).expect("a folder");
    // The hold is dropped.
    let digest = place.collect(&[("out/a", "x")], &[]).digest;
    let root = place.outputs.path(&digest).expect("there");
    // What an earlier server of the same process id has left.
    for number in 0..20 {
        for kind in ASIDE {
            take(&beside(&format!("{kind}{}-{number}", std::process::id())));
        }
    }
    fs::set_permissions(root.join("a"), fs::Permissions::from_mode(0o644)).expect("a mode");
    fs::write(root.join("a"), "evil").expect("written");
    assert_eq!(place.collect(&[("out/a", "x")], &[]).digest, digest);
    assert_eq!(fs::read(root.join("a")).expect("read"), b"x");
    // What an earlier removal of the same output has left, a folder or a file.
    let gone = beside(&format!("gone-{digest}"));
    for left in [take as fn(&Path), |path| fs::write(path, "x").expect("a file")] {
        place.collect(&[("out/a", "x")], &[]);
        left(&gone);
        let removal = place.outputs.begin_removal(&digest).expect("at rest");
        let moved = removal.finish().expect("moved");
        assert!(!root.exists() && moved.contains(&gone), "{moved:?}");
        moved.iter().for_each(|folder| remove_all(folder).expect("removed"));
    }
    place.collect(&[("out/a", "x")], &[]);
    let removal = place.outputs.begin_removal(&digest).expect("at rest");
    assert_eq!(removal.finish().expect("moved"), std::slice::from_ref(&gone));
    // A removal that was not finished is finished by the next one.
    let removal = place.outputs.begin_removal(&digest).expect("at rest");
    assert!(removal.finish().expect("gone already").contains(&gone));
}

#[test]
fn a_build_may_give_its_hard_links_any_names() {
    let place = place(1000);
    let work = place.directory.path().join("work");
    for directory in ["build", "out"] {
        fs::create_dir_all(work.join(directory)).expect("directory");
    }
    let long = "l".repeat(255);
    let names = ["one", "one.brigandine-copy", &long];
    for name in names {
        fs::write(work.join("build").join(name), name).expect("a file");
        fs::hard_link(work.join("build").join(name), work.join("out").join(name)).expect("a link");
    }
    let kept = place.outputs.collect(&work.join("build"), &work.join("out"), &[]).expect("kept");
    let root = place.outputs.path(&kept.digest).expect("there");
    assert_eq!(fs::read_dir(&root).expect("there").count(), names.len());
    for name in names {
        assert_eq!(fs::read_to_string(root.join(name)).expect("read"), name);
    }
}
