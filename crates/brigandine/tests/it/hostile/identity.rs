//! Each case changes one thing in a repository or a specification. A server that built the earlier state must then show
//! the same results as a server that has built nothing yet.

use crate::support::{Place, Repository, run};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// Prints everything that a build sees: files with their modes and contents, links, outputs, variables.
const LOOK: &str = r#"
{ find . | LC_ALL=C sort | while read -r it; do
    if [ -L "$it" ]; then echo "link $it $(readlink "$it")"
    elif [ -d "$it" ]; then echo "folder $it"
    else echo "file $it $(stat -c %a "$it") $(sha256sum < "$it")"; fi
  done
  for root in "$BRIGANDINE_INPUTS" "$BRIGANDINE_NEEDS"; do
    if [ -d "$root" ]; then (cd "$root"; find -L . -type f -exec sha256sum {} + | LC_ALL=C sort); fi
  done
  env | grep -E '^(BRIGANDINE_NAME|BRIGANDINE_SYSTEM|CI|LANG|TZ|X_)' | LC_ALL=C sort
} > $BRIGANDINE_OUT/it
"#;

/// The text of one specification, in parts that a case can change.
#[derive(Clone)]
struct Said {
    input: BTreeMap<&'static str, String>,
    job: BTreeMap<&'static str, String>,
    /// Text of the specification before its job (`inputs`) and after its job (`jobs`).
    inputs: String,
    jobs: String,
}

impl Said {
    fn new(url: &Path, other: &Path) -> Self {
        let text = |text: &str| serde_json::Value::from(text).to_string();
        let input = [
            ("name", text("source")),
            ("url", text(&url.to_string_lossy())),
            ("branch", text("main")),
        ];
        let job = [
            ("name", text("one")),
            ("command", text(LOOK)),
            ("sources", text("[]").replace("\"[]\"", "[\"seen\", \"other:**\"]")),
            ("needs", "{ x = \"base\" }".to_owned()),
            ("env", "{ X_ONE = \"1\" }".to_owned()),
        ];
        Self {
            input: input.into(),
            job: job.into(),
            inputs: format!(
                "[[specification.input]]\nname = \"other\"\nurl = {}\nbranch = \"main\"\n",
                text(&other.to_string_lossy())
            ),
            jobs: "[[specification.job]]\nname = \"base\"\ncommand = \"echo base > $BRIGANDINE_OUT/base\"\n\
                   sources = [\"none\"]\n"
                .to_owned(),
        }
    }

    fn text(&self, name: &str) -> String {
        let keys = |keys: &BTreeMap<&str, String>| -> String {
            keys.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
        };
        format!(
            "[[specification]]\nname = \"{name}\"\n[[specification.input]]\n{}{}[[specification.job]]\n{}{}",
            keys(&self.input),
            self.inputs,
            keys(&self.job),
            self.jobs
        )
    }
}

/// A specification with repositories of its own, and the change that the case makes.
struct Case {
    name: &'static str,
    repository: Repository,
    other: Repository,
    library: Repository,
    said: Said,
    change: Change,
    /// Whether the change is visible to the build.
    visible: bool,
}

type Change = fn(&Tools<'_>, &mut Said);

/// What a change may use.
struct Tools<'a> {
    repository: &'a Repository,
    other: &'a Repository,
    library: &'a Repository,
}

impl Tools<'_> {
    fn write(&self, path: &str, text: &str) {
        let path = self.repository.path.join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
        let _ = fs::remove_file(&path);
        fs::write(path, text).expect("a file");
    }

    fn mode(&self, path: &str, mode: u32) {
        let mode = fs::Permissions::from_mode(mode);
        fs::set_permissions(self.repository.path.join(path), mode).expect("a mode");
    }

    fn rename(&self, from: &str, to: &str) {
        let (from, to) = (self.repository.path.join(from), self.repository.path.join(to));
        fs::create_dir_all(to.parent().expect("a parent")).expect("a folder");
        fs::rename(from, to).expect("renamed");
    }

    fn remove(&self, path: &str) {
        let path = self.repository.path.join(path);
        fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path)).expect("removed");
    }

    fn link(&self, target: &str, path: &str) {
        let path = self.repository.path.join(path);
        let _ = fs::remove_file(&path);
        symlink(target, path).expect("a link");
    }
}

