//! Damage to the server's clones: whatever file is damaged, the next look works.

use crate::support::{Place, Process, Repository, run, until};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

type Damage = fn(&Path);

/// What can happen to a file.
const DAMAGES: [(&str, Damage); 5] = [
    ("empty", |file| fs::write(file, "").expect("written")),
    ("half", |file| {
        let bytes = fs::read(file).expect("read");
        fs::write(file, &bytes[..bytes.len() / 2]).expect("written");
    }),
    ("garbage", |file| {
        let bytes = fs::read(file).expect("read");
        // Every byte changes, by another value than the bytes beside it. The length stays the same.
        let garbage = bytes.iter().enumerate().map(|(place, byte)| byte ^ (place % 255 + 1) as u8);
        fs::write(file, garbage.collect::<Vec<u8>>()).expect("written");
    }),
    ("removed", |file| fs::remove_file(file).expect("removed")),
    ("a folder", |file| {
        fs::remove_file(file).expect("removed");
        fs::create_dir(file).expect("a folder");
        fs::write(file.join("inside"), "text").expect("written");
    }),
];

/// A repository, and the server's clone of it, which has files of every kind.
struct Clone {
    place: Place,
    repository: Repository,
    clone: PathBuf,
    pushes: u32,
}

impl Clone {
    fn new() -> Self {
        let place = Place::new();
        let repository = place.repository("sample");
        // The file is so long that the loss of half of a pack matters.
        let long: String =
            (0..4000_u32).map(|n| format!("{:x} ", n.wrapping_mul(2_654_435_769))).collect();
        repository.commit(&[("long", &long), ("deep/er/file", "old\n")]);
        let mut this = Self { clone: PathBuf::new(), place, repository, pushes: 0 };
        this.push();
        this.place.specify(&[("sample", &this.repository, "")]);
        this.place.good_one_shot();
        let clones = fs::read_dir(this.place.state().join("repositories")).expect("clones");
        let clones: Vec<PathBuf> = clones.flatten().map(|entry| entry.path()).collect();
        let [clone] = clones.as_slice() else { panic!("{clones:?}") };
        this.clone.clone_from(clone);
        this.git(&["pack-refs", "--all"]);
        this.git(&["commit-graph", "write", "--reachable"]);
        this.git(&["multi-pack-index", "write"]);
        // Adds loose objects and references to the packed ones.
        this.push();
        this.place.good_one_shot();
        this
    }

    fn git(&self, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.arg("--git-dir").arg(&self.clone).args(arguments);
        let done = command.output().expect("git");
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).trim().to_owned()
    }

    fn push(&mut self) {
        self.pushes += 1;
        let list = format!(
            "[[job]]\nname = \"one\"\ncommand = \"wc -c < long; cat deep/er/file; echo {}\"\n",
            self.pushes
        );
        self.repository.commit(&[("brigandine.toml", &list)]);
    }

    /// Checks that the newest build succeeded and saw all files.
    fn check(&self, case: &str) {
        let newest = "SELECT status, log_path FROM build ORDER BY id DESC LIMIT 1";
        let rows = self.place.rows(newest);
        let (status, log) = rows[0].split_once('|').expect("two columns");
        assert_eq!(status, "0", "{case}");
        let long = fs::metadata(self.repository.path.join("long")).expect("a file").len();
        let expected = format!("{long}\nold\n{}\n", self.pushes);
        assert_eq!(self.place.stored_log(log), expected, "{case}");
    }

    /// Pushes, and waits until a running server has built the revision.
    fn evaluate(&mut self, case: &str) {
        self.push();
        let done = run(self.place.tool(&["evaluate", "sample"]));
        assert!(done.status.success(), "{case}: {}\n{}", done.stdout, done.stderr);
        let builds = "SELECT count(*) FROM build WHERE status < 0";
        until(|| self.place.rows(builds), |rows| rows == &["0"]);
        self.check(case);
    }

    /// All files of the clone.
    fn files(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut open = vec![self.clone.clone()];
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder).expect("a folder").flatten() {
                if entry.file_type().expect("a kind").is_dir() {
                    open.push(entry.path());
                } else {
                    files.push(entry.path());
                }
            }
        }
        files.sort_unstable();
        files
    }

    /// Damages each file that `wanted` accepts in each way of [`DAMAGES`], one after the other, and pushes each time.
    fn try_all(&mut self, wanted: impl Fn(&str) -> bool, least: usize) {
        let saved = self.place.path("saved");
        copy(&self.clone, &saved);
        let files = self.files();
        let names = files.iter().map(|file| file.strip_prefix(&self.clone).expect("below"));
        let names: Vec<PathBuf> =
            names.filter(|name| wanted(&name.to_string_lossy())).map(Path::to_owned).collect();
        assert!(names.len() >= least, "{names:?} of {files:?}");
        for name in names {
            for (what, damage) in DAMAGES {
                let case = format!("{} {what}", name.display());
                fs::remove_dir_all(&self.clone).expect("removed");
                copy(&saved, &self.clone);
                let file = self.clone.join(&name);
                fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
                damage(&file);
                self.push();
                let ended = self.place.one_shot();
                assert!(ended.status.success(), "{case}: {}\n{}", ended.stdout, ended.stderr);
                self.check(&case);
            }
        }
    }
}

fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp");
    assert!(done.success());
}

#[test]
fn a_clone_with_a_damaged_pack_or_index_is_made_again() {
    Clone::new().try_all(|name| name.starts_with("objects/pack/"), 3);
}

#[test]
fn a_clone_with_damaged_loose_objects_is_made_again() {
    let loose = |name: &str| name.starts_with("objects/") && name.len() == 49;
    Clone::new().try_all(loose, 3);
}

