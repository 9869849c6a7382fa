//! What is known of a rail beside what its lanes count: its NICs, state, rate, pauses.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::fabric::DeviceAttributes;
use crate::observe::{RailPause, RailStatus, report};
use crate::rails::PauseReason;

/// What operators are told of a rail. The task of its connection writes it, rarely, with an event for each change of its state; any
/// thread reads it. Transfers do not.
#[derive(Debug)]
pub struct RailRecord {
    rail: u8,
    peer: SocketAddr,
    nic: String,
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    peer_nic: String,
    state: State,
    /// When it took parts last; `None` while it takes them.
    left_at: Option<Instant>,
    rate: u64,
    latency: Option<Duration>,
    moved_parts: u64,
    pauses: [u64; PauseReason::ALL.len()],
    last_pause: Option<(PauseReason, Instant)>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Up,
    PausedUntil(Instant),
    Down,
}

/// What a [`RailRecord`] says at one moment.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) peer_nic: String,
    pub(super) status: RailStatus,
    pub(super) rate: u64,
    pub(super) latency: Option<Duration>,
    pub(super) moved_parts: u64,
    /// By the place of the reason in [`PauseReason::ALL`].
    pub(super) pauses: [u64; PauseReason::ALL.len()],
    pub(super) last_pause: Option<RailPause>,
}

impl RailRecord {
    /// Of a rail that is up, over this NIC, to the peer with this control address.
    pub fn new(rail: u8, peer: SocketAddr, nic: &DeviceAttributes) -> Self {
        Self::named(rail, peer, nic_name(&nic.name, nic.port))
    }

    fn named(rail: u8, peer: SocketAddr, nic: String) -> Self {
        Self { rail, peer, nic, told: Mutex::default() }
    }

    /// Its number in the connection.
    pub fn rail(&self) -> u8 {
        self.rail
    }

    /// Its NIC of this host: name and port, `mlx5_0:1`.
    pub fn nic(&self) -> &str {
        &self.nic
    }

    /// The peer has told the name of its NIC.
    pub fn set_peer_nic(&self, name: &str) {
        name.clone_into(&mut self.lock().peer_nic);
    }