/// Fills the repository with which every case begins.
fn fill(repository: &Repository, library: &Repository) {
    library.commit(&[("value.txt", "library\n"), ("deep/more.txt", "$Id$\n")]);
    let url = library.path.display().to_string();
    repository.git(&["submodule", "--quiet", "add", "--name", "library", &url, "seen/library"]);
    repository.commit(&[
        ("none", ""),
        ("unseen/file.txt", "unseen\n"),
        ("seen/a.txt", "a\nb\n"),
        ("seen/id.txt", "$Id$\n"),
        ("seen/data.bin", "1\n2\n"),
        ("seen/folder/b.txt", "b\nc\n"),
        ("seen/folder/deep/c.txt", "c\nd\n"),
        ("seen/run", "#!/bin/sh\n"),
    ]);
    symlink("a.txt", repository.path.join("seen/link")).expect("a link");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(repository.path.join("seen/run"), mode).expect("a mode");
    repository.commit(&[]);
}

/// A change that the build sees.
const fn seen(name: &'static str, change: Change) -> (&'static str, bool, Change) {
    (name, true, change)
}

/// A change that the build does not see. It may still cause another build, whose results are then the same.
const fn unseen(name: &'static str, change: Change) -> (&'static str, bool, Change) {
    (name, false, change)
}

const FILES: &[(&str, bool, Change)] = &[
    seen("content", |t, _| t.write("seen/a.txt", "a\nB\n")),
    seen("content-longer", |t, _| t.write("seen/a.txt", "a\nb\nc\n")),
    seen("content-without-its-last-line-end", |t, _| t.write("seen/a.txt", "a\nb")),
    seen("content-of-carriage-returns", |t, _| t.write("seen/a.txt", "a\r\nb\r\n")),
    seen("content-none", |t, _| t.write("seen/a.txt", "")),
    seen("content-in-a-folder", |t, _| t.write("seen/folder/b.txt", "B\n")),
    seen("content-deep", |t, _| t.write("seen/folder/deep/c.txt", "C\n")),
    seen("contents-swapped", |t, _| {
        t.write("seen/a.txt", "b\nc\n");
        t.write("seen/folder/b.txt", "a\nb\n");
    }),
    seen("mode-executable", |t, _| t.mode("seen/a.txt", 0o755)),
    seen("mode-plain", |t, _| t.mode("seen/run", 0o644)),
    seen("kind-link", |t, _| t.link("run", "seen/a.txt")),
    seen("kind-file", |t, _| t.write("seen/link", "a.txt")),
    seen("kind-folder", |t, _| {
        t.remove("seen/a.txt");
        t.write("seen/a.txt/a", "a\nb\n");
    }),
    seen("kind-file-of-a-folder", |t, _| {
        t.remove("seen/folder");
        t.write("seen/folder", "b\nc\n");
    }),
    seen("link-elsewhere", |t, _| t.link("run", "seen/link")),
    seen("link-dangling", |t, _| t.link("nothing", "seen/link")),
    seen("name", |t, _| t.rename("seen/a.txt", "seen/b.txt")),
    seen("name-with-a-blank", |t, _| t.rename("seen/a.txt", "seen/a b.txt")),
    seen("name-of-another-script", |t, _| t.rename("seen/a.txt", "seen/ä.txt")),
    seen("name-in-capitals", |t, _| t.rename("seen/a.txt", "seen/A.txt")),
    seen("name-of-a-folder", |t, _| t.rename("seen/folder", "seen/other")),
    seen("name-in-another-folder", |t, _| t.rename("seen/a.txt", "seen/folder/a.txt")),
    seen("names-swapped", |t, _| {
        t.rename("seen/a.txt", "seen/x");
        t.rename("seen/data.bin", "seen/a.txt");
        t.rename("seen/x", "seen/data.bin");
    }),
    seen("one-more", |t, _| t.write("seen/more.txt", "more\n")),
    seen("one-more-and-empty", |t, _| t.write("seen/more.txt", "")),
    seen("one-less", |t, _| t.remove("seen/a.txt")),
    unseen("a-file-it-does-not-read", |t, _| t.write("unseen/file.txt", "other\n")),
];

