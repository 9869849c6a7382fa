//! The link under the control channel: where a port of this host goes down, it may be that of the NIC over which the channel goes. Then the
//! channel is made anew at once over another NIC, if that leads to the peer. Else its pings would miss it after seconds, and what waits for
//! the peer to be quiet would wait as long.
//!
//! The channel is left only once the peer's host has answered over another way: TCP outlives a link that is down for a moment.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::{Driver, Observation};
use super::End;
use crate::connection::{DeviceHealth, Presence};
use crate::control::resume::{Asked, FormerEnds, OwnAddresses, Way, ask, find_ways, pause, try_limit};
use crate::events::{EventLoopHandle, Task, Waiter};
use crate::sync::{Mutex, lock};

/// How long after a port has gone down a link that is there is looked at: drivers tell of the port and of the network interface in any
/// order.
const LOOKS_FOR: Duration = Duration::from_secs(1);
/// Between the first looks; then twice as long each time, as each one reads the state of all interfaces.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
/// How long the rest of the dialogue may take, over a way that has answered.
const REST: Duration = Duration::from_secs(1);

/// What is known of the link.
#[derive(Debug, Default)]
pub(super) struct LinkWatch {
    looks: Looks,
    under_way: Option<UnderWay>,
}

/// A look. Its task ends with it.
#[derive(Debug)]
struct UnderWay {
    end: Arc<Mutex<Option<Found>>>,
    _task: Task,
}

/// What a look has found.
#[derive(Debug)]
enum Found {
    /// The link is not known to be lost.
    Link,
    /// The link is lost, and the peer's host answers over no way.
    NoWay,
    /// The link is lost, and another way leads to the peer.
    Replacement(Box<Replacement>),
}

#[derive(Debug)]
struct Replacement {
    reason: String,
    way: Way,
    asked: Asked,
}

impl Driver {
    /// Takes note of ports that have gone down. Not for a peer on this host, which is reached whatever the interfaces do, nor at the end
    /// that is dialled, which can only wait.
    pub(in super::super) fn note_ports(&mut self, seen: &[Observation]) {
        let is_of_use = self.leads && matches!(self.presence, Presence::Pinged(_)) && !self.is_away();
        let Some(redial) = self.redial.as_mut().filter(|redial| is_of_use && redial.offer.is_some()) else {
            return;
        };
        for seen in seen {
            if let Observation::Device { health: DeviceHealth::PortDown(since), .. } = *seen {
                redial.link.looks.port_is_down(since);
            }
        }
    }

    /// When the link is to be looked at.
    pub(in super::super) fn link_deadline(&self) -> Option<Instant> {
        let link = &self.redial.as_ref()?.link;
        link.looks.deadline().filter(|_| link.under_way.is_none())
    }

    /// Begins a look that is due, and has the channel replaced once that has found another way.
    pub(in super::super) fn tend_link(&mut self) {
        let (is_away, stream) = (self.is_away(), self.socket.stream());
        let Some(redial) = &mut self.redial else { return };
        let (Some(offer), Some(stream), false) = (&redial.offer, stream, is_away) else {
            redial.link = LinkWatch::default();
            return;
        };
        if let Some(under_way) = &redial.link.under_way {
            let Some(found) = lock(&under_way.end).take() else { return };
            redial.link.under_way = None;
            match found {
                Found::Link => {}
                Found::NoWay => redial.link.looks.no_way_answers(Instant::now()),
                Found::Replacement(replacement) => return self.replace(*replacement),
            }
        }
        if !redial.link.looks.take(Instant::now()) {
            return;
        }
        redial.generation += 1;
        let request = (offer.name, redial.generation);
        let former = FormerEnds { own: stream.local().ip(), peer: self.peer_address.ip() };
        let (own, targets) = (redial.parts.own.clone(), offer.targets());
        let limit = try_limit(redial.link.looks.without_way);
        let end: Arc<Mutex<Option<_>>> = Arc::default();
        let (result, wakeup, handle) = (Arc::clone(&end), Arc::clone(&self.wakeup), self.handle.clone());
        let task = self.handle.spawn(async move {
            let found = look(own, targets, former, (request, limit), &handle).await;
            *lock(&result) = Some(found);
            wakeup.wake();
        });
        redial.link.under_way = Some(UnderWay { end, _task: task });
    }

    /// Leaves the channel, and goes on over the way that has answered.
    fn replace(&mut self, Replacement { reason, way, asked }: Replacement) {
        if !self.leave(&reason) {
            return;
        }
        let Some(redial) = &self.redial else { return };
        let (Some(offer), Some(away)) = (&redial.offer, &redial.away) else { return };
        let (key, token, received) = (redial.parts.key.clone(), offer.token, away.received);
        let times = (Instant::now() + REST, redial.parts.keepalive);
        let waiter = Waiter::on_loop(&self.handle);
        self.begin(async move {
            let resumed = asked.resume((key.as_ref(), &token), received, times, &waiter).await;
            End::Tried(way, resumed)
        });
    }
}

