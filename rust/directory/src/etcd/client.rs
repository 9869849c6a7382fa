//! Requests to whichever server answers, as the user.

use std::io::Read;
use std::thread::sleep;
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::answer::{Authenticated, is_problem, parse, problem};
use super::auth::{Complaint, Token, complaint};
use super::endpoints::Endpoints;
use super::http::{Http, LONGEST_ANSWER, NoReply, Reply};
use super::secret::Secret;
use super::settings::{Settings, User};
use crate::Error;
use crate::deadline::{left, within};

/// A client of the servers. Shared by all threads.
#[derive(Debug)]
pub(super) struct Client {
    http: Http,
    endpoints: Endpoints,
    user: Option<User>,
    token: Token,
    described: String,
}

/// A streamed answer, with the server that it comes from.
pub(super) struct Stream {
    pub(super) endpoint: String,
    pub(super) body: Box<dyn Read>,
    place: usize,
    token: Option<Secret>,
}

/// Why one server did not do it.
enum Failed {
    /// The next one may.
    Here { slow: bool, reason: String },
    /// None will.
    Everywhere(Error),
}

impl Client {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        if settings.user.is_some() && !settings.tls {
            tracing::warn!(
                directory = settings.describe(),
                "user and password go to etcd without encryption: use etcds:// on networks that others can read"
            );
        }
        Ok(Self {
            http: Http::new(&settings)?,
            described: settings.describe(),
            endpoints: Endpoints::new(settings.endpoints),
            user: settings.user,
            token: Token::default(),
        })
    }

    /// Posts `body`, to one server after the other until one answers.
    ///
    /// When all refuse connections it fails at once; when one is slow, or has no leader, it is tried until the deadline.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        operation: &str,
        path: &str,
        body: &Value,
        deadline: Instant,
    ) -> Result<T, Error> {
        let begun = Instant::now();
        let mut reasons: Vec<String> = Vec::new();
        while let Some(left) = left(deadline) {
            let (mut any_slow, count) = (false, self.endpoints.len());
            reasons.clear();
            let (first, _) = self.endpoints.current();
            for tried in 0..count {
                // From one start on: other threads move the current one on meanwhile.
                let (place, endpoint) = self.endpoints.at(first + tried);
                // The last one may have all the time, where there are several.
                let until = if tried + 1 < count { within(deadline, share(left, count)) } else { deadline };
                match self.post_to(endpoint, operation, path, body, until) {
                    Ok(reply) => return read(operation, endpoint, &reply),
                    Err(Failed::Everywhere(error)) => return Err(error),
                    Err(Failed::Here { slow, reason }) => {
                        any_slow |= slow;
                        reasons.push(format!("{endpoint}: {reason}"));
                        self.endpoints.failed(place);
                    }
                }
            }
            if !any_slow {
                let (operation, directory) = (operation.to_owned(), self.described.clone());
                return Err(Error::Unreachable { operation, directory, reason: reasons.join(", ") });
            }
            sleep(PAUSE.min(crate::deadline::left(deadline).unwrap_or_default()));
        }
        let reason = match reasons.is_empty() {
            true => "the time was over at the start".to_owned(),
            false => reasons.join(", "),
        };
        Err(Error::Deadline { operation: operation.to_owned(), time: begun.elapsed(), reason })
    }

    /// Posts `body` to one server and streams its answer, of which a read fails after `silence`. `Ok(Err)`: it failed there,
    /// and the next call goes to the next one. An error is read until it `is_over`.
    pub(super) fn stream(
        &self,
        operation: &str,
        path: &str,
        body: &Value,
        silence: Duration,
        is_over: &dyn Fn() -> bool,
    ) -> Result<Result<Stream, String>, Error> {
        let (place, endpoint) = self.endpoints.current();
        let failed = |reason: String| {
            self.endpoints.failed(place);
            Ok(Err(format!("{endpoint}: {reason}")))
        };
        let token = match self.authenticated(endpoint, operation, Instant::now() + silence) {
            Ok(token) => token,
            Err(Failed::Everywhere(error)) => return Err(error),
            Err(Failed::Here { reason, .. }) => return failed(reason),
        };
        match self.http.stream(endpoint, path, body, token.as_ref(), silence) {
            Ok((200, body)) => {
                Ok(Ok(Stream { endpoint: endpoint.to_owned(), body: Box::new(body), place, token }))
            }
            Ok((status, body)) => {
                let until = Instant::now() + silence;
                let body = beginning(body, || is_over() || left(until).is_none());
                match self.judge(endpoint, operation, token.as_ref(), &Reply { status, body }) {
                    Failed::Everywhere(error) => Err(error),
                    Failed::Here { reason, .. } => failed(reason),
                }
            }
            Err(no_reply) => match unanswered(endpoint, operation, no_reply) {
                Failed::Everywhere(error) => Err(error),
                Failed::Here { reason, .. } => failed(reason),
            },
        }
    }

    /// A stream has ended with an error of gRPC: what that means.
    pub(super) fn ended(&self, stream: &Stream, operation: &str, code: u32, message: &str) -> Option<Error> {
        match self.meaning(&stream.endpoint, operation, stream.token.as_ref(), code, message) {
            Failed::Everywhere(error) => Some(error),
            Failed::Here { .. } => {
                self.gave_up(stream);
                None
            }
        }
    }

    /// A stream has ended without a reason: the next one goes to the next server.
    pub(super) fn gave_up(&self, stream: &Stream) {
        self.endpoints.failed(stream.place);
    }

    fn post_to(
        &self,
        endpoint: &str,
        operation: &str,
        path: &str,
        body: &Value,
        deadline: Instant,
    ) -> Result<Reply, Failed> {
        for renewed in [false, true] {
            let token = self.authenticated(endpoint, operation, deadline)?;
            let reply = self.http.post(endpoint, path, body, token.as_ref(), deadline);
            let reply = reply.map_err(|no_reply| unanswered(endpoint, operation, no_reply))?;
            if reply.status == 200 && !is_problem(&reply.body) {
                return Ok(reply);
            }
            let failed = self.judge(endpoint, operation, token.as_ref(), &reply);
            // A token that was refused has been forgotten.
            if renewed || token.is_none() || self.token.get().is_some() {
                return Err(failed);
            }
        }
        Err(Failed::Here { slow: true, reason: "a new token was refused".to_owned() })
    }

    /// The token, got from `endpoint` if there is none; `None` without users.
    fn authenticated(
        &self,
        endpoint: &str,
        operation: &str,
        deadline: Instant,
    ) -> Result<Option<Secret>, Failed> {
        let Some(user) = &self.user else { return Ok(None) };
        if let Some(token) = self.token.get() {
            return Ok(Some(token));
        }
        let body = json!({ "name": user.name, "password": user.password.reveal() });
        let reply = self.http.post(endpoint, "auth/authenticate", &body, None, deadline);
        let reply = reply.map_err(|no_reply| unanswered(endpoint, "authenticate", no_reply))?;
        if reply.status == 200 {
            let answer: Authenticated = read("authenticate", endpoint, &reply).map_err(Failed::Everywhere)?;
            let is_token =
                !answer.token.is_empty() && answer.token.bytes().all(|byte| byte.is_ascii_graphic());
            if !is_token {
                let problem = "it has no token".to_owned();
                let (operation, endpoint) = ("authenticate".to_owned(), endpoint.to_owned());
                return Err(Failed::Everywhere(Error::Answer { operation, endpoint, problem }));
            }
            let token = Secret::new(answer.token);
            self.token.set(token.clone());
            return Ok(Some(token));
        }
        let has_no_users = |(code, message): (u32, String)| complaint(code, &message) == Complaint::NoUsers;
        if problem(&reply.body).is_some_and(has_no_users) {
            return Ok(None);
        }
        Err(self.judge(endpoint, operation, None, &reply))
    }

    fn judge(&self, endpoint: &str, operation: &str, token: Option<&Secret>, reply: &Reply) -> Failed {
        match problem(&reply.body) {
            Some((code, message)) => self.meaning(endpoint, operation, token, code, &message),
            // A proxy or another program.
            None if (500..600).contains(&reply.status) => {
                Failed::Here { slow: true, reason: format!("HTTP status {}", reply.status) }
            }
            None => Failed::Everywhere(Error::Answer {
                operation: operation.to_owned(),
                endpoint: endpoint.to_owned(),
                problem: format!("HTTP status {} without an error of etcd", reply.status),
            }),
        }
    }

    fn meaning(
        &self,
        endpoint: &str,
        operation: &str,
        token: Option<&Secret>,
        code: u32,
        message: &str,
    ) -> Failed {
        let reason: String =
            message.chars().filter(|character| !character.is_control()).take(LONGEST_REASON).collect();
        let (operation, endpoint) = (operation.to_owned(), endpoint.to_owned());
        match complaint(code, message) {
            Complaint::Busy => Failed::Here { slow: true, reason },
            Complaint::Token if self.user.is_some() => {
                self.token.forget(token);
                Failed::Here { slow: true, reason }
            }
            Complaint::Token | Complaint::User => {
                let user = match &self.user {
                    Some(user) => format!("user {:?}", user.name),
                    None => "a client without user; name one in the URL: etcd://USER:PASSWORD@...".to_owned(),
                };
                Failed::Everywhere(Error::Denied { operation, endpoint, user, code, reason })
            }
            Complaint::NoUsers | Complaint::Other => {
                Failed::Everywhere(Error::Refused { operation, endpoint, code, reason })
            }
        }
    }
}

