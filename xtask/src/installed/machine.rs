//! A fresh Debian on this machine: a root of its own, in namespaces of its own, and systemd as its first process.
//!
//! ```text
//! target/debian/bookworm    as debootstrap made it; kept for the next run
//! target/debian/archives    packages that apt has fetched; kept too
//! target/debian/machine     a copy, which a run uses
//! ```
//!
//! Nothing is mounted, started or changed outside of these folders. A started Debian has no network: apt fetches the
//! packages before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::command::{Failed, Line, output, succeeds};
use crate::install::programs;
use crate::root;

/// The oldest release of Debian that the package is made for, and the newest.
pub(super) const RELEASES: [&str; 2] = ["bookworm", "trixie"];

/// Makes the folder `$1` the root of this process, whose mount namespace is its own. `$2` holds fetched packages, and
/// the rest is the command to run.
const ENTER: &str = r#"
root=$1 archives=$2
shift 2
mount --make-rprivate /
mount --bind "$root" "$root"
mount --bind "$archives" "$root/var/cache/apt/archives"
ip link set lo up
cd "$root"
mount -t proc -o nosuid,nodev,noexec proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for name in null zero full random urandom tty; do
    : > dev/$name
    mount --bind /dev/$name dev/$name
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p mnt
pivot_root . mnt
umount -l /mnt
exec "$@"
"#;

/// Puts this process into a control group of its own, `$1` below the present one, so that systemd has one to manage.
const GROUP: &str = r#"
at=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)$(sed -n 's/^0:://p' /proc/self/cgroup)
mkdir -p "$at/$1"
echo 0 > "$at/$1/cgroup.procs"
shift
exec "$@"
"#;

/// Removes the group `$1` and those that systemd made in it, as soon as the kernel has ended what ran there: in ten
/// seconds at the most.
const LEAVE: &str = r#"
at=$(findmnt --noheadings --first-only --types cgroup2 --output TARGET)$(sed -n 's/^0:://p' /proc/self/cgroup)
for _ in $(seq 100); do
    find "$at/$1" -depth -type d -exec rmdir {} + 2> /dev/null || true
    test -e "$at/$1" || exit 0
    sleep 0.1
done
"#;

/// A file that only such a Debian has.
const MARK: &str = "this-is-a-test";

/// The variables of everything that runs in a Debian.
const ENVIRONMENT: [&str; 6] = [
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    // Nothing is asked: what would need an answer fails.
    "DEBIAN_FRONTEND=noninteractive",
    // dpkg does not wait for the disk after each file: a Debian that loses its power is made again.
    "DPKG_FORCE=unsafe-io",
    "container=xtask",
];

/// How long systemd may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(120);

fn place() -> PathBuf {
    root().join("target/debian")
}

/// A Debian that does not run.
pub(super) struct Root {
    pub(super) folder: PathBuf,
}

impl Root {
    /// A fresh Debian without anything but what Debian calls its minimal base.
    pub(super) fn fresh(release: &str) -> Result<Self, Failed> {
        install()?;
        let base = place().join(release);
        let (done, archives) = (place().join(format!("{release}.done")), place().join("archives"));
        let made = fs::create_dir_all(archives.join("partial"));
        made.map_err(|error| Failed(format!("{}: {error}", archives.display())))?;
        if !done.exists() {
            remove(&base)?;
            let folder = base.display().to_string();
            let line = Line::new("debootstrap", &["--variant=minbase", release, &folder]);
            line.with("DPKG_FORCE", "unsafe-io").run()?;
            fs::write(&done, "").map_err(|error| Failed(format!("{}: {error}", done.display())))?;
        }
        let folder = place().join("machine");
        remove(&folder)?;
        let (from, to) = (base.display().to_string(), folder.display().to_string());
        Line::new("cp", &["--archive", &from, &to]).run()?;
        let resolver = folder.join("etc/resolv.conf");
        // Where there is none, apt says what it cannot resolve.
        let _ = fs::copy("/etc/resolv.conf", resolver);
        let root = Self { folder };
        root.write(MARK, "")?;
        root.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")?;
        root.run("apt-get update --quiet")?;
        Ok(root)
    }

    /// Writes a file of the Debian.
    pub(super) fn write(&self, to: &str, text: &str) -> Result<(), Failed> {
        let to = self.folder.join(to);
        fs::write(&to, text).map_err(|error| Failed(format!("{}: {error}", to.display())))
    }

    /// Copies a file of this machine to a path of the Debian.
    pub(super) fn put(&self, from: &Path, to: &str) -> Result<(), Failed> {
        let to = self.folder.join(to);
        let folder = to.parent().map_or_else(|| self.folder.clone(), Path::to_owned);
        fs::create_dir_all(&folder)
            .and_then(|()| fs::copy(from, &to))
            .map(drop)
            .map_err(|error| Failed(format!("{}: {error}", from.display())))
    }

    /// Runs a shell script as the Debian's root with this machine's network, and returns what it prints.
    pub(super) fn run(&self, script: &str) -> Result<String, Failed> {
        said(&mut self.entered(&[], &["--kill-child"], &["sh", "-euc", script]), script)
    }

