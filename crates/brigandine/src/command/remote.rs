//! Changes of another server, and its audit, over HTTP.

use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::tls::{RootCerts, TlsConfig};

use super::{Failure, file_failed};
use crate::cli;
use crate::model::{AuditFilter, Audited, Change, Outcome, Target, one_line};
use crate::wire::{AuditJson, ChangesJson, DoneJson, EvaluationChangeJson, OutcomesJson};

/// How long it may take to connect.
const CONNECT_TIME: Duration = Duration::from_secs(10);
/// How long the whole request may take. An evaluation may have many builds.
const ANSWER_TIME: Duration = Duration::from_secs(600);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 8 << 20;
/// The most bytes of a token.
const TOKEN_BYTES_MAX: usize = 4096;
/// The most bytes of an error that the server answers.
const ERROR_BYTES_MAX: usize = 1000;
/// The variable with the token.
const TOKEN_VARIABLE: &str = "BRIGANDINE_TOKEN";

/// A server that answers over HTTP, and the token for it.
pub(super) struct Remote {
    address: String,
    token: Option<String>,
}

/// The body of an answer that is an error.
#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
}

/// An answer of the server.
struct Answer {
    status: u16,
    body: String,
}

impl Remote {
    /// The server that the command line names; `None`: the one of the state directory is meant.
    ///
    /// # Errors
    /// The address is none of HTTP, or the token cannot be read.
    pub(super) fn new(arguments: &cli::Server) -> Result<Option<Self>, Failure> {
        let Some(server) = &arguments.server else { return Ok(None) };
        if !server.starts_with("http://") && !server.starts_with("https://") {
            return Err(Failure::failed(format!(
                "--server {}: an address begins with https:// or http://",
                one_line(server, 200)
            )));
        }
        let token = match &arguments.token_file {
            Some(file) => {
                let text = read_token(file)?;
                Some(checked(&text, &file.display().to_string())?)
            }
            None => match std::env::var(TOKEN_VARIABLE) {
                Ok(text) if !text.trim().is_empty() => Some(checked(&text, TOKEN_VARIABLE)?),
                _ => None,
            },
        };
        Ok(Some(Self { address: server.trim_end_matches('/').to_owned(), token }))
    }

    /// Asks for a change. Returns what became of each target.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the request. The text says if the change may have been made all the same.
    pub(super) async fn change(
        self,
        change: Change,
        targets: Vec<Target>,
        reason: &str,
    ) -> Result<Vec<(Target, Outcome)>, Failure> {
        let reason = reason.to_owned();
        let asked = tokio::task::spawn_blocking(move || match &*targets {
            // A role in the one specification is enough for the route of one target.
            [target] => Ok(vec![(target.clone(), self.one(change, target, &reason)?)]),
            all => self.several(change, all, &reason),
        });
        asked.await.map_err(|error| Failure::failed(error.to_string()))?
    }

    fn several(
        &self,
        change: Change,
        targets: &[Target],
        reason: &str,
    ) -> Result<Vec<(Target, Outcome)>, Failure> {
        let body = json(&ChangesJson::new(change, targets, reason))?;
        let answer = self.post("/api/v1/changes", &body)?;
        if answer.status != 200 {
            return Err(self.refusal(&answer));
        }
        Ok(self.read::<OutcomesJson>(&answer)?.into_outcomes())
    }

    fn one(&self, change: Change, target: &Target, reason: &str) -> Result<Outcome, Failure> {
        let (thing, body) = match target {
            Target::Build(id) => (format!("build/{id}"), EvaluationChangeJson::new(reason, &[])),
            Target::Evaluation(id) => {
                (format!("eval/{id}"), EvaluationChangeJson::new(reason, &[]))
            }
            Target::Jobs(id, statuses) => {
                (format!("eval/{id}"), EvaluationChangeJson::new(reason, statuses))
            }
            Target::Specification(name) => {
                let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
                (format!("jobset/{name}"), EvaluationChangeJson::new(reason, &[]))
            }
        };
        let path = format!("/api/v1/{thing}/{}", change.as_str());
        let answer = self.post(&path, &json(&body)?)?;
        match (answer.status, serde_json::from_str::<Refusal>(&answer.body)) {
            (404, Ok(_)) => Ok(Outcome::Missing),
            (409, Ok(refusal)) => Ok(Outcome::Refused(one_line(&refusal.error, ERROR_BYTES_MAX))),
            (200 | 202, _) => Ok(self.read::<DoneJson>(&answer)?.into_outcome()),
            _ => Err(self.refusal(&answer)),
        }
    }

    /// Reads rows of the audit, the latest first.
    ///
    /// # Errors
    /// The server cannot be reached or refuses the request.
    pub(super) async fn audit(
        self,
        filter: AuditFilter,
        number: u32,
    ) -> Result<Vec<Audited>, Failure> {
        let AuditFilter { build, evaluation, specification, before } = filter;
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("nr", &number.to_string());
        for (name, value) in [
            ("build", build.map(|id| id.to_string())),
            ("evaluation", evaluation.map(|id| id.to_string())),
            ("specification", specification),
            ("before", before.map(|id| id.to_string())),
        ] {
            if let Some(value) = value {
                query.append_pair(name, &value);
            }
        }
        let path = format!("/api/v1/audit?{}", query.finish());
        let asked = tokio::task::spawn_blocking(move || {
            let answer = self.get(&path)?;
            if answer.status != 200 {
                return Err(self.refusal(&answer));
            }
            let rows = self.read::<Vec<AuditJson>>(&answer)?;
            Ok(rows.into_iter().map(Audited::from).collect())
        });
        asked.await.map_err(|error| Failure::failed(error.to_string()))?
    }

