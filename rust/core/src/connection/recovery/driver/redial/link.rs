//! The link under the control channel: where a port of this host goes down, it may be that of the NIC over which the channel goes; where lanes
//! or a rail fail, the link may be lost elsewhere, and the peer does not answer over the channel. Then the channel is made anew soon over
//! another way, if one leads to the peer. Else its pings would miss it after seconds, and what waits for the peer to be quiet would wait as long.
//!
//! The channel is left only once the peer's host has answered over another way: TCP outlives a link that is down for a moment.

mod answer;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::answer::{ANSWER_LIMIT, Answer};
use super::super::{Driver, Observation};
use super::End;
use crate::connection::{DeviceHealth, Presence};
use crate::control::resume::{Asked, FormerEnds, OwnAddresses, Way, ask, find_ways, pause, try_limit};
use crate::control::{Channel, ChannelFrame};
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
    answer: Answer,
    under_way: Option<UnderWay>,
}

/// A look. Its task ends with it.
#[derive(Debug)]
struct UnderWay {
    sign: Sign,
    end: Arc<Mutex<Option<Found>>>,
    _task: Task,
}

/// Why there is a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sign {
    /// A port of this host has gone down.
    Port,
    /// The data path has failed, and the channel has received no more than so many bytes since.
    NoAnswer(u64),
}

/// What a look has found.
#[derive(Debug)]
enum Found {
    /// The channel is not known to be lost.
    Channel,
    /// It is, and the peer's host answers over no way.
    NoWay,
    /// It is, and another way leads to the peer's host.
    Replacement(Box<Replacement>),
}

#[derive(Debug)]
struct Replacement {
    reason: String,
    way: Way,
    asked: Asked,
}

impl Driver {
    /// Takes note of ports that have gone down.
    pub(in super::super) fn note_ports(&mut self, seen: &[Observation]) {
        let Some(link) = self.link_of_use() else { return };
        for seen in seen {
            if let Observation::Device { health: DeviceHealth::PortDown(since), .. } = *seen {
                link.looks.port_is_down(since);
            }
        }
    }

    /// Lanes have failed, or a rail is left: the peer is asked whether the channel carries anything.
    pub(in super::super) fn data_path_failed(&mut self) {
        let (received, now) = (self.socket.bytes_received(), Instant::now());
        if self.link_of_use().is_some_and(|link| link.answer.path_failed(received, now)) {
            self.socket.queue(&ChannelFrame::Ping(0));
            // If the socket has no room, the end of the turn has it watched; if it has failed, the next turn reports that.
            let _ = self.socket.flush();
        }
    }

    /// `None` for a peer on this host, which is reached whatever the interfaces do, and at the end that is dialled, which can only wait.
    fn link_of_use(&mut self) -> Option<&mut LinkWatch> {
        let is_of_use = self.leads && matches!(self.presence, Presence::Pinged(_)) && !self.is_away();
        let redial = self.redial.as_mut().filter(|redial| is_of_use && redial.offer.is_some())?;
        Some(&mut redial.link)
    }

    /// When the link is to be looked at.
    pub(in super::super) fn link_deadline(&self) -> Option<Instant> {
        let link = &self.redial.as_ref()?.link;
        let deadlines = link.looks.deadline().into_iter().chain(link.answer.deadline());
        deadlines.min().filter(|_| link.under_way.is_none())
    }

    /// Begins a look that is due, and has the channel replaced once that has found another way.
    pub(in super::super) fn tend_link(&mut self) {
        let (is_away, stream) = (self.is_away(), self.socket.stream());
        let Some(redial) = &mut self.redial else { return };
        let (Some(offer), Some(stream), false) = (&redial.offer, stream, is_away) else {
            redial.link = LinkWatch::default();
            return;
        };
        let (now, received) = (Instant::now(), self.socket.bytes_received());
        redial.link.received(received);
        if let Some(UnderWay { sign, end, .. }) = &redial.link.under_way {
            let Some(found) = lock(end).take() else { return };
            let sign = *sign;
            redial.link.under_way = None;
            match found {
                Found::NoWay if sign == Sign::Port => redial.link.looks.no_way_answers(now),
                Found::Channel if sign == Sign::Port => {}
                // What has arrived is read later in the turn.
                Found::Replacement(_) if sign != Sign::Port && self.socket.has_unread() => {}
                Found::Channel | Found::NoWay => redial.link.answer.looked(now),
                Found::Replacement(replacement) => return self.replace(*replacement),
            }
        }
        let Some((sign, without_way)) = redial.link.due(received, now) else { return };
        redial.generation += 1;
        let request = (offer.name, redial.generation);
        let channel = LookedAt {
            own: redial.parts.own.clone(),
            former: FormerEnds { own: stream.local().ip(), peer: self.peer_address.ip() },
            sign,
            channel: Arc::clone(&self.socket),
        };
        let (targets, limit) = (offer.targets(), try_limit(without_way));
        let end: Arc<Mutex<Option<_>>> = Arc::default();
        let (result, wakeup, handle) = (Arc::clone(&end), Arc::clone(&self.wakeup), self.handle.clone());
        let task = self.handle.spawn(async move {
            let found = look(channel, targets, (request, limit), &handle).await;
            *lock(&result) = Some(found);
            wakeup.wake();
        });
        redial.link.under_way = Some(UnderWay { sign, end, _task: task });
    }