    /// As [`Root::run`], without any network but its own loopback.
    pub(super) fn run_alone(&self, script: &str) -> Result<String, Failed> {
        said(&mut self.entered(&[], &["--kill-child", "--net"], &["sh", "-euc", script]), script)
    }

    /// A command in namespaces of its own, with this root. `before` is what starts it.
    fn entered(&self, before: &[&str], namespaces: &[&str], words: &[&str]) -> Command {
        let mut all: Vec<String> = before.iter().map(ToString::to_string).collect();
        let common = ["unshare", "--fork", "--pid", "--mount", "--uts", "--ipc", "--cgroup"];
        all.extend(common.iter().chain(namespaces).map(ToString::to_string));
        all.extend(["sh", "-euc", ENTER, "enter"].map(str::to_owned));
        all.extend(
            [&self.folder, &place().join("archives")].map(|path| path.display().to_string()),
        );
        all.extend(["env", "-i"].iter().chain(&ENVIRONMENT).chain(words).map(ToString::to_string));
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).stdin(Stdio::null());
        command
    }

    /// Starts systemd.
    pub(super) fn start(&self) -> Result<Machine, Failed> {
        let group = format!("xtask-package-{}", std::process::id());
        let before = ["sh", "-euc", GROUP, "group", &group];
        let init = ["/lib/systemd/systemd", "--unit=multi-user.target"];
        println!("xtask: systemd in {}", self.folder.display());
        let mut command = self.entered(&before, &["--kill-child", "--net"], &init);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.map_err(|error| Failed(format!("{command:?}: {error}")))?;
        let mut machine = Machine { child, init: 0, group };
        let since = Instant::now();
        let ask = format!("test -e /{MARK} && systemctl is-system-running || true");
        loop {
            machine.init = first_child(machine.child.id()).unwrap_or(0);
            // Until the new root is in place, the answer would be that of this machine. `degraded`: a unit of Debian
            // failed that has no place in such a root.
            let state = machine.command(&ask).output();
            let state = state.map(|done| String::from_utf8_lossy(&done.stdout).trim().to_owned());
            match state.as_deref() {
                Ok("running" | "degraded") if machine.init != 0 => return Ok(machine),
                _ if since.elapsed() > PATIENCE => {
                    return Err(Failed(format!(
                        "systemd does not start in {}: it is {state:?}; it takes root with all capabilities, and a \
                         cgroup2 file system",
                        self.folder.display()
                    )));
                }
                _ => std::thread::sleep(Duration::from_millis(200)),
            }
        }
    }
}

/// A Debian that runs. It ends when it is dropped.
pub(super) struct Machine {
    child: Child,
    /// Its first process, as this machine numbers it.
    init: u32,
    /// Its control group.
    group: String,
}

impl Machine {
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.init.to_string()]);
        command.args(["--mount", "--pid", "--uts", "--ipc", "--net", "--cgroup", "--root", "--wd"]);
        command.args(["env", "-i"]).args(ENVIRONMENT).args(["sh", "-euc", script]);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a shell script as root, and returns what it prints.
    pub(super) fn run(&self, script: &str) -> Result<String, Failed> {
        said(&mut self.command(script), script)
    }

    /// Runs a shell script until it succeeds. What it said last is in the error.
    pub(super) fn wait_for(&self, script: &str) -> Result<String, Failed> {
        println!("xtask: until: {script}");
        let since = Instant::now();
        loop {
            match output(&mut self.command(script)) {
                Err(failed) if since.elapsed() > PATIENCE => {
                    let trace = output(&mut self.command("journalctl --no-pager --lines=60"));
                    println!("{}", trace.unwrap_or_default());
                    return Err(failed);
                }
                Err(_) => std::thread::sleep(Duration::from_millis(200)),
                done => return done,
            }
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // `--kill-child` ends the first process with it, and the kernel everything else in the namespace.
        let _ = self.child.kill();
        let _ = self.child.wait();
        // A group that stays is of no use and does no harm.
        let _ = Line::new("sh", &["-euc", LEAVE, "leave", &self.group]).quietly();
    }
}

/// Runs a command that is shown as `script`.
fn said(command: &mut Command, script: &str) -> Result<String, Failed> {
    println!("xtask: {}", script.trim());
    output(command)
}

/// The process that `unshare --fork` has forked.
fn first_child(parent: u32) -> Option<u32> {
    let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    list.split_whitespace().next()?.parse().ok()
}

fn remove(folder: &Path) -> Result<(), Failed> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failed(format!("{}: {error}", folder.display())))
        }
        _ => Ok(()),
    }
}

/// Installs what a Debian of its own needs, and says what this machine lacks.
fn install() -> Result<(), Failed> {
    const PROGRAMS: [(&str, &str); 6] = [
        ("debootstrap", "debootstrap"),
        ("dpkg-deb", "dpkg"),
        ("ip", "iproute2"),
        ("nsenter", "util-linux"),
        ("unshare", "util-linux"),
        ("findmnt", "util-linux"),
    ];
    programs(&PROGRAMS)?;
    let rights = ["--fork", "--pid", "--mount", "--cgroup", "--net", "true"];
    match succeeds("unshare", &rights) {
        true => Ok(()),
        false => Err(Failed(
            "this user may not make namespaces: the step `package` has to run as root with CAP_SYS_ADMIN".to_owned(),
        )),
    }
}
