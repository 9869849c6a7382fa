//! Our socket to the peer's notification receiver.

use std::io;
use std::net::SocketAddr;
use std::time::Instant;

use super::Limits;
use super::authenticate::Session;
use crate::control::Stream;
use crate::control::socket::connect_from;
use crate::control::wire::SocketKind;
use crate::control::wire::notification::{CHALLENGE_SIZE, Header};

/// Connects to the receiver on `port` of the host at the other end of the lane socket. A peer without one that answers
/// is no reason to give up the connection: the failure is logged, and notifications then have no channel.
pub(super) fn connect(
    channel: &Stream,
    port: u16,
    session: &Session,
    limits: &Limits,
    deadline: Instant,
) -> Option<Stream> {
    let receiver = super::with_port(channel.peer(), port);
    attempt(channel, receiver, session, limits, deadline)
        .inspect_err(|error| tracing::warn!("no notification channel to {receiver}: {error}"))
        .ok()
}

fn attempt(
    channel: &Stream,
    receiver: SocketAddr,
    session: &Session,
    limits: &Limits,
    deadline: Instant,
) -> io::Result<Stream> {
    // From the address that the peer knows us by: it keeps the places of those that it is connected with.
    let source = super::with_port(channel.local(), 0);
    let stream = connect_from(Some(source), receiver, deadline, limits.abort.as_ref())?;
    stream.write_all_by(&SocketKind::Notifications.encode(), deadline)?;
    if let Some(key) = limits.auth.as_ref().filter(|_| session.key.is_some()) {
        let mut hello = Header::Hello.encode().to_vec();
        hello.extend_from_slice(&session.id);
        stream.write_all_by(&hello, deadline)?;
        let mut challenge = [0; CHALLENGE_SIZE];
        stream.read_exact_by(&mut challenge, deadline)?;
        stream.write_all_by(&key.prove("notifications", &[&session.id, &challenge]), deadline)?;
    }
    Ok(stream)
}