const ATTRIBUTES: &[(&str, bool, Change)] = &[
    seen("attributes-in-the-root", |t, _| t.write(".gitattributes", "*.txt text eol=crlf\n")),
    seen("attributes-in-the-folder", |t, _| {
        t.write("seen/.gitattributes", "*.txt text eol=crlf\n");
    }),
    seen("attributes-in-a-folder-below", |t, _| {
        t.write("seen/folder/.gitattributes", "*.txt text eol=crlf\n");
    }),
    seen("attributes-of-a-path", |t, _| {
        t.write(".gitattributes", "/seen/folder/deep/c.txt text eol=crlf\n");
    }),
    unseen("attributes-of-the-pusher-alone", |t, _| {
        let info = t.repository.path.join(".git/info");
        fs::create_dir_all(&info).expect("a folder");
        fs::write(info.join("attributes"), "*.txt text eol=crlf\n").expect("written");
    }),
    unseen("attributes-of-another-folder", |t, _| {
        t.write("unseen/.gitattributes", "*.txt text eol=crlf\n");
    }),
    unseen("attributes-that-change-nothing", |t, _| t.write(".gitattributes", "*.c diff=cpp\n")),
    seen("attribute-ident", |t, _| t.write(".gitattributes", "*.txt ident\n")),
    seen("attribute-encoding", |t, _| {
        t.write(".gitattributes", "a.txt text working-tree-encoding=UTF-16LE\n");
    }),
    seen("attribute-macro", |t, _| {
        t.write(".gitattributes", "[attr]dos text eol=crlf\n*.txt dos\n");
    }),
    seen("attribute-auto", |t, _| t.write(".gitattributes", "* text=auto eol=crlf\n")),
    unseen("attribute-unset-below", |t, _| {
        t.write(".gitattributes", "*.txt text eol=crlf\n");
        t.write("seen/.gitattributes", "*.txt -text\n");
        t.remove("seen/.gitattributes");
        t.write(".gitattributes", "*.txt -text\n");
    }),
    seen("attribute-filter-that-may-run", |t, _| t.write(".gitattributes", "*.txt filter=up\n")),
    seen("attribute-filter-of-lfs", |t, _| t.write(".gitattributes", "*.txt filter=lfs\n")),
    unseen("attribute-filter-that-may-not-run", |t, _| {
        t.write(".gitattributes", "*.txt filter=forbidden\n");
    }),
    unseen("attribute-filter-that-is-unknown", |t, _| {
        t.write(".gitattributes", "*.txt filter=unknown\n");
    }),
    unseen("lfs-configuration", |t, _| t.write(".lfsconfig", "[lfs]\nfetchexclude = *\n")),
];

const SUBMODULES: &[(&str, bool, Change)] = &[
    unseen("submodule-newer-but-not-asked-for", |t, _| pull(t, &[("value.txt", "newer\n")])),
    seen("submodule-asked-for", |_, said| with_submodules(said)),
    seen("submodule-newer", |t, said| {
        with_submodules(said);
        pull(t, &[("value.txt", "newer\n")]);
    }),
    seen("submodule-with-attributes", |t, said| {
        with_submodules(said);
        pull(t, &[(".gitattributes", "*.txt text eol=crlf\n")]);
    }),
    seen("submodule-with-attributes-in-a-folder", |t, said| {
        with_submodules(said);
        pull(t, &[("deep/.gitattributes", "*.txt ident\n")]);
    }),
    seen("submodule-below-attributes", |t, said| {
        with_submodules(said);
        t.write(".gitattributes", "*.txt text eol=crlf\n");
    }),
    seen("submodule-at-another-place", |t, said| {
        with_submodules(said);
        t.repository.git(&["mv", "seen/library", "seen/elsewhere"]);
    }),
    seen("submodule-gone", |t, _| {
        t.repository.git(&["rm", "--quiet", "--force", "seen/library"]);
    }),
];