#[test]
fn a_clone_with_damaged_references_is_made_again() {
    let wanted =
        |name: &str| name.starts_with("refs/") || matches!(name, "HEAD" | "packed-refs" | "config");
    Clone::new().try_all(wanted, 4);
}

#[test]
fn a_clone_with_damaged_lists_is_made_again() {
    let mut clone = Clone::new();
    fs::write(clone.clone.join("shallow"), "").expect("written");
    fs::write(clone.clone.join("description"), "what git has for people").expect("written");
    let wanted =
        |name: &str| name.starts_with("objects/info/") || matches!(name, "shallow" | "description");
    clone.try_all(wanted, 3);
}

#[test]
fn a_clone_whose_folders_are_files_or_gone_is_made_again() {
    let mut clone = Clone::new();
    let saved = clone.place.path("saved");
    copy(&clone.clone, &saved);
    for folder in ["", "objects", "objects/pack", "objects/info", "refs", "refs/brigandine"] {
        for becomes in [None, Some(""), Some("text")] {
            let _ = fs::remove_dir_all(&clone.clone);
            copy(&saved, &clone.clone);
            let path = clone.clone.join(folder);
            fs::remove_dir_all(&path).expect("removed");
            if let Some(text) = becomes {
                fs::write(clone.clone.join(folder).components().as_path(), text).expect("written");
            }
            let case = format!("{folder} {becomes:?}");
            clone.push();
            let ended = clone.place.one_shot();
            assert!(ended.status.success(), "{case}: {}\n{}", ended.stdout, ended.stderr);
            clone.check(&case);
        }
    }
}

/// As long as a lock file that a killed git left is there, git changes nothing in the clone.
#[test]
fn locks_that_a_killed_git_left_are_removed() {
    let mut clone = Clone::new();
    let tip = clone.git(&["for-each-ref", "--format=%(refname)", "refs/brigandine/tips"]);
    let locks = [
        "index.lock",
        "shallow.lock",
        "packed-refs.lock",
        "config.lock",
        "HEAD.lock",
        "gc.pid",
        "gc.pid.lock",
        "objects/maintenance.lock",
        "objects/info/commit-graph.lock",
        "objects/pack/multi-pack-index.lock",
        "objects/pack/tmp_pack_abcdef",
        &format!("{tip}.lock"),
    ];
    for lock in locks {
        fs::write(clone.clone.join(lock), "").expect(lock);
    }
    clone.push();
    clone.place.good_one_shot();
    clone.check("locks");
    for lock in locks {
        assert!(!clone.clone.join(lock).exists(), "{lock}");
    }
    let revision = clone.repository.git(&["rev-parse", "HEAD"]);
    assert_eq!(clone.git(&["rev-parse", &tip]), revision, "it is the same clone");
}

/// If a process reads a mapped file beyond its end, the kernel kills the process.
#[test]
fn a_server_outlives_the_damage_of_files_that_it_has_open() {
    for ending in [".pack", ".idx"] {
        for (what, damage) in DAMAGES {
            let case = format!("{ending} {what}");
            let mut clone = Clone::new();
            // The job's objects must be in a pack, so that a reader reads them from there.
            clone.git(&["gc", "--quiet", "--prune=now"]);
            let server = Process::start(clone.place.command(&[]));
            server.trace("the server runs");
            clone.evaluate(&format!("before {case}"));
            let of_kind = |file: &PathBuf| file.to_string_lossy().ends_with(ending);
            for file in clone.files().into_iter().filter(of_kind) {
                fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
                damage(&file);
            }
            clone.evaluate(&case);
            server.signal("TERM");
            assert!(server.end().success(), "{case}");
        }
    }
}

/// A new clone of a damaged repository would be damaged too, so a clone at each look would be useless work.
#[test]
fn a_repository_that_is_damaged_itself_is_told_and_not_cloned_at_each_look() {
    let place = Place::new();
    let repository = place.repository("sample");
    repository.jobs(&[("one", "command = \"true\"")]);
    let whole = repository.git(&["rev-parse", "HEAD:brigandine.toml"]);
    place.specify(&[("sample", &repository, "")]);
    let (folder, name) = whole.split_at(2);
    let object = repository.path.join(".git/objects").join(folder).join(name);
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).expect("a mode");
    fs::write(&object, "").expect("written");
    let server = Process::start(place.command(&[]));
    server.trace("cannot fetch the inputs");
    let told = until(|| place.rows("SELECT look_error FROM specification"), |rows| rows != &[""]);
    let told = &told[0];
    assert!(told.contains(&whole) || told.contains("upload-pack"), "{told}");
    for _ in 0..3 {
        assert!(!run(place.tool(&["evaluate", "sample"])).status.success());
    }
    let left: Vec<_> = fs::read_dir(place.state().join("repositories")).expect("clones").collect();
    assert_eq!(left.len(), 1, "{left:?}");
    server.signal("TERM");
    assert!(server.end().success());
}

#[test]
fn a_new_clone_keeps_the_revisions_that_only_the_old_one_had() {
    let mut clone = Clone::new();
    let lost = clone.repository.git(&["rev-parse", "HEAD"]);
    clone.repository.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    clone.push();
    clone.repository.git(&["reflog", "expire", "--expire=now", "--all"]);
    clone.repository.git(&["gc", "--quiet", "--prune=now"]);
    clone.place.good_one_shot();
    let inode = |path: &Path| fs::metadata(path).expect("it is there").ino();
    let before = inode(&clone.clone);
    fs::write(clone.clone.join("config"), "not a configuration").expect("written");
    clone.push();
    clone.place.good_one_shot();
    clone.check("after the damage");
    assert_ne!(before, inode(&clone.clone), "it is a new clone");
    assert_eq!(clone.git(&["cat-file", "-t", &format!("{lost}^{{tree}}")]), "tree");
}
