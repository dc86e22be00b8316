//! Requests to the provider, and the checks of its answers, which are those of the crate `openidconnect`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreAuthenticationFlow, CoreErrorResponseType,
    CoreGenderClaim, CoreJsonWebKey, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm,
    CoreProviderMetadata, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::{
    AdditionalClaims, AuthorizationCode, ClientId, ClientSecret, CsrfToken, EmptyExtraTokenFields,
    EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, IdTokenFields,
    IssuerUrl, Nonce, OAuth2TokenResponse as _, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    Scope, StandardErrorResponse, StandardTokenResponse, TokenResponse as _, UserInfoClaims,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use ureq::tls::{RootCerts, TlsConfig};

use super::attempt::Attempt;
use super::identity::Identity;
use crate::model::{LoginProvider, with_causes};

/// The time limit of a request to the provider.
const TIME_MAX: Duration = Duration::from_secs(10);
/// The most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// How long the provider's addresses and keys are believed.
const METADATA_AGE_MAX: Duration = Duration::from_secs(300);
/// The most values of the claim that gives roles, and the most bytes of one.
const VALUES_MAX: usize = 1000;
const VALUE_BYTES_MAX: usize = 500;

/// All claims that the standard does not name.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Claims {
    #[serde(flatten)]
    claims: BTreeMap<String, Value>,
}

impl AdditionalClaims for Claims {}

type Fields = IdTokenFields<
    Claims,
    EmptyExtraTokenFields,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJwsSigningAlgorithm,
>;

/// `CoreClient` with [`Claims`].
type Protocol = openidconnect::Client<
    Claims,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    StandardTokenResponse<Fields, CoreTokenType>,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