const KEYS: &[(&str, bool, Change)] = &[
    seen("key-name", |_, said| said.set("name", "\"two\"")),
    seen("key-command", |_, said| {
        let command = serde_json::Value::from(format!("{LOOK}\necho more >> $BRIGANDINE_OUT/it"));
        said.set("command", &command.to_string());
    }),
    seen("key-command-as-a-list", |_, said| {
        said.set("command", "[\"/bin/sh\", \"-c\", \"echo $0 > $BRIGANDINE_OUT/it\", \"zero\"]");
    }),
    seen("key-command-with-another-argument", |_, said| {
        said.set("command", "[\"/bin/sh\", \"-c\", \"echo $0 > $BRIGANDINE_OUT/it\", \"one\"]");
    }),
    seen("key-sources-less", |_, said| said.set("sources", "[\"seen/folder\", \"other:**\"]")),
    seen("key-sources-more", |_, said| said.set("sources", "[\"seen\", \"unseen\", \"other:**\"]")),
    seen("key-sources-all", |_, said| drop(said.job.remove("sources"))),
    seen("key-sources-of-one-input", |_, said| said.set("sources", "[\"seen\"]")),
    unseen("key-sources-in-other-words", |_, said| {
        said.set("sources", "[\"other:**\", \"seen/**\", \"seen/a.txt\"]");
    }),
    seen("key-needs-none", |_, said| drop(said.job.remove("needs"))),
    seen("key-needs-by-another-name", |_, said| said.set("needs", "{ y = \"base\" }")),
    seen("key-needs-by-two-names", |_, said| said.set("needs", "{ x = \"base\", y = \"base\" }")),
    seen("key-needs-something-else", |_, said| {
        said.jobs = said.jobs.replace("echo base", "echo other");
    }),
    seen("key-env-value", |_, said| said.set("env", "{ X_ONE = \"2\" }")),
    seen("key-env-name", |_, said| said.set("env", "{ X_TWO = \"1\" }")),
    seen("key-env-more", |_, said| said.set("env", "{ X_ONE = \"1\", X_TWO = \"\" }")),
    seen("key-env-none", |_, said| drop(said.job.remove("env"))),
    seen("key-products", |_, said| said.set("products", "[\"seen/a.txt\"]")),
    seen("key-products-others", |_, said| said.set("products", "[\"seen/**\"]")),
    unseen("key-timeout", |_, said| said.set("timeout", "\"50m\"")),
    unseen("key-max-silent", |_, said| said.set("max-silent", "\"40m\"")),
    unseen("key-priority", |_, said| said.set("priority", "7")),
    unseen("key-description", |_, said| said.set("description", "\"another\"")),
    seen("input-other-content", |t, _| drop(t.other.commit(&[("data.txt", "newer\n")]))),
    seen("input-other-attributes", |t, _| {
        t.other.commit(&[(".gitattributes", "*.txt text eol=crlf\n")]);
    }),
    seen("input-other-name", |_, said| {
        said.inputs = said.inputs.replace("name = \"other\"", "name = \"another\"");
        said.set("sources", "[\"seen\", \"another:**\"]");
    }),
    seen("input-branch", |t, said| {
        t.repository.git(&["checkout", "--quiet", "-b", "side"]);
        t.write("seen/a.txt", "side\n");
        said.input.insert("branch", "\"side\"".to_owned());
    }),
    seen("input-of-other-jobs", |t, said| {
        // The two repositories change places: the other one becomes the main input.
        let (source, other) = (t.repository.path.display(), t.other.path.display());
        said.input.insert("name", "\"other\"".to_owned());
        said.input.insert("url", format!("\"{other}\""));
        said.inputs = format!(
            "[[specification.input]]\nname = \"source\"\nurl = \"{source}\"\nbranch = \"main\"\n"
        );
        said.set("sources", "[\"source:seen\", \"data.txt\"]");
        said.jobs = said.jobs.replace("[\"none\"]", "[\"data.txt\"]");
    }),
];

impl Said {
    fn set(&mut self, key: &'static str, value: &str) {
        self.job.insert(key, value.to_owned());
    }
}

fn with_submodules(said: &mut Said) {
    said.input.insert("submodules", "true".to_owned());
}

/// Commits in the library, and lets the submodule in the repository name that revision.
fn pull(tools: &Tools<'_>, files: &[(&str, &str)]) {
    let revision = tools.library.commit(files);
    let library = Repository { path: tools.repository.path.join("seen/library") };
    library.git(&["fetch", "--quiet", "origin"]);
    library.git(&["checkout", "--quiet", &revision]);
}

/// The last evaluation of each specification, by name: its jobs with their statuses and outputs.
fn results(place: &Place) -> BTreeMap<String, Vec<String>> {
    let rows = place.rows(
        "SELECT s.name, j.name, b.status, ifnull(o.path, '-') FROM specification AS s
         JOIN evaluation AS e ON e.specification_id = s.id
           AND e.id = (SELECT max(id) FROM evaluation WHERE specification_id = s.id)
         LEFT JOIN job AS j ON j.evaluation_id = e.id LEFT JOIN build AS b ON b.id = j.build_id
         LEFT JOIN output AS o ON o.build_id = b.id ORDER BY s.name, j.name",
    );
    let mut results: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows {
        let (name, job) = row.split_once('|').expect("two columns");
        results.entry(name.to_owned()).or_default().push(job.to_owned());
    }
    results
}