    /// Leaves the channel, and goes on over the way that has answered.
    fn replace(&mut self, Replacement { reason, way, asked }: Replacement) {
        if !self.leave(&reason) {
            return;
        }
        let Some(redial) = &mut self.redial else { return };
        // It was of the channel that is left.
        redial.link = LinkWatch::default();
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

impl LinkWatch {
    /// So many bytes were received by now: an answer, if there are more than before. Then no way is needed in place of the channel.
    fn received(&mut self, received: u64) {
        self.answer.received(received);
        self.under_way.take_if(|look| matches!(look.sign, Sign::NoAnswer(before) if before != received));
    }

    /// The look that is due, which is made then, and how often one for the same reason has found no way.
    fn due(&mut self, received: u64, now: Instant) -> Option<(Sign, u32)> {
        if self.looks.take(now) {
            return Some((Sign::Port, self.looks.without_way));
        }
        let is_due = self.answer.deadline().is_some_and(|at| now >= at);
        is_due.then(|| (Sign::NoAnswer(received), self.answer.looks()))
    }
}

/// The channel that is looked at.
struct LookedAt {
    own: OwnAddresses,
    former: FormerEnds,
    sign: Sign,
    channel: Arc<Channel>,
}

impl LookedAt {
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

/// Looks whether the channel is lost, and then for a way over which the peer's host answers within `limit`.
async fn look(
    channel: LookedAt,
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
    use std::sync::{Weak, mpsc};

    use super::super::super::tests::parts_of;
    use super::super::RedialParts;
    use super::*;
    use crate::connection::presence::Pinger;
    use crate::control::channel_tests::{pair, soon};
    use crate::control::resume::ResumeOffer;
    use crate::events::EventLoop;

    /// Once, until it answers.
    #[test]
    fn the_peer_is_asked_when_the_data_path_fails() {
        let (channel, peer) = pair();
        let events = EventLoop::acquire().unwrap();
        let (report, questions) = mpsc::channel();
        let task = events.spawn(move |handle| {
            let handle = handle.clone();
            async move {
                let redial = RedialParts {
                    limit: Duration::from_secs(15),
                    keepalive: None,
                    key: None,
                    own: OwnAddresses::default(),
                    notify: None,
                    entry: None,
                };
                let presence = Presence::Pinged(Pinger::of(1, Duration::from_secs(3600)).unwrap());
                let parts = parts_of(channel, presence, Some(redial));
                let mut driver = Driver::new(&Weak::new(), parts, handle.clone()).unwrap();
                driver.data_path_failed();
                assert_eq!(driver.link_deadline(), None, "it cannot be made anew");
                let addresses = vec![driver.peer_address.ip()];
                driver.take_offer(ResumeOffer { name: 1, token: [7; 32], port: 1, addresses });
                let deadline = soon();
                for _ in 0..2 {
                    let before = driver.socket.bytes_received();
                    driver.data_path_failed();
                    driver.data_path_failed();
                    assert!(driver.link_deadline().is_some());
                    while driver.socket.bytes_received() == before {
                        assert!(Instant::now() < deadline, "the answer was not read");
                        driver.receive().await;
                        handle.sleep(Duration::from_micros(10)).await;
                    }
                    driver.tend_link();
                    assert_eq!(driver.link_deadline(), None, "it has answered");
                    report.send(()).unwrap();
                }
            }
        });
        let ping = ChannelFrame::Ping(0).encode();
        for _ in 0..2 {
            let mut asked = vec![0; ping.len()];
            peer.read_exact_by(&mut asked, soon()).unwrap();
            assert_eq!(asked, ping);
            peer.write_all_by(&ChannelFrame::Pong(0).encode(), soon()).unwrap();
            questions.recv().unwrap();
        }
        drop(task);
        assert!(!peer.has_unread(), "asked once for each");
    }

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
