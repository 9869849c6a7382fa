//! Our socket to the peer's notification receiver.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Limits;
use super::authenticate::Entry;
use crate::auth::{AuthError, AuthKey, Initiator, Nonces, PROOF_SIZE, Purpose, random};
use crate::control::Stream;
use crate::control::socket::{Source, connect_from, connect_over};
use crate::control::wire::Features;
use crate::control::wire::SocketKind;
use crate::control::wire::notification::{COUNT_SIZE, Header, LINK_SIZE, encode_link, encode_owner};
use crate::events::Waiter;
use crate::process::ProcessIdentity;

/// The identity of our process for the receiver of an engine with these features.
pub(super) fn owner(theirs: Option<&Features>) -> Option<ProcessIdentity> {
    theirs.filter(|theirs| theirs.has(Features::LIVENESS)).map(|_| ProcessIdentity::own())
}

/// The names of the links of both sockets, ours and the peer's, where both ends make them anew: the random numbers of the handshake, so
/// each end knows of which connection a link is.
pub(super) fn link_names(ours: &Features, entry: &Entry) -> Option<[[u8; LINK_SIZE]; 2]> {
    let theirs = entry.features.filter(|theirs| ours.has_redial() && theirs.has_redial())?;
    Some([entry.own_nonce, theirs.nonce])
}

/// How a notification socket is made anew.
#[derive(Clone, Debug)]
#[cfg_attr(test, derive(Default))]
pub struct NotifyRoute {
    link: [u8; LINK_SIZE],
    hosts: Vec<IpAddr>,
    port: u16,
    key: Option<AuthKey>,
    owner: Option<ProcessIdentity>,
    keepalive: Option<Duration>,
}

impl NotifyRoute {
    /// Connects again, at the first of `hosts` and of those of the handshake where the receiver is; `peer` is the other end of the
    /// channel, dialled from `source` if there is one. Answers how many messages it has delivered.
    pub(crate) async fn connect(
        &self,
        hosts: &[IpAddr],
        (peer, source): (SocketAddr, Option<&Source>),
        limit: Duration,
        waiter: &Waiter,
    ) -> io::Result<(Stream, u64)> {
        let mut failures = Vec::new();
        let mut tried = Vec::new();
        // The way of the channel first: that works.
        let ways = source.map(|source| (peer.ip(), Some(source)));
        let ways = ways.into_iter().chain(hosts.iter().chain(&self.hosts).map(|host| (*host, None)));
        for way in ways {
            if tried.contains(&way) {
                continue;
            }
            tried.push(way);
            let (host, source) = way;
            // Of the channel, for the scope of an IPv6 link-local address.
            let receiver = match peer.ip() == host {
                true => super::with_port(peer, self.port),
                false => SocketAddr::new(host, self.port),
            };
            match self.attempt((source, receiver), Instant::now() + limit, waiter).await {
                Ok(answer) => return Ok(answer),
                Err(error) => failures.push(format!("{host}: {error}")),
            }
        }
        Err(io::Error::other(failures.join(", ")))
    }

    async fn attempt(
        &self,
        (source, receiver): (Option<&Source>, SocketAddr),
        deadline: Instant,
        waiter: &Waiter,
    ) -> io::Result<(Stream, u64)> {
        let mut stream = connect_over(source, receiver, deadline, waiter).await?;
        let greeting = (self.key.as_ref(), self.owner, Some(self.link));
        greet(&stream, greeting, true, deadline, waiter).await?;
        let mut count = [0; COUNT_SIZE];
        stream.read_exact(&mut count, deadline, waiter).await?;
        stream.set_keepalive(self.keepalive)?;
        stream.set_abort(None);
        Ok((stream, u64::from_le_bytes(count)))
    }
}

/// The key of the session, the identity of our process, and the name of the link.
pub(super) type Greeting<'a> = (Option<&'a AuthKey>, Option<ProcessIdentity>, Option<[u8; LINK_SIZE]>);