/// Writes the git configuration of the server's user.
fn configure(home: &Path, changed: bool) {
    fs::create_dir_all(home.join(".config/git")).expect("a folder");
    let mut text = "[safe]\n\tdirectory = *\n\
        [filter \"up\"]\n\tsmudge = tr a-z A-Z\n\tclean = cat\n\
        [filter \"lfs\"]\n\tsmudge = rev\n\tclean = cat\n\
        [filter \"forbidden\"]\n\tsmudge = sed s/^/forbidden/\n\trequired = true\n"
        .to_owned();
    if changed {
        text.push_str("[core]\n\tautocrlf = true\n\teol = crlf\n");
        let attributes = home.join(".config/git/attributes");
        fs::write(attributes, "*.txt text eol=crlf\n").expect("written");
    }
    fs::write(home.join(".gitconfig"), text).expect("written");
}

fn serve(place: &Place, home: &Path) {
    let mut command = place.command(&["--one-shot"]);
    command.env("HOME", home).env_remove("XDG_CONFIG_HOME").env_remove("GIT_CONFIG_GLOBAL");
    let ended = run(command);
    assert!(ended.status.success(), "{}\n{}", ended.stdout, ended.stderr);
}

#[test]
fn after_any_single_change_an_old_server_shows_what_a_fresh_one_does() {
    let (old, fresh) = (Place::new(), Place::new());
    let home = old.path("home");
    configure(&home, false);
    let changes = [FILES, ATTRIBUTES, SUBMODULES, KEYS].concat();
    assert!(changes.len() >= 75, "{} changes", changes.len());
    let mut cases: Vec<Case> = Vec::new();
    let template = (old.repository("template"), old.repository("template-library"));
    fill(&template.0, &template.1);
    for (name, visible, change) in changes {
        let copy = |from: &Repository, to: &str| {
            let path = old.path(&format!("{name}-{to}"));
            let done =
                std::process::Command::new("cp").arg("-a").arg(&from.path).arg(&path).status();
            assert!(done.expect("cp").success());
            Repository { path }
        };
        let repository = copy(&template.0, "source");
        let library = copy(&template.1, "library");
        // The submodule of this case is the case's own library.
        let url = library.path.display().to_string();
        repository.git(&["config", "--file", ".gitmodules", "submodule.library.url", &url]);
        Repository { path: repository.path.join("seen/library") }
            .git(&["remote", "set-url", "origin", &url]);
        repository.commit(&[]);
        let other = old.repository(&format!("{name}-other"));
        other.commit(&[("data.txt", "data\n")]);
        let said = Said::new(&repository.path, &other.path);
        cases.push(Case { name, repository, other, library, said, change, visible });
    }
    let write = |place: &Place, cases: &[Case]| {
        let text: String = cases.iter().map(|case| case.said.text(case.name)).collect();
        place.write("specifications.toml", &text);
        place.write("config.toml", "git-filters = [\"lfs\", \"up\"]\n");
    };
    write(&old, &cases);
    serve(&old, &home);
    let before = results(&old);
    // All specifications begin with the same contents, so each derivation was built once.
    assert_eq!(old.rows("SELECT count(*) FROM build"), ["2"]);

    for case in &mut cases {
        let tools =
            Tools { repository: &case.repository, other: &case.other, library: &case.library };
        (case.change)(&tools, &mut case.said);
        case.repository.commit(&[]);
    }
    // The configuration of the machine and of the old server's clones changes too. It must not affect the results.
    configure(&home, true);
    let clones = fs::read_dir(old.state().join("repositories")).expect("clones");
    for clone in clones.flatten() {
        let info = clone.path().join("info");
        fs::create_dir_all(&info).expect("a folder");
        fs::write(info.join("attributes"), "*.txt text eol=crlf\n*.bin ident\n").expect("written");
    }
    write(&old, &cases);
    write(&fresh, &cases);
    serve(&old, &home);
    serve(&fresh, &home);
    let (old_shows, fresh_shows) = (results(&old), results(&fresh));
    for case in &cases {
        let (old, fresh) = (&old_shows[case.name], &fresh_shows[case.name]);
        assert_eq!(old, fresh, "{}: the old server shows something else", case.name);
        assert!(fresh.iter().all(|job| job.contains("|0|outputs/")), "{}: {fresh:?}", case.name);
        let outputs = |jobs: &[String]| -> Vec<String> {
            jobs.iter().filter(|job| !job.starts_with("base|")).cloned().collect()
        };
        let differs = outputs(fresh) != outputs(&before[case.name]);
        assert_eq!(differs, case.visible, "{}: whether the build sees it", case.name);
    }
    old.check_consistency();
}
