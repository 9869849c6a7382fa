//! A check of a channel that may be lost: whether it is, and over which other way the peer's host answers.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::answer::ANSWER_LIMIT;
use crate::control::Channel;
use crate::control::resume::{Asked, FormerEnds, OwnAddresses, Way, ask, find_ways};
use crate::events::{EventLoopHandle, Waiter};

/// Why the channel is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sign {
    /// A port of this host has gone down.
    Port,
    /// The data path has failed, and the channel has received no more than so many bytes since.
    NoAnswer(u64),
}

/// What a check has found.
#[derive(Debug)]
pub(super) enum Found {
    /// The channel is not known to be lost.
    Channel,
    /// It is, and the peer's host answers over no way.
    NoWay,
    /// It is, and another way leads to the peer's host.
    Replacement(Box<Replacement>),
}

#[derive(Debug)]
pub(super) struct Replacement {
    pub(super) reason: String,
    pub(super) way: Way,
    pub(super) asked: Asked,
}

/// The channel that is checked.
pub(super) struct CheckedChannel {
    pub(super) own: OwnAddresses,
    pub(super) former: FormerEnds,
    pub(super) sign: Sign,
    pub(super) channel: Arc<Channel>,
}

impl CheckedChannel {
    /// In words, if it is lost.
    async fn why_lost(&self, handle: &EventLoopHandle) -> Option<String> {
        match self.sign {
            // On a helper thread: the state of interfaces is in files.
            Sign::Port => {
                let (own, address) = (self.own.clone(), self.former.own);
                let lost = handle.blocking(move || own.find_lost_link(address)).await?;
                Some(format!(
                    "{}, of which it has its address {address}, has no link ({})",
                    lost.name, lost.link
                ))
            }
            Sign::NoAnswer(received) => {
                let is_answered = self.channel.has_unread() || self.channel.bytes_received() != received;
                (!is_answered).then(|| {
                    let limit = ANSWER_LIMIT.as_millis();
                    format!(
                        "lanes or a rail have failed, and the peer has not answered over it for more than {limit} ms"
                    )
                })
            }
        }
    }
}

/// Whether the channel is lost, and then a way over which the peer's host answers within `limit`.
pub(super) async fn check(
    channel: CheckedChannel,
    targets: Vec<SocketAddr>,
    (request, limit): ((u64, u64), Duration),
    handle: &EventLoopHandle,
) -> Found {
    if channel.why_lost(handle).await.is_none() {
        return Found::Channel;
    }
    let (own, former) = (channel.own.clone(), channel.former);
    let ways = handle.blocking(move || find_ways(&own, &targets, former)).await;
    let waiter = Waiter::on_loop(handle);
    for way in ways {
        if let Ok(asked) = ask(&way, request, Instant::now() + limit, &waiter).await {
            // The way of the channel may be back, and be the one that has answered: then TCP goes on.
            let is_back = channel.sign != Sign::Port && asked.is_between(former);
            return match channel.why_lost(handle).await {
                Some(reason) if !is_back => Found::Replacement(Box::new(Replacement { reason, way, asked })),
                _ => Found::Channel,
            };
        }
    }
    Found::NoWay
}
