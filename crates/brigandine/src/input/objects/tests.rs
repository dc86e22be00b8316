use super::super::tree::Entry;
use super::*;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

struct Fixture {
    directory: tempfile::TempDir,
    clone: Repository,
}

/// A repository `source` with one revision, and a clone of it made by git.
fn fixture() -> Fixture {
    let directory = tempfile::tempdir().expect("a directory");
    git(directory.path(), &["init", "-q", "--initial-branch=main", "source"]);
    git(directory.path(), &["init", "-q", "--bare", "--template=", "clone"]);
    let clone = Repository::open_bare(directory.path().join("clone")).expect("a clone");
    let fixture = Fixture { directory, clone };
    fixture.commit(&[("a/b/one", "1"), ("two", "2")]);
    fixture
}

fn git(directory: &Path, arguments: &[&str]) -> String {
    let done = Command::new("git")
        .arg("-C")
        .arg(directory)
        .args(["-c", "user.name=A", "-c", "user.email=a@b", "-c", "commit.gpgSign=false"])
        .args(arguments)
        .output()
        .expect("git");
    assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

impl Fixture {
    fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    fn commit(&self, files: &[(&str, &str)]) -> String {
        for (path, text) in files {
            let path = self.source().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            std::fs::write(path, text).expect("a file");
        }
        git(&self.source(), &["add", "--all"]);
        git(&self.source(), &["commit", "-q", "--allow-empty", "--message=a change\n\nmore"]);
        git(&self.source(), &["rev-parse", "HEAD"])
    }

    fn fetch(&self) {
        let source = self.source().to_string_lossy().into_owned();
        let clone = self.directory.path().join("clone");
        git(&clone, &["fetch", "-q", &source, "+refs/heads/main:refs/brigandine/heads/main"]);
    }

    fn follow_until(&self, deadline: Instant) -> Result<bool, ObjectError> {
        let local = "refs/brigandine/heads/main";
        follow(&self.source(), &self.clone, "refs/heads/main", local, deadline)
    }

    fn follow(&self) -> bool {
        let deadline = Instant::now() + Duration::from_secs(100);
        self.follow_until(deadline).expect("followed")
    }

    /// Checks with git itself that nothing is missing below the clone's references, and that `main` is at `revision`.
    fn check(&self, revision: &str) {
        let clone = self.directory.path().join("clone");
        git(&clone, &["fsck", "--full", "--strict"]);
        let here = git(&clone, &["rev-parse", "refs/brigandine/heads/main"]);
        assert_eq!(here, revision);
    }
}

#[test]
fn a_branch_is_followed_over_merges_removals_and_force_pushes() {
    let fixture = fixture();
    assert!(!fixture.follow(), "nothing is here yet: git's own program is better at that");
    fixture.fetch();
    assert!(fixture.follow(), "nothing is new");
    let source = fixture.source();
    let old = fixture.commit(&[("a/b/three", "3")]);
    git(&source, &["checkout", "-q", "-b", "side", "HEAD~1"]);
    fixture.commit(&[("side", "s")]);
    git(&source, &["checkout", "-q", "main"]);
    git(&source, &["merge", "-q", "--no-edit", "side"]);
    git(&source, &["rm", "-q", "two"]);
    let merged = fixture.commit(&[]);
    assert!(fixture.follow());
    fixture.check(&merged);
    git(&source, &["reset", "-q", "--hard", &old]);
    let forced = fixture.commit(&[("forced", "f")]);
    assert!(fixture.follow());
    fixture.check(&forced);
    let found = resolve(&fixture.clone, "refs/brigandine/heads/main").expect("resolved");
    assert_eq!((found.revision, found.subject.as_str()), (forced.clone(), "a change"));
    let listing = list(&fixture.clone, &forced, FILES_MAX).expect("listed");
    let entries = Entry::parse(&listing, b"x/", FILES_MAX).expect("entries");
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path).collect();
    paths.sort_unstable();
    let paths: Vec<_> = paths.iter().map(|path| String::from_utf8_lossy(path)).collect();
    assert_eq!(paths, ["x/a/b/one", "x/a/b/three", "x/forced", "x/two"]);
}

#[test]
fn what_is_too_much_or_too_late_is_left_to_git() {
    let fixture = fixture();
    fixture.fetch();
    let before = git(&fixture.source(), &["rev-parse", "HEAD"]);
    let late = fixture.commit(&[("late", "l")]);
    assert!(!fixture.follow_until(Instant::now()).expect("no error"), "it is too late");
    fixture.check(&before);
    assert!(fixture.follow());
    fixture.check(&late);
    let names: Vec<String> = (0..=OBJECTS_MAX).map(|number| format!("many/{number}")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (&**name, &**name)).collect();
    let many = fixture.commit(&files);
    assert!(!fixture.follow());
    fixture.check(&late);
    fixture.fetch();
    fixture.check(&many);
}

#[test]
fn a_repository_that_is_not_whole_is_an_error_and_changes_nothing() {
    let fixture = fixture();
    fixture.fetch();
    let before = git(&fixture.source(), &["rev-parse", "HEAD"]);
    fixture.commit(&[("lost", "to be removed")]);
    let lost = git(&fixture.source(), &["rev-parse", "HEAD:lost"]);
    let (folder, rest) = lost.split_at(2);
    std::fs::remove_file(fixture.source().join(".git/objects").join(folder).join(rest))
        .expect("a loose object");
    let deadline = Instant::now() + Duration::from_secs(100);
    assert!(fixture.follow_until(deadline).is_err());
    fixture.check(&before);
}

#[test]
fn pins_are_kept_listed_and_let_go() {
    let fixture = fixture();
    fixture.fetch();
    let revision = git(&fixture.source(), &["rev-parse", "HEAD"]);
    pin(&fixture.clone, &revision).expect("pinned");
    pin(&fixture.clone, &revision).expect("pinned again");
    let names = || String::from_utf8(references(&fixture.clone).expect("listed")).expect("text");
    assert!(names().contains(&pin_name(&revision)), "{}", names());
    remove_references(&fixture.clone, &[pin_name(&revision)]).expect("let go");
    assert_eq!(names(), "refs/brigandine/heads/main\n");
}

#[test]
fn files_are_read_up_to_a_size_and_as_many_as_fit() {
    let fixture = fixture();
    fixture.fetch();
    let object = |path: &str| git(&fixture.source(), &["rev-parse", &format!("HEAD:{path}")]);
    let objects = [object("a/b/one"), object("two")];
    let read = |bytes_max, most| {
        contents(&read(&fixture.clone, &objects, bytes_max, most).expect("read")).expect("whole")
    };
    assert_eq!(read(1, 100), [Some(b"1".to_vec()), Some(b"2".to_vec())]);
    assert_eq!(read(1, 1), [Some(b"1".to_vec())]);
    assert_eq!(read(0, 100), [None, None]);
    assert_eq!(contents(&[1, 9, 0, 0, 0, 0, 0, 0, 0, 7]), None, "it is cut");
}
