//! The link under the control channel: where a port of this host goes down, it may be that of the NIC over which the channel goes; where lanes
//! or a rail fail, the link may be lost elsewhere, and the peer does not answer over the channel. Then the channel is made anew soon over
//! another way, if one leads to the peer. Else its pings would miss it after seconds, and what waits for the peer to be quiet would wait as long.
//!
//! The channel is left only once the peer's host has answered over another way: TCP outlives a link that is down for a moment.

mod answer;
mod check;
mod port_down;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::answer::Answer;
use self::check::{CheckedChannel, Found, Replacement, Sign, check};
use self::port_down::PortChecks;
use super::super::{Driver, Observation};
use super::End;
use crate::connection::{DeviceHealth, Presence};
use crate::control::ChannelFrame;
use crate::control::resume::{FormerEnds, try_limit};
use crate::events::{Task, Waiter};
use crate::sync::{Mutex, lock};

/// How long the rest of the dialogue may take, over a way that has answered.
const REST: Duration = Duration::from_secs(1);

/// What is known of the link.
#[derive(Debug, Default)]
pub(super) struct LinkWatch {
    port: PortChecks,
    answer: Answer,
    under_way: Option<UnderWay>,
}

/// A check. Its task ends with it.
#[derive(Debug)]
struct UnderWay {
    sign: Sign,
    end: Arc<Mutex<Option<Found>>>,
    _task: Task,
}

impl Driver {
    /// Takes note of ports that have gone down.
    pub(in super::super) fn note_ports(&mut self, seen: &[Observation]) {
        let Some(link) = self.link_of_use() else { return };
        for seen in seen {
            if let Observation::Device { health: DeviceHealth::PortDown(since), .. } = *seen {
                link.port.port_is_down(since);
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

    /// When the link is to be checked.
    pub(in super::super) fn link_deadline(&self) -> Option<Instant> {
        let link = &self.redial.as_ref()?.link;
        let deadlines = link.port.deadline().into_iter().chain(link.answer.deadline());
        deadlines.min().filter(|_| link.under_way.is_none())
    }

    /// Begins a check that is due, and has the channel replaced once that has found another way.
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
            match (found, sign) {
                (Found::Channel, Sign::Port) => {}
                (Found::NoWay, Sign::Port) => redial.link.port.no_way_answers(now),
                (Found::Channel | Found::NoWay, Sign::NoAnswer(_)) => redial.link.answer.checked(now),
                // What has arrived meanwhile is read later in the turn.
                (Found::Replacement(_), Sign::NoAnswer(_)) if self.socket.has_unread() => {
                    redial.link.answer.checked(now);
                }
                (Found::Replacement(replacement), _) => return self.replace(*replacement),
            }
        }
        let Some((sign, without_way)) = redial.link.due(received, now) else { return };
        redial.generation += 1;
        let request = (offer.name, redial.generation);
        let channel = CheckedChannel {
            own: redial.parts.own.clone(),
            former: FormerEnds { own: stream.local().ip(), peer: self.peer_address.ip() },
            sign,
            channel: Arc::clone(&self.socket),
        };
        let (targets, limit) = (offer.targets(), try_limit(without_way));
        let end: Arc<Mutex<Option<_>>> = Arc::default();
        let (result, wakeup, handle) = (Arc::clone(&end), Arc::clone(&self.wakeup), self.handle.clone());
        let task = self.handle.spawn(async move {
            let found = check(channel, targets, (request, limit), &handle).await;
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
        self.under_way.take_if(|check| matches!(check.sign, Sign::NoAnswer(before) if before != received));
    }

    /// The check that is due, which is made then, and how often one for the same reason has found no way.
    fn due(&mut self, received: u64, now: Instant) -> Option<(Sign, u32)> {
        if self.port.take(now) {
            return Some((Sign::Port, self.port.without_way));
        }
        let is_due = self.answer.deadline().is_some_and(|at| now >= at);
        is_due.then(|| (Sign::NoAnswer(received), self.answer.checks()))
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
    use crate::control::resume::{OwnAddresses, ResumeOffer};
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
}