    /// Sends a request that changes nothing.
    fn get(&self, path: &str) -> Result<Answer, Failure> {
        let request = agent().get(format!("{}{path}", self.address));
        self.answer(self.signed(request).call(), false)
    }

    /// Sends a request for a change.
    fn post(&self, path: &str, body: &[u8]) -> Result<Answer, Failure> {
        let request = agent().post(format!("{}{path}", self.address));
        self.answer(self.signed(request).content_type("application/json").send(body), true)
    }

    /// The request, with the token.
    fn signed<B>(&self, request: ureq::RequestBuilder<B>) -> ureq::RequestBuilder<B> {
        let request = request.header("accept", "application/json");
        match &self.token {
            Some(token) => request.header("authorization", &format!("Bearer {token}")),
            None => request,
        }
    }

    /// Reads the answer to a request. `changes`: whether the request asks for a change.
    fn answer(
        &self,
        sent: Result<ureq::http::Response<ureq::Body>, ureq::Error>,
        changes: bool,
    ) -> Result<Answer, Failure> {
        let mut answer =
            sent.map_err(|error| self.failed(&error, changes && may_have_arrived(&error)))?;
        let status = answer.status().as_u16();
        let is_done = changes && (200..300).contains(&status);
        let body = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string();
        let body = body.map_err(|error| self.failed(&error, is_done))?;
        Ok(Answer { status, body })
    }

    fn failed(&self, error: &ureq::Error, may_be_done: bool) -> Failure {
        let mut text =
            format!("{}: {}", one_line(&self.address, 200), one_line(&error.to_string(), 500));
        if may_be_done {
            text.push_str(
                "; the change may have been made, which the page of what it is about shows",
            );
        }
        Failure::failed(text)
    }

    /// The failure that an answer means that is none of success.
    fn refusal(&self, Answer { status, body }: &Answer) -> Failure {
        let address = one_line(&self.address, 200);
        let why = match serde_json::from_str::<Refusal>(body) {
            Ok(refusal) => one_line(&refusal.error, ERROR_BYTES_MAX),
            Err(_) if (300..400).contains(status) => {
                "it sends on to another address, which is not followed with a token; name that address".to_owned()
            }
            Err(_) => "this is no answer of Brigandine; is the address that of its first page?".to_owned(),
        };
        let token = match (status, &self.token) {
            (401, None) => format!(" (no token was sent: --token-file or {TOKEN_VARIABLE})"),
            _ => String::new(),
        };
        Failure::failed(format!("{address} answers {status}: {why}{token}"))
    }

    /// Reads the body of an answer that is a success.
    fn read<T: DeserializeOwned>(&self, answer: &Answer) -> Result<T, Failure> {
        serde_json::from_str(&answer.body).map_err(|error| {
            let address = one_line(&self.address, 200);
            Failure::failed(format!(
                "{address} answers {}, and the answer cannot be read: {error}",
                answer.status
            ))
        })
    }
}

/// What sends one request.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_connect(Some(CONNECT_TIME))
        .timeout_global(Some(ANSWER_TIME))
        .tls_config(TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build())
        .http_status_as_error(false)
        // The token is for this server alone.
        .max_redirects(0)
        .max_redirects_will_error(false)
        .build()
        .into()
}

/// Whether the server may have received a request whose answer did not arrive.
fn may_have_arrived(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Timeout(ureq::Timeout::Resolve | ureq::Timeout::Connect) => false,
        ureq::Error::Timeout(_) => true,
        ureq::Error::Io(error) => error.kind() != ErrorKind::ConnectionRefused,
        _ => false,
    }
}

fn json(body: &impl serde::Serialize) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(body).map_err(|error| Failure::failed(error.to_string()))
}

/// The contents of a file with a token, as far as a token can be long.
fn read_token(file: &Path) -> Result<String, Failure> {
    let open = || {
        let mut text = String::new();
        let most = TOKEN_BYTES_MAX as u64 + 2;
        std::io::Read::read_to_string(
            &mut std::io::Read::take(std::fs::File::open(file)?, most),
            &mut text,
        )?;
        Ok(text)
    };
    open().map_err(|error: std::io::Error| file_failed(file, &error))
}

/// A token, without the blanks around it.
///
/// # Errors
/// The text is no token. The error does not show the text.
fn checked(text: &str, place: &str) -> Result<String, Failure> {
    let token = text.trim();
    let is_token = (1..=TOKEN_BYTES_MAX).contains(&token.len())
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    if !is_token {
        return Err(Failure::failed(format!(
            "{place} has no token: one line of at most {TOKEN_BYTES_MAX} letters, digits and signs is expected"
        )));
    }
    Ok(token.to_owned())
}