fn unanswered(endpoint: &str, operation: &str, no_reply: NoReply) -> Failed {
    match no_reply {
        NoReply::Late(reason) => Failed::Here { slow: true, reason },
        NoReply::Refused(reason) => Failed::Here { slow: false, reason },
        NoReply::TooLong => Failed::Everywhere(Error::TooLong {
            operation: operation.to_owned(),
            endpoint: endpoint.to_owned(),
            limit: LONGEST_ANSWER,
        }),
    }
}

/// The beginning of an error, until it `is_over`: what cannot be read is reported by its status.
fn beginning(mut body: impl Read, is_over: impl Fn() -> bool) -> Vec<u8> {
    let (mut text, mut part) = (Vec::new(), [0; 4096]);
    while text.len() < LONGEST_PROBLEM && !is_over() {
        match body.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => text.extend_from_slice(part.get(..count).unwrap_or_default()),
        }
    }
    text
}

fn read<T: DeserializeOwned>(operation: &str, endpoint: &str, reply: &Reply) -> Result<T, Error> {
    parse(&reply.body).map_err(|problem| Error::Answer {
        operation: operation.to_owned(),
        endpoint: endpoint.to_owned(),
        problem,
    })
}

/// The time of one of `count` servers.
fn share(left: Duration, count: usize) -> Duration {
    (left / u32::try_from(count).unwrap_or(u32::MAX)).min(MOST_PER_SERVER)
}

/// What a server gets when there are others: a healthy one answers within milliseconds, one that elects a leader within this.
const MOST_PER_SERVER: Duration = Duration::from_secs(2);

/// Between two rounds.
const PAUSE: Duration = Duration::from_millis(100);

/// Characters of a server's text in an error.
const LONGEST_REASON: usize = 300;

/// Bytes that are read of an error.
const LONGEST_PROBLEM: usize = 64 << 10;
