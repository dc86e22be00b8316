//! The arguments of `brigandine user` and `brigandine token`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::values::State;
use crate::config;
use crate::model::{Role, Scope, check_account_name};

#[derive(Debug, Subcommand)]
pub(crate) enum User {
    /// Add a user; the password is asked for, or read from standard input
    Add {
        #[command(flatten)]
        of: OneUser,
        /// What the user may do: reader, builder (restart, cancel, evaluate) or admin
        #[arg(long, value_name = "ROLE", default_value = "reader")]
        role: Role,
        /// Where: in one project, or in one specification; everywhere when absent
        #[arg(long = "in", value_name = "PROJECT[/SPECIFICATION]")]
        scope: Option<Scope>,
    },
    /// List users and their roles
    List {
        #[command(flatten)]
        state: State,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Set another password, and end all sessions of the user
    Passwd(OneUser),
    /// Give a user a role: reader, builder, admin, or none
    Role {
        #[command(flatten)]
        of: OneUser,
        /// The role
        #[arg(value_parser = role)]
        role: Wanted,
        /// Where: in one project, or in one specification; everywhere when absent
        #[arg(long = "in", value_name = "PROJECT[/SPECIFICATION]")]
        scope: Option<Scope>,
    },
    /// Let a user no longer log in, and end the sessions
    Disable(OneUser),
    /// Let a disabled user log in again
    Enable(OneUser),
    /// Remove a user
    Remove(OneUser),
    /// List the sessions of a user
    Sessions {
        #[command(flatten)]
        of: OneUser,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// End sessions of a user: the one with this number, or all
    Revoke {
        #[command(flatten)]
        of: OneUser,
        /// The number of a session
        session: Option<i64>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct OneUser {
    #[command(flatten)]
    pub(crate) state: State,
    /// The name of the user
    #[arg(value_parser = name)]
    pub(crate) name: String,
}

/// A role, or `none`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted(pub(crate) Option<Role>);

fn role(text: &str) -> Result<Wanted, String> {
    if text == "none" {
        return Ok(Wanted(None));
    }
    let help = || "a role is reader, builder, admin or none".to_owned();
    text.parse().map(|role| Wanted(Some(role))).map_err(|_| help())
}

#[derive(Debug, Subcommand)]
pub(crate) enum Token {
    /// Make a token and print it; it is shown only this once
    Create(CreateToken),
    /// List the tokens, without their texts
    List {
        #[command(flatten)]
        state: State,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a token; the next request that has it is refused
    Revoke {
        #[command(flatten)]
        state: State,
        /// Its name
        name: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct CreateToken {
    #[command(flatten)]
    pub(crate) state: State,
    /// A name, under which changes are noted: letters, digits, `-`, `.`, `_`, `+`
    #[arg(value_parser = name)]
    pub(crate) name: String,
    /// What its owner may do: reader, builder (restart, cancel, evaluate) or admin
    #[arg(long, value_name = "ROLE", default_value = "builder")]
    pub(crate) role: Role,
    /// Where: in one project, or in one specification; everywhere when absent
    #[arg(long = "in", value_name = "PROJECT[/SPECIFICATION]")]
    pub(crate) scope: Option<Scope>,
    /// End it after this time, such as 12h or 90d
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(crate) expires: Option<Duration>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// A name of a user or a token.
pub(super) fn name(text: &str) -> Result<String, String> {
    check_account_name(text).map(|()| text.to_owned())
}

fn lifetime(text: &str) -> Result<Duration, String> {
    let range = Duration::from_secs(60)..=Duration::from_secs(3660 * 86_400);
    let found = config::parse_duration(text).filter(|time| range.contains(time));
    found.ok_or_else(|| "a time from 1m to 3660d, for example 12h or 90d".to_owned())
}
