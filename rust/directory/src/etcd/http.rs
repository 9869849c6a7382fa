//! Requests to one server: HTTP with or without TLS.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::crypto::ring::default_provider;
use serde_json::Value;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, RequestBuilder, typestate::WithBody};

use super::secret::Secret;
use super::settings::Settings;
use crate::Error;
use crate::deadline::left;

/// Sends requests to the server that each names.
#[derive(Debug)]
pub(super) struct Http {
    agent: Agent,
    scheme: &'static str,
}

/// What a server has answered.
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub(super) enum NoReply {
    /// Another try may succeed soon.
    Late(String),
    /// None will: connections or certificates are refused.
    Refused(String),
    /// It is longer than [`LONGEST_ANSWER`].
    TooLong,
}

impl Http {
    /// Reads the certificates.
    pub(super) fn new(settings: &Settings) -> Result<Self, Error> {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // The servers are those of the URL; a proxy of the environment is for web pages.
            .proxy(None)
            .user_agent("flagcx-p2p")
            .max_idle_connections(IDLE_CONNECTIONS)
            .max_idle_connections_per_host(IDLE_CONNECTIONS);
        let config = if settings.tls { config.tls_config(tls(settings)?) } else { config };
        let scheme = if settings.tls { "https" } else { "http" };
        Ok(Self { agent: config.build().new_agent(), scheme })
    }

    /// Posts `body` and reads the whole answer, by `deadline`.
    pub(super) fn post(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        token: Option<&Secret>,
        deadline: Instant,
    ) -> Result<Reply, NoReply> {
        let left = left(deadline).ok_or_else(|| NoReply::Late("no time was left".to_owned()))?;
        let request = self.request(endpoint, path, token).config().timeout_global(Some(left)).build();
        let mut response = request.send(body.to_string()).map_err(|error| no_reply(&error))?;
        let status = response.status().as_u16();
        let read = response.body_mut().with_config().limit(LONGEST_ANSWER).read_to_vec();
        read.map(|body| Reply { status, body }).map_err(|error| no_reply(&error))
    }

    /// Posts `body` and hands out the answer as it comes. A read fails after `silence` without a byte.
    pub(super) fn stream(
        &self,
        endpoint: &str,
        path: &str,
        body: &Value,
        token: Option<&Secret>,
        silence: Duration,
    ) -> Result<(u16, impl Read + use<>), NoReply> {
        let request = self
            .request(endpoint, path, token)
            .config()
            .timeout_resolve(Some(OPENING))
            .timeout_connect(Some(OPENING))
            .timeout_recv_response(Some(OPENING))
            .timeout_per_read(Some(silence))
            .timeout_per_write(Some(silence))
            .build();
        let response = request.send(body.to_string()).map_err(|error| no_reply(&error))?;
        Ok((response.status().as_u16(), response.into_body().into_reader()))
    }

    fn request(&self, endpoint: &str, path: &str, token: Option<&Secret>) -> RequestBuilder<WithBody> {
        let request = self
            .agent
            .post(format!("{}://{endpoint}/v3/{path}", self.scheme))
            .header("Content-Type", "application/json")
            // A member without a majority answers with an error instead of waiting for one.
            .header("Grpc-Metadata-hasleader", "true");
        match token {
            Some(token) => request.header("Authorization", token.reveal()),
            None => request,
        }
    }
}

fn no_reply(error: &ureq::Error) -> NoReply {
    let is_final = match error {
        ureq::Error::Io(error) => {
            let is_of_tls = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            is_of_tls
                || matches!(
                    error.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
                )
        }
        ureq::Error::HostNotFound | ureq::Error::Rustls(_) | ureq::Error::Tls(_) => true,
        ureq::Error::BodyExceedsLimit(_) => return NoReply::TooLong,
        _ => false,
    };
    if is_final { NoReply::Refused(error.to_string()) } else { NoReply::Late(error.to_string()) }
}

fn tls(settings: &Settings) -> Result<TlsConfig, Error> {
    let roots = match &settings.ca {
        Some(path) => certificates(path, "read the certificates")?,
        None => roots_of_the_system()?,
    };
    let identity = match &settings.identity {
        Some((certificate, key)) => Some(ClientCert::new_with_certs(
            &certificates(certificate, "read the client's certificate")?,
            private_key(key)?,
        )),
        None => None,
    };
    Ok(TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .client_cert(identity)
        .build())
}

fn roots_of_the_system() -> Result<Vec<Certificate<'static>>, Error> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let reasons: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        return Err(Error::File {
            operation: "read the certificates of the system",
            path: "/etc/ssl/certs".to_owned(),
            reason: format!(
                "there are none {}; install ca-certificates, or name a file by ?ca=FILE",
                reasons.join(", ")
            ),
        });
    }
    Ok(found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect())
}

fn certificates(path: &Path, operation: &'static str) -> Result<Vec<Certificate<'static>>, Error> {
    let error = |reason: String| Error::File { operation, path: path.display().to_string(), reason };
    let pem = fs::read(path).map_err(|failed| error(failed.to_string()))?;
    let mut found = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|failed| error(failed.to_string()))? {
            found.push(certificate);
        }
    }
    if found.is_empty() { Err(error("it has no certificate in PEM form".to_owned())) } else { Ok(found) }
}

fn private_key(path: &Path) -> Result<PrivateKey<'static>, Error> {
    let error = |reason: String| Error::File {
        operation: "read the client's key",
        path: path.display().to_string(),
        reason,
    };
    let pem = fs::read(path).map_err(|failed| error(failed.to_string()))?;
    PrivateKey::from_pem(&pem).map_err(|failed| error(failed.to_string()))
}

/// Bytes of an answer at most: a page of names, with room for values that are not ours.
pub(super) const LONGEST_ANSWER: u64 = 8 << 20;

/// Of each step of opening a stream.
const OPENING: Duration = Duration::from_secs(2);

/// Connections that are kept for the next request.
const IDLE_CONNECTIONS: usize = 4;