/// Talks to the provider.
pub(super) struct Client {
    secret: Option<ClientSecret>,
    issuer: IssuerUrl,
    agent: ureq::Agent,
    /// The provider's addresses and keys, and when they were asked for.
    metadata: Mutex<Option<(Instant, CoreProviderMetadata)>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Client {
    /// `secret`: what the provider gave this server, if it gave one.
    ///
    /// # Errors
    /// The issuer is no address.
    pub(super) fn new(settings: &LoginProvider, secret: Option<String>) -> Result<Self, String> {
        let issuer = IssuerUrl::new(settings.issuer.clone());
        let issuer = issuer.map_err(|error| format!("`issuer` of `[web.oidc]`: {error}"))?;
        let roots = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        // An answer must not lead this server to other addresses, so redirects are not followed.
        let agent = ureq::Agent::config_builder()
            .tls_config(roots)
            .timeout_global(Some(TIME_MAX))
            .max_redirects(0)
            .http_status_as_error(false)
            .build()
            .into();
        Ok(Self {
            secret: secret.map(ClientSecret::new),
            issuer,
            agent,
            metadata: Mutex::default(),
        })
    }

    /// The address at the provider to which a browser is sent.
    ///
    /// # Errors
    /// The provider does not answer, or not as one.
    pub(super) fn address(
        &self,
        settings: &LoginProvider,
        redirect: &str,
        attempt: &Attempt,
    ) -> Result<String, String> {
        let protocol = self.protocol(settings, redirect)?;
        let challenge = PkceCodeChallenge::from_code_verifier_sha256(&verifier(attempt));
        let (state, nonce) = (attempt.state.clone(), attempt.nonce.clone());
        let (address, _, _) = protocol
            .authorize_url(
                CoreAuthenticationFlow::AuthorizationCode,
                move || CsrfToken::new(state),
                move || Nonce::new(nonce),
            )
            .add_scopes(settings.scopes.iter().cloned().map(Scope::new))
            .set_pkce_challenge(challenge)
            .url();
        Ok(address.into())
    }

    /// What the provider says of the user whose login gave this code.
    ///
    /// # Errors
    /// The provider does not answer, or its answer fails a check.
    pub(super) fn identity(
        &self,
        settings: &LoginProvider,
        redirect: &str,
        code: String,
        attempt: &Attempt,
    ) -> Result<Identity, String> {
        let protocol = self.protocol(settings, redirect)?;
        let ask = |request| self.ask(request);
        let request = protocol.exchange_code(AuthorizationCode::new(code)).map_err(causes)?;
        let tokens = request.set_pkce_verifier(verifier(attempt)).request(&ask).map_err(causes)?;
        let token = tokens.id_token().ok_or("the provider's answer has no ID token")?;
        let nonce = Nonce::new(attempt.nonce.clone());
        let claims = token.claims(&protocol.id_token_verifier(), &nonce).map_err(|error| {
            // Its keys may have changed.
            self.forget();
            causes(error)
        })?;
        let subject = format!("{} {}", self.issuer.as_str(), claims.subject().as_str());
        let mut all = object(claims)?;
        let (access, of) = (tokens.access_token().clone(), claims.subject().clone());
        // A provider may have no such address; the ID token then has all claims.
        if let Ok(request) = protocol.user_info(access, Some(of)) {
            let more: UserInfoClaims<Claims, CoreGenderClaim> =
                request.request(&ask).map_err(causes)?;
            all.extend(object(&more)?);
        }
        let name = all.get(&settings.user_claim).and_then(Value::as_str).ok_or_else(|| {
            let known: Vec<&str> = all.keys().map(String::as_str).collect();
            format!(
                "the provider tells no claim `{}`, which `user-claim` names; it tells {}",
                settings.user_claim,
                known.join(", ")
            )
        })?;
        let values = values(all.get(&settings.role_claim));
        Ok(Identity { subject, name: name.to_owned(), values })
    }

    fn protocol(&self, settings: &LoginProvider, redirect: &str) -> Result<Protocol, String> {
        let redirect = RedirectUrl::new(redirect.to_owned());
        let redirect = redirect.map_err(|error| format!("the address of this server: {error}"))?;
        let id = ClientId::new(settings.client_id.clone());
        let client = Protocol::from_provider_metadata(self.metadata()?, id, self.secret.clone());
        Ok(client.set_redirect_uri(redirect))
    }

    /// The provider's addresses and keys, asked for again when they are old.
    fn metadata(&self) -> Result<CoreProviderMetadata, String> {
        let known = self.metadata.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, metadata)) = known
            && at.elapsed() < METADATA_AGE_MAX
        {
            return Ok(metadata);
        }
        let found = CoreProviderMetadata::discover(&self.issuer, &|request| self.ask(request));
        let found = found.map_err(causes)?;
        let mut known = self.metadata.lock().unwrap_or_else(PoisonError::into_inner);
        *known = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    fn forget(&self) {
        *self.metadata.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn ask(&self, request: HttpRequest) -> Result<HttpResponse, ureq::Error> {
        let response = self.agent.run(request)?;
        let (head, mut body) = response.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(HttpResponse::from_parts(head, body))
    }
}

fn verifier(attempt: &Attempt) -> PkceCodeVerifier {
    PkceCodeVerifier::new(attempt.verifier.clone())
}

fn causes(error: impl std::error::Error + 'static) -> String {
    with_causes(&error)
}

/// Claims as the provider wrote them.
fn object(claims: &impl Serialize) -> Result<serde_json::Map<String, Value>, String> {
    match serde_json::to_value(claims) {
        Ok(Value::Object(claims)) => Ok(claims),
        Ok(_) => Err("the provider's claims are no object".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The texts of a claim: one, or a list.
fn values(claim: Option<&Value>) -> Vec<String> {
    let one = |value: &Value| {
        let text = value.as_str().filter(|text| text.len() <= VALUE_BYTES_MAX);
        text.map(str::to_owned)
    };
    match claim {
        Some(Value::Array(list)) => list.iter().filter_map(one).take(VALUES_MAX).collect(),
        Some(value) => one(value).into_iter().collect(),
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_claim_is_a_text_or_a_list_of_texts() {
        let of = |claim: Value| values(Some(&claim));
        assert_eq!(of(json!("a")), ["a"]);
        assert_eq!(of(json!(["a", 7, null, "b", ["c"], "x".repeat(501)])), ["a", "b"]);
        assert!(of(json!({"a": "b"})).is_empty() && of(json!(true)).is_empty());
        assert!(values(None).is_empty());
        assert_eq!(of(json!(vec!["a"; 5000])).len(), VALUES_MAX);
    }
}