/// Looks whether the link is lost, and then for a way over which the peer's host answers within `limit`.
async fn look(
    own: OwnAddresses,
    targets: Vec<SocketAddr>,
    former: FormerEnds,
    (request, limit): ((u64, u64), Duration),
    handle: &EventLoopHandle,
) -> Found {
    if lost_link(&own, former.own, handle).await.is_none() {
        return Found::Link;
    }
    let (all, own_addresses) = (targets, own.clone());
    let ways = handle.blocking(move || find_ways(&own_addresses, &all, former)).await;
    let waiter = Waiter::on_loop(handle);
    for way in ways {
        if let Ok(asked) = ask(&way, request, Instant::now() + limit, &waiter).await {
            // It may be back, and be the way that has answered.
            return match lost_link(&own, former.own, handle).await {
                Some(reason) => Found::Replacement(Box::new(Replacement { reason, way, asked })),
                None => Found::Link,
            };
        }
    }
    Found::NoWay
}

/// In words, if it is lost. On a helper thread: the state of interfaces is in files.
async fn lost_link(own: &OwnAddresses, address: IpAddr, handle: &EventLoopHandle) -> Option<String> {
    let own = own.clone();
    let lost = handle.blocking(move || own.find_lost_link(address)).await?;
    Some(format!("{}, of which it has its address {address}, has no link ({})", lost.name, lost.link))
}

/// When the link is to be looked at. Times are arguments.
#[derive(Debug, Default)]
struct Looks {
    /// Since when the port is down that went down last.
    down: Option<Instant>,
    /// When the next look is due, and the pause behind it.
    next: Option<(Instant, Duration)>,
    /// Looks at the lost link in which no way answered.
    without_way: u32,
}

impl Looks {
    /// A port is down since then.
    fn port_is_down(&mut self, since: Instant) {
        if self.down.is_none_or(|down| down < since) {
            *self = Self { down: Some(since), next: Some((since, FIRST_PAUSE)), without_way: 0 };
        }
    }

    /// A look has found that the link is lost, and no other way. The host may have one later, so looks go on as rounds of dialling do, as long as
    /// the channel is not missed by its pings.
    fn no_way_answers(&mut self, now: Instant) {
        let pause = pause(self.without_way);
        self.without_way = self.without_way.saturating_add(1);
        self.next.get_or_insert((now + pause, pause));
    }

    fn deadline(&self) -> Option<Instant> {
        self.next.map(|(at, _)| at)
    }

    /// Whether a look is due, which is made then.
    fn take(&mut self, now: Instant) -> bool {
        let (Some((at, pause)), Some(down)) = (self.next, self.down) else { return false };
        if now < at {
            return false;
        }
        self.next = (now < down + LOOKS_FOR).then_some((now + pause, 2 * pause));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLISECOND: Duration = Duration::from_millis(1);

    /// The times of looks, in milliseconds, where a port goes down at the beginning and again after `again`.
    fn looks(again: Option<Duration>) -> Vec<u128> {
        let (begin, mut looks, mut found) = (Instant::now(), Looks::default(), Vec::new());
        looks.port_is_down(begin);
        while let Some(now) = looks.deadline() {
            assert!(!looks.take(now - MILLISECOND));
            if let Some(since) = again.map(|again| begin + again).filter(|since| *since <= now) {
                looks.port_is_down(since);
            }
            if looks.take(now) {
                found.push(now.duration_since(begin).as_millis());
            }
        }
        found
    }

    #[test]
    fn looks_are_few_and_end() {
        assert_eq!(looks(None), [0, 10, 30, 70, 150, 310, 630, 1270]);
        let again = looks(Some(300 * MILLISECOND));
        assert_eq!(again, [0, 10, 30, 70, 150, 310, 320, 340, 380, 460, 620, 940, 1580]);
    }

    /// As long as no way answers; answers may take longer and longer.
    #[test]
    fn a_lost_link_without_another_way_is_looked_at_on_and_on() {
        let (begin, mut looks, mut found) = (Instant::now(), Looks::default(), Vec::new());
        looks.port_is_down(begin);
        while let Some(now) = looks.deadline().filter(|at| *at < begin + Duration::from_secs(5)) {
            assert!(looks.take(now));
            found.push((now.duration_since(begin).as_millis(), try_limit(looks.without_way).as_millis()));
            looks.no_way_answers(now);
        }
        let expected = [
            (0, 300),
            (10, 600),
            (30, 1200),
            (70, 2400),
            (150, 3000),
            (310, 3000),
            (630, 3000),
            (1270, 3000),
            (2270, 3000),
            (3270, 3000),
            (4270, 3000),
        ];
        assert_eq!(found, expected);
        looks.port_is_down(begin + Duration::from_secs(5));
        assert_eq!(looks.without_way, 0, "another fault");
    }
}
