//! Our socket to the peer's notification receiver.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::door::Session;
use crate::control::wire::SocketKind;
use crate::control::wire::notification::{CHALLENGE_SIZE, Header};
use crate::control::{Abort, AuthKey, Stream};

/// Connects to a receiver. A peer without one that answers is no reason to give up the connection: the failure is
/// logged, and notifications then have no channel.
pub(super) fn connect(
    receiver: SocketAddr,
    session: &Session,
    key: Option<&AuthKey>,
    deadline: Instant,
    abort: Option<&Abort>,
) -> Option<Stream> {
    let key = key.filter(|_| session.key.is_some());
    attempt(receiver, session, key, deadline, abort)
        .inspect_err(|error| tracing::warn!("no notification channel to {receiver}: {error}"))
        .ok()
}

fn attempt(
    receiver: SocketAddr,
    session: &Session,
    key: Option<&AuthKey>,
    deadline: Instant,
    abort: Option<&Abort>,
) -> io::Result<Stream> {
    let stream = crate::control::socket::connect_once(receiver, deadline, abort)?;
    stream.write_all_by(&SocketKind::Notifications.encode(), deadline)?;
    if let Some(key) = key {
        let mut hello = Header::Hello.encode().to_vec();
        hello.extend_from_slice(&session.id);
        stream.write_all_by(&hello, deadline)?;
        let mut challenge = [0; CHALLENGE_SIZE];
        stream.read_exact_by(&mut challenge, deadline)?;
        stream.write_all_by(&key.prove("notifications", &[&session.id, &challenge]), deadline)?;
    }
    Ok(stream)
}
