//! The step `package` of the long tests: the Debian package in a fresh Debian, under systemd, from the installation to the
//! purge; and the steps of the Containerfile in another.
//!
//! `machine.rs` makes a Debian and starts systemd in it, `proxies.rs` puts nginx and Caddy in front of the
//! server, `container.rs` carries a Containerfile out.

use std::fs;
use std::path::{Path, PathBuf};

use crate::command::{Failed, Line, cargo};
use crate::{package, root};
use machine::{Machine, RELEASES, Root};

mod container;
mod machine;
mod proxies;

/// What jobs and this test need beside the package. The package itself must work without.
const TOOLS: &str = "curl gcc libc6-dev";
/// The most exposure that `systemd-analyze security` may find.
const EXPOSURE_MAX: f64 = 3.0;
/// How a command is given as the unit's user.
const AS_USER: &str =
    "cd /; as() { runuser -u brigandine -- env BRIGANDINE_STATE=/var/lib/brigandine \"$@\"; }";

/// Succeeds while the build of the specification `slow` runs.
const SLOW_RUNS: &str = "as brigandine builds --spec slow --status started | grep ' wait '";
/// A specification with a build that does not end.
const SLOW: &str = "[[specification]]
name = \"slow\"
[[specification.input]]
name = \"source\"
url = \"/srv/demo\"
[[specification.job]]
name = \"wait\"
sources = [\"docs/licence.txt\"]
command = \"echo begun; sleep 3000\"
";

/// Names a package to try instead of one that is made for this step.
const NAMED: &str = "BRIGANDINE_PACKAGE";

pub(crate) fn check() -> Result<Vec<String>, Failed> {
    let package = package()?;
    let earlier = earlier(&package)?;
    for release in RELEASES {
        try_in(release, &package, &earlier)?;
    }
    container::check(&package)?;
    let name = package.file_name().unwrap_or_default().display();
    Ok(vec![format!("package: {name} tried in {}, and in a container", RELEASES.join(" and "))])
}

/// The package to try. Unless [`NAMED`] names it, it has the program that the step `tests` runs, which is compiled
/// already: whether the package is right does not depend on how far the compiler has optimised the program.
fn package() -> Result<PathBuf, Failed> {
    if let Some(named) = std::env::var_os(NAMED) {
        return fs::canonicalize(&named).map_err(|error| {
            Failed(format!("{NAMED} names {}: {error}", Path::new(&named).display()))
        });
    }
    cargo(&["test", "--workspace", "--test", "it", "--no-run"]).run()?;
    let program = root().join("target/debug/brigandine");
    Ok(package::make(&root().join("target/debian/package"), &program)?.package)
}

/// The life of the package in one release of Debian.
fn try_in(release: &str, package: &Path, earlier: &Path) -> Result<(), Failed> {
    println!("xtask: Debian {release}");
    let debian = debian(release, package, earlier)?;
    let machine = debian.start()?;
    install(&machine)?;
    confined(&machine)?;
    builds(&machine)?;
    upgrade(&machine)?;
    stop(&machine)?;
    reload(&machine)?;
    proxies::check(&machine)?;
    for schema in schemas()? {
        state(&debian, &machine, &schema)?;
    }
    leave(&machine)
}

/// The same package with a lower version and another configuration file, for an upgrade.
fn earlier(package: &Path) -> Result<PathBuf, Failed> {
    let tree = root().join("target/debian/earlier");
    let file = root().join("target/debian/earlier.deb");
    if tree.exists() {
        fs::remove_dir_all(&tree)
            .map_err(|error| Failed(format!("{}: {error}", tree.display())))?;
    }
    let (tree, file) = (tree.display().to_string(), file.display().to_string());
    Line::new("dpkg-deb", &["--raw-extract", &package.display().to_string(), &tree]).run()?;
    let script = "sed -i 's/^Version: .*/&~earlier/' \"$1/DEBIAN/control\"
        echo '# as an earlier version had it' >> \"$1/etc/brigandine/brigandine.toml\"";
    Line::new("sh", &["-euc", script, "sh", &tree]).quietly()?;
    Line::new("dpkg-deb", &["--build", "--root-owner-group", "-Zzstd", "-z1", &tree, &file])
        .run()?;
    fs::remove_dir_all(&tree).map_err(|error| Failed(format!("{tree}: {error}")))?;
    Ok(file.into())
}

/// The recorded states of earlier releases.
fn schemas() -> Result<Vec<PathBuf>, Failed> {
    let folder = root().join("packaging/states");
    let entries =
        fs::read_dir(&folder).map_err(|error| Failed(format!("{}: {error}", folder.display())))?;
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    found.retain(|path| path.to_string_lossy().ends_with(".tar.gz"));
    found.sort();
    match found.is_empty() {
        true => Err(Failed(format!("{} holds no state", folder.display()))),
        false => Ok(found),
    }
}

/// A Debian with systemd and with everything else that is needed once it has no network.
fn debian(release: &str, package: &Path, earlier: &Path) -> Result<Root, Failed> {
    let debian = Root::fresh(release)?;
    debian.run("apt-get install --yes --quiet --no-install-recommends systemd")?;
    debian.put(package, "srv/brigandine.deb")?;
    debian.put(earlier, "srv/earlier.deb")?;
    debian.run(&format!(
        "apt-get install --yes --quiet --no-install-recommends --download-only /srv/brigandine.deb {TOOLS} {}",
        proxies::PACKAGES
    ))?;
    let demo = root().join("crates/brigandine/demo").display().to_string();
    let to = debian.folder.join("srv/demo").display().to_string();
    Line::new("cp", &["--recursive", &demo, &to]).quietly()?;
    let specification = root().join("crates/brigandine/demo/specification.toml");
    let text = fs::read_to_string(&specification)
        .map_err(|error| Failed(format!("{}: {error}", specification.display())))?;
    debian.write("srv/demo.toml", &text.replace("\"URL\"", "\"/srv/demo\""))?;
    debian.write("srv/slow.toml", SLOW)?;
    Ok(debian)
}

/// Installs the earlier package, whose dependencies apt finds, and looks at what it left.
fn install(machine: &Machine) -> Result<(), Failed> {
    machine.run("apt-get install --yes --quiet --no-install-recommends /srv/earlier.deb")?;
    machine.wait_for(&format!("{AS_USER}; as brigandine status"))?;
    machine.run("systemctl is-active brigandine; systemctl is-enabled brigandine")?;
    machine.run(
        "test \"$(stat -c '%U %a' /var/lib/brigandine)\" = 'brigandine 700'
        test \"$(getent passwd brigandine | cut -d: -f6-)\" = /var/lib/brigandine:/usr/sbin/nologin
        getent passwd brigandine-build
        brigandine check --config /etc/brigandine/brigandine.toml
        test -s /usr/share/man/man1/brigandine-serve.1.gz
        dpkg --verify brigandine",
    )?;
    let warned = machine.run("systemd-analyze verify --man=no brigandine.service 2>&1")?;
    if !warned.trim().is_empty() {
        return Err(Failed(format!("systemd-analyze verify: {warned}")));
    }
    let offline = "systemd-analyze security --no-pager --offline=yes";
    let said = machine.run(&format!("{offline} /usr/lib/systemd/system/brigandine.service"))?;
    let last = said.lines().last().unwrap_or_default().to_owned();
    println!("xtask: {last}");
    let number = last.split_once(": ").and_then(|(_, rest)| rest.split(' ').next());
    match number.and_then(|number| number.parse::<f64>().ok()) {
        Some(exposure) if exposure <= EXPOSURE_MAX => Ok(()),
        _ => Err(Failed(format!("the exposure may be {EXPOSURE_MAX} at the most: {last}"))),
    }
}

/// Whether the running server found what it needs within its confinement.
fn confined(machine: &Machine) -> Result<(), Failed> {
    machine.run(&format!("apt-get install --yes --quiet --no-install-recommends {TOOLS}"))?;
    let trace = machine.run("journalctl --no-pager --unit brigandine")?;
    for expected in ["builds and evaluators run in a sandbox", "builds have control groups"] {
        if !trace.contains(expected) {
            return Err(Failed(format!("the server does not say \"{expected}\":\n{trace}")));
        }
    }
    Ok(())
}

/// Builds the demo's repository, as the unit's user asks for it.
fn builds(machine: &Machine) -> Result<(), Failed> {
    machine.run(
        "chown -R brigandine: /srv/demo; cd /srv/demo
        git() { runuser -u brigandine -- git -c user.name=test -c user.email=test@localhost \"$@\"; }
        git init --quiet --initial-branch=main; git add --all; git commit --quiet --message='Weave sheets of mail'",
    )?;
    let ask = "as brigandine spec add /srv/demo.toml >/dev/null
        as brigandine evaluate gorget --wait --timeout 5m >/dev/null || test $? = 1
        as brigandine builds --number 100";
    let listed = machine.run(&format!("{AS_USER}\n{ask}"))?;
    outcome(&listed)
}

/// Whether the builds of the demo ended as they are to end, by the list of all builds.
fn outcome(listed: &str) -> Result<(), Failed> {
    let count = |word: &str| listed.lines().filter(|line| line.contains(word)).count();
    match (count(" succeeded "), count(" failed ")) {
        (7, 1) => Ok(()),
        _ => Err(Failed(format!("seven jobs of the demo succeed and one fails:\n{listed}"))),
    }
}

/// Upgrades while a build runs: the server is replaced, the build runs again, and a configuration that was edited stays.
fn upgrade(machine: &Machine) -> Result<(), Failed> {
    machine.run(&format!("{AS_USER}\nas brigandine spec add /srv/slow.toml"))?;
    machine.wait_for(&format!("{AS_USER}\n{SLOW_RUNS}"))?;
    let process = "systemctl show --property=MainPID brigandine";
    let before = machine.run(process)?;
    machine.run(
        "echo '# edited' >> /etc/brigandine/brigandine.toml
        apt-get install --yes --quiet --option=Dpkg::Options::=--force-confold /srv/brigandine.deb
        grep '^# edited' /etc/brigandine/brigandine.toml
        test -e /etc/brigandine/brigandine.toml.dpkg-dist",
    )?;
    if machine.run(process)? == before {
        return Err(Failed("the upgrade did not replace the server".to_owned()));
    }
    machine.wait_for(&format!("{AS_USER}\nas brigandine status; {SLOW_RUNS}"))?;
    Ok(())
}

/// Stops the server in the middle of a build, which waits then and has not failed.
fn stop(machine: &Machine) -> Result<(), Failed> {
    machine.run(&format!(
        "{AS_USER}
        systemctl stop brigandine
        if systemctl is-failed --quiet brigandine; then exit 1; fi
        as brigandine builds --spec slow --status scheduled | grep ' wait '
        systemctl start brigandine"
    ))?;
    machine.wait_for(&format!("{AS_USER}\nas brigandine status; {SLOW_RUNS}"))?;
    Ok(())
}

/// Reloads the configuration by the unit: a mistake is named, and the server goes on as before; a change is taken over.
fn reload(machine: &Machine) -> Result<(), Failed> {
    machine.run(
        "file=/etc/brigandine/brigandine.toml; asked=http://127.0.0.1:8080/configuration
        before=$(cat $file); process=$(systemctl show --property=MainPID brigandine)
        echo 'drian = true' >> $file
        if systemctl reload brigandine 2>/dev/null; then exit 1; fi
        journalctl --no-pager --unit brigandine | grep -q drian
        systemctl is-active brigandine
        echo \"$before\" > $file; echo 'interval = \"17m\"' >> $file
        curl --silent $asked | grep -q 'used after <code>brigandine reload'
        systemctl reload brigandine
        curl --silent $asked | grep -q '<dt>interval</dt><dd><code>17m</code>'
        echo \"$before\" > $file
        test \"$(systemctl show --property=MainPID brigandine)\" = \"$process\"",
    )?;
    Ok(())
}

/// Starts the server on the state of an earlier release: its builds and logs are there, and it goes on.
fn state(debian: &Root, machine: &Machine, schema: &Path) -> Result<(), Failed> {
    debian.put(schema, "srv/state.tar.gz")?;
    machine.run(
        "systemctl stop brigandine; rm -r /var/lib/brigandine/*
        tar --extract --file=/srv/state.tar.gz --directory=/var/lib/brigandine
        chown -R brigandine: /var/lib/brigandine; systemctl start brigandine",
    )?;
    machine.wait_for(&format!("{AS_USER}\nas brigandine status"))?;
    let ask = "as brigandine builds --number 100; as brigandine log 5 | grep -q 'the sheet holds'
        as brigandine evaluate gorget --wait --timeout 5m >/srv/said || test $? = 1
        grep -q '^evaluation .*: 7 of 9 jobs succeeded, 1 failed, 1 failed-dependency' /srv/said || {
            cat /srv/said; exit 1; }";
    outcome(&machine.run(&format!("{AS_USER}\n{ask}"))?)
}

/// Removes and purges the package.
fn leave(machine: &Machine) -> Result<(), Failed> {
    machine.run(
        "apt-get remove --yes --quiet brigandine
        if systemctl is-active --quiet brigandine; then exit 1; fi
        test -e /var/lib/brigandine/brigandine.db; test -e /etc/brigandine/brigandine.toml
        test ! -e /usr/bin/brigandine",
    )?;
    machine.run(
        "apt-get purge --yes --quiet brigandine
        test ! -e /var/lib/brigandine; test ! -e /etc/brigandine
        test ! -e /etc/systemd/system/multi-user.target.wants/brigandine.service
        getent passwd brigandine brigandine-build",
    )?;
    Ok(())
}