    /// It was measured to carry so many bytes a second; 0: that is not known any more.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.lock().rate = bytes_per_second;
    }

    /// The shortest of its last answers to probes; zero before the first.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = Some(latency).filter(|latency| !latency.is_zero());
    }

    /// It has been added to its connection. Not called of the first one.
    pub fn added(&self) {
        let (rail, peer, nic) = (self.rail, &self.peer, &self.nic);
        let peer_nic = self.peer_nic_in_words();
        report!(info, RailAdded, peer = peer, device = nic, "rail {rail} is added: {nic} to {peer_nic}");
    }

    /// A further rail could not be made, and has no record: `reason` says what was tried, with errno, and what to do.
    pub fn refused(rail: u8, peer: SocketAddr, nic: &str, reason: &str) {
        report!(
            info,
            RailRefused,
            peer = peer,
            device = nic,
            "rail {rail} over {nic} is not added, the connection goes on without it: {reason}"
        );
    }

    /// It takes no parts for `left`.
    pub fn paused(&self, reason: PauseReason, left: Duration) {
        let until = Instant::now() + left;
        self.leave(reason, State::PausedUntil(until));
        let (rail, peer, nic) = (self.rail, &self.peer, &self.nic);
        // A pause of 4 ms has a little less left by now.
        let ms = left.as_micros().div_ceil(1000);
        report!(
            warn,
            RailPaused,
            peer = peer,
            device = nic,
            "rail {rail} over {nic} is paused for {ms} ms: {reason}"
        );
    }

    /// It is not up yet, and takes no parts for `left` more: the attempt to use it again has failed, or is to come now that its port is back.
    /// No event.
    pub fn still_paused(&self, left: Duration) {
        self.lock().state = State::PausedUntil(Instant::now() + left);
    }

    /// It takes no parts until its port or its device is back.
    pub fn down(&self, reason: PauseReason) {
        self.leave(reason, State::Down);
        let (rail, peer, nic) = (self.rail, &self.peer, &self.nic);
        report!(warn, RailPaused, peer = peer, device = nic, "rail {rail} over {nic} is down: {reason}");
    }

    /// It takes parts again. Nothing if it does already.
    pub fn up(&self) {
        let mut told = self.lock();
        told.state = State::Up;
        let Some(left_at) = told.left_at.take() else { return };
        drop(told);
        let (rail, peer, nic, ms) = (self.rail, &self.peer, &self.nic, left_at.elapsed().as_millis());
        report!(info, RailUp, peer = peer, device = nic, "rail {rail} over {nic} is up again after {ms} ms");
    }

    /// So many parts with so many bytes were taken from it and posted on others.
    pub fn moved(&self, parts: u64, bytes: u64) {
        self.lock().moved_parts += parts;
        let (rail, peer, nic) = (self.rail, &self.peer, &self.nic);
        report!(
            info,
            PartsMoved,
            peer = peer,
            device = nic,
            "{parts} parts with {bytes} bytes were moved from rail {rail} over {nic} to other rails"
        );
    }

    pub(super) fn read(&self) -> Recorded {
        let told = self.lock();
        Recorded {
            peer_nic: told.peer_nic.clone(),
            status: match told.state {
                State::Up => RailStatus::Up,
                State::PausedUntil(until) => {
                    RailStatus::Paused { left: until.saturating_duration_since(Instant::now()) }
                }
                State::Down => RailStatus::Down,
            },
            rate: told.rate,
            latency: told.latency,
            moved_parts: told.moved_parts,
            pauses: told.pauses,
            last_pause: told.last_pause.map(|(reason, at)| RailPause { reason, ago: at.elapsed() }),
        }
    }

    fn leave(&self, reason: PauseReason, state: State) {
        let now = Instant::now();
        let mut told = self.lock();
        told.state = state;
        told.left_at = told.left_at.or(Some(now));
        told.last_pause = Some((reason, now));
        if let Some(count) = told.pauses.get_mut(reason as usize) {
            *count += 1;
        }
    }

    fn peer_nic_in_words(&self) -> String {
        let name = self.lock().peer_nic.clone();
        if name.is_empty() { "a NIC of the peer that it has not named".to_owned() } else { name }
    }

    /// The data behind the lock is consistent after every statement, so a poisoned lock is usable.
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How a NIC is called: name and port.
pub(super) fn nic_name(name: &str, port: u8) -> String {
    format!("{name}:{port}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::{EventKind, event_log};

    /// The record of a rail to a peer with this port, by which it is found in the event log of the process.
    fn record(port: u16) -> RailRecord {
        RailRecord::named(1, SocketAddr::from(([192, 0, 2, 1], port)), "mlx5_1:1".to_owned())
    }

    /// The kinds and texts of the events about it.
    fn events(record: &RailRecord) -> Vec<(EventKind, String)> {
        let (peer, nic) = (record.peer.to_string(), record.nic.clone());
        let of_rail = event_log().recent().into_iter().filter(|event| event.peer.as_ref() == Some(&peer));
        of_rail
            .inspect(|event| assert_eq!(event.device.as_ref(), Some(&nic)))
            .map(|event| (event.kind, event.text))
            .collect()
    }

    #[test]
    fn changes_are_events_and_are_read_back() {
        let rail = record(1);
        assert_eq!(rail.read().status, RailStatus::Up);
        rail.set_peer_nic("mlx5_9:1");
        rail.added();
        rail.paused(PauseReason::Silent, Duration::from_secs(3600));
        let RailStatus::Paused { left } = rail.read().status else { panic!("{:?}", rail.read()) };
        assert!(left > Duration::from_secs(3590) && left <= Duration::from_secs(3600), "{left:?}");
        rail.still_paused(Duration::ZERO);
        assert_eq!(rail.read().status, RailStatus::Paused { left: Duration::ZERO }, "it is being tried");
        rail.up();
        rail.up();
        rail.down(PauseReason::PortDown);
        rail.moved(3, 4096);
        rail.moved(2, 1);
        rail.set_rate(7);
        rail.set_latency(Duration::from_micros(3));
        let told = rail.read();
        assert_eq!((told.status, told.pauses, told.moved_parts), (RailStatus::Down, [1, 0, 1, 0], 5));
        assert_eq!((told.rate, told.latency), (7, Some(Duration::from_micros(3))));
        assert_eq!(told.last_pause.map(|pause| pause.reason), Some(PauseReason::PortDown));
        let events = events(&rail);
        let kinds: Vec<_> = events.iter().map(|(kind, _)| *kind).collect();
        use EventKind::{PartsMoved, RailAdded, RailPaused, RailUp};
        assert_eq!(kinds, [RailAdded, RailPaused, RailUp, RailPaused, PartsMoved, PartsMoved]);
        let texts: Vec<_> = events.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(texts[0], "rail 1 is added: mlx5_1:1 to mlx5_9:1");
        assert_eq!(
            texts[1],
            "rail 1 over mlx5_1:1 is paused for 3600000 ms: it completed nothing and did not answer a probe"
        );
        assert!(texts[2].starts_with("rail 1 over mlx5_1:1 is up again after "), "{texts:?}");
        assert_eq!(texts[3], "rail 1 over mlx5_1:1 is down: the port at one of its ends went down");
        assert_eq!(texts[4], "3 parts with 4096 bytes were moved from rail 1 over mlx5_1:1 to other rails");
    }

    #[test]
    fn a_pause_of_which_most_is_left_is_told_whole() {
        let rail = record(3);
        rail.paused(PauseReason::Silent, Duration::from_micros(3_998));
        let (_, text) = events(&rail).remove(0);
        assert!(text.starts_with("rail 1 over mlx5_1:1 is paused for 4 ms: "), "{text}");
    }

    #[test]
    fn a_rail_that_is_paused_again_has_been_away_since_the_first_time() {
        let rail = record(2);
        rail.paused(PauseReason::Errors, Duration::ZERO);
        let first = rail.lock().left_at;
        rail.down(PauseReason::DeviceLost);
        assert_eq!(rail.lock().left_at, first);
        assert_eq!(rail.read().pauses, [0, 1, 0, 1]);
    }

    #[test]
    fn reasons_are_counted_at_their_places() {
        for (place, reason) in PauseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
    }
}
