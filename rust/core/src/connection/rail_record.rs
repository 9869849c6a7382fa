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
        Self { rail, peer, nic: nic_name(nic), told: Mutex::default() }
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

    /// The shortest of its last answers to probes.
    pub fn set_latency(&self, latency: Duration) {
        self.lock().latency = Some(latency);
    }

    /// It has been added to its connection. Not called of the first one.
    pub fn added(&self) {
        let (rail, peer, nic) = (self.rail, &self.peer, &self.nic);
        let peer_nic = self.peer_nic_in_words();
        report!(info, RailAdded, peer = peer, device = nic, "rail {rail} is added: {nic} to {peer_nic}");
    }

    /// A further rail could not be made, and has no record: `reason` says what was tried, with errno, and what to do.
    pub fn refused(rail: u8, peer: SocketAddr, nic: &DeviceAttributes, reason: &str) {
        let nic = nic_name(nic);
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
        let (rail, peer, nic, ms) = (self.rail, &self.peer, &self.nic, left.as_millis());
        report!(
            warn,
            RailPaused,
            peer = peer,
            device = nic,
            "rail {rail} over {nic} is paused for {ms} ms: {reason}"
        );
    }

    /// It is not up after all, and takes no parts for `left` more: the attempt to use it again has failed. No event.
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
fn nic_name(nic: &DeviceAttributes) -> String {
    format!("{}:{}", nic.name, nic.port)
}
