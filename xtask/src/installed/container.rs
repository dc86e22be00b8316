//! Carries the Containerfile out in a Debian of its own, since no engine for containers is needed to try its steps.

use std::fs;
use std::path::Path;

use super::machine::{RELEASES, Root};
use crate::command::Failed;
use crate::root;

/// Starts the server `$@`, waits until it is ready, and ends it in order.
const SERVE: &str = r#"
"$@" &
server=$!
until brigandine status; do
    kill -0 $server
    sleep 0.2
done
kill -TERM $server
wait $server
"#;

/// Where the container begins: Debian's own image, whose contents are those of a minimal Debian.
const BASE: &str = "docker.io/library/debian:12-slim";

/// What the instructions before have set.
#[derive(Debug, Default, PartialEq)]
struct Settings {
    user: String,
    variables: Vec<String>,
    program: Vec<String>,
    words: Vec<String>,
}

/// Runs every step of the Containerfile, and the server as the container would start it.
pub(super) fn check(package: &Path) -> Result<(), Failed> {
    let path = root().join("packaging/Containerfile");
    let text = fs::read_to_string(&path)
        .map_err(|error| Failed(format!("{}: {error}", path.display())))?;
    let debian = Root::fresh(RELEASES[0])?;
    let name = package.file_name().unwrap_or_default().to_string_lossy();
    let mut settings = Settings::default();
    for (word, rest) in instructions(&text) {
        match word.as_str() {
            "FROM" if rest == BASE => {}
            "COPY" if rest == "brigandine_*.deb /tmp/" => {
                debian.put(package, &format!("tmp/{name}"))?;
            }
            "RUN" => debian.run(&rest).map(drop)?,
            _ => settings.take(&word, &rest)?,
        }
    }
    debian.run_alone(&settings.command())?;
    Ok(())
}

impl Settings {
    fn take(&mut self, word: &str, rest: &str) -> Result<(), Failed> {
        match word {
            "USER" => rest.clone_into(&mut self.user),
            "ENV" => self.variables.push(rest.to_owned()),
            "ENTRYPOINT" => self.program = list(rest),
            "CMD" => self.words = list(rest),
            "VOLUME" | "EXPOSE" | "STOPSIGNAL" => {}
            _ => return Err(Failed(format!("this test does not know `{word} {rest}`"))),
        }
        Ok(())
    }

    /// A script that starts what the container would start, as its user and with its variables.
    fn command(&self) -> String {
        let variables: String = self.variables.iter().map(|it| format!("export {it}\n")).collect();
        let words = [&self.program[..], &self.words[..]].concat().join("' '");
        let user = &self.user;
        format!(
            "cd /\n{variables}timeout 120 setpriv --reuid={user} --regid={user} --init-groups sh -euc '{SERVE}' sh '{words}'"
        )
    }
}

/// The instructions of a Containerfile, each with the rest of its line and the lines that continue it.
fn instructions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let split = |line: &str| {
        let (word, rest) = line.trim().split_once(' ')?;
        Some((word.to_owned(), rest.split_whitespace().collect::<Vec<_>>().join(" ")))
    };
    joined.lines().filter_map(split).collect()
}

/// The texts of a list in brackets.
fn list(text: &str) -> Vec<String> {
    text.split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_read_over_several_lines() {
        let text = "# why\nFROM a\n\nRUN b \\\n    && c\nCMD [\"d\", \"e f\"]\n";
        let expected = [("FROM", "a"), ("RUN", "b && c"), ("CMD", "[\"d\", \"e f\"]")];
        let expected = expected.map(|(word, rest)| (word.to_owned(), rest.to_owned()));
        assert_eq!(instructions(text), expected);
        assert_eq!(list("[\"d\", \"e f\"]"), ["d", "e f"]);
    }

    #[test]
    fn the_containerfile_starts_the_server_as_its_user() {
        let text = fs::read_to_string(root().join("packaging/Containerfile")).expect("text");
        let mut settings = Settings::default();
        for (word, rest) in instructions(&text) {
            if !["FROM", "COPY", "RUN"].contains(&word.as_str()) {
                assert!(settings.take(&word, &rest).is_ok(), "{word} {rest}");
            }
        }
        assert_eq!(settings.user, "brigandine");
        assert_eq!(settings.program, ["/usr/bin/brigandine"]);
        assert_eq!(settings.words[..2], ["serve", "--config"]);
    }
}