/// Connects to the receiver on `port` of the peer at the other end of the lane socket, at the first of `hosts` where
/// it is. A failure does not end the handshake: it is logged, and the connection has no notification channel. `key`
/// is that of the session, when both sides have proven it; `owner` is the identity of our process for the receiver,
/// `link` the name of the link if the socket is made anew.
pub(super) async fn connect(
    channel: &Stream,
    hosts: &[IpAddr],
    port: u16,
    (key, owner, link): Greeting<'_>,
    limits: &Limits,
    deadline: Instant,
    waiter: &Waiter,
) -> Option<(Stream, Option<NotifyRoute>)> {
    let mut failures = Vec::new();
    for &host in hosts {
        // Of the lane socket, for the scope of an IPv6 link-local address.
        let receiver = match channel.peer() {
            peer if peer.ip() == host => super::with_port(peer, port),
            _ => SocketAddr::new(host, port),
        };
        match attempt(channel, receiver, (key, owner, link), limits, deadline, waiter).await {
            Ok(stream) => {
                let (key, keepalive, hosts) = (key.cloned(), limits.keepalive, hosts.to_vec());
                let route = link.map(|link| NotifyRoute { link, hosts, port, key, owner, keepalive });
                return Some((stream, route));
            }
            Err(error) => failures.push(format!("{receiver}: {error}")),
        }
    }
    tracing::warn!(
        "cannot connect to the peer's notification port, so the connection has no notification channel: {}",
        failures.join(", ")
    );
    None
}

async fn attempt(
    channel: &Stream,
    receiver: SocketAddr,
    (key, owner, link): Greeting<'_>,
    limits: &Limits,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<Stream> {
    // From the address that the peer has of this host: its receiver does not displace senders of connected hosts.
    let source = super::with_port(channel.local(), 0);
    // Not where the receiver is reached through another interface than the lane socket, as behind a forwarder of this
    // host.
    let same_side =
        source.is_ipv4() == receiver.is_ipv4() && source.ip().is_loopback() == receiver.ip().is_loopback();
    let source = same_side.then_some(source);
    let stream = connect_from(source, receiver, deadline, limits.abort.as_ref(), waiter).await?;
    greet(&stream, (key, owner, link), false, deadline, waiter).await?;
    if link.is_some() {
        // A socket that failed before the receiver knew the link could not be made anew.
        stream.read_exact(&mut [0; COUNT_SIZE], deadline, waiter).await?;
    }
    Ok(stream)
}

/// The first words to a receiver: preamble, proof of the key, our process, the link; `again`: it has had a socket before.
async fn greet(
    stream: &Stream,
    (key, owner, link): Greeting<'_>,
    again: bool,
    deadline: Instant,
    waiter: &Waiter,
) -> io::Result<()> {
    stream.write_all(&SocketKind::Notifications.encode(), deadline, waiter).await?;
    if let Some(key) = key {
        authenticate(stream, key, deadline, waiter).await?;
    }
    if let Some(owner) = owner {
        stream.write_all(&encode_owner(owner), deadline, waiter).await?;
    }
    if let Some(name) = link {
        stream.write_all(&encode_link(name, again), deadline, waiter).await?;
    }
    Ok(())
}

/// Proves the key to the receiver, and waits for its proof, which it sends once it has admitted this sender.
async fn authenticate(stream: &Stream, key: &AuthKey, deadline: Instant, waiter: &Waiter) -> io::Result<()> {
    let initiator = random()?;
    stream.write_all(&[&Header::Hello.encode()[..], &initiator].concat(), deadline, waiter).await?;
    let mut nonces = Nonces { initiator, responder: Default::default() };
    stream.read_exact(&mut nonces.responder, deadline, waiter).await?;
    let (initiator, proof) = Initiator::prove(key, Purpose::NOTIFICATIONS, nonces);
    stream.write_all(&proof, deadline, waiter).await?;
    let mut proof = [0; PROOF_SIZE];
    stream.read_exact(&mut proof, deadline, waiter).await.map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => io::Error::other(NOT_ADMITTED),
        _ => error,
    })?;
    initiator.verify(&proof).map(drop).map_err(|error: AuthError| io::Error::other(error))
}

const NOT_ADMITTED: &str = "it closed the connection after our proof: it serves as many senders as it may \
    (FLAGCX_P2P_NOTIF_MAX_PEERS), or its pre-shared key differs from ours (FLAGCX_P2P_AUTH_KEY_FILE)";
