//! What operators are told of the control channel of a connection.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::Connection;
use crate::observe::{ChannelInfo, process_counts, report};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, lock};

/// Written by the task of the connection and read by any thread. The atomics guard nothing: Relaxed.
#[derive(Debug, Default)]
pub struct ChannelRecord {
    resumable: AtomicBool,
    lost: AtomicU64,
    resumed: AtomicU64,
    /// Since when it is away.
    away: Mutex<Option<Instant>>,
}

impl ChannelRecord {
    /// Whether the channel is away now.
    pub fn is_away(&self) -> bool {
        lock(&self.away).is_some()
    }

    /// Whether it can be made anew: the follower has a listener for that, and the leader has been told where.
    pub fn is_resumable(&self) -> bool {
        self.resumable.load(Ordering::Relaxed)
    }

    /// It can be made anew from now on.
    pub(super) fn set_resumable(&self) {
        self.resumable.store(true, Ordering::Relaxed);
    }

    /// It is away `since` then.
    pub(super) fn note_lost(&self, since: Instant) {
        *lock(&self.away) = Some(since);
        self.lost.fetch_add(1, Ordering::Relaxed);
    }

    /// It was made anew.
    pub(super) fn note_resumed(&self) {
        self.resumed.fetch_add(1, Ordering::Relaxed);
        *lock(&self.away) = None;
    }

    /// How often it has failed, and was or is to be made anew.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// How often it was made anew.
    pub fn resumed(&self) -> u64 {
        self.resumed.load(Ordering::Relaxed)
    }

    /// What is told of it.
    pub(super) fn info(&self) -> ChannelInfo {
        let away = lock(&self.away).map(|since| since.elapsed());
        ChannelInfo { lost: self.lost(), resumed: self.resumed(), away }
    }
}

impl Connection {
    /// The channel has failed, and is made anew if that succeeds within `limit`.
    pub(super) fn report_channel_lost(&self, reason: &str, limit: Duration) {
        process_counts().channel_lost();
        let (peer, ms) = (self.peer.control, limit.as_millis());
        let what = if self.leads { "is dialled again" } else { "waits for the peer to dial it again" };
        report!(
            warn,
            ChannelLost,
            peer = peer,
            "the control channel is lost, the connection goes on and {what} for {ms} ms (FLAGCX_P2P_CONTROL_REDIAL): {reason}"
        );
    }

    /// The leader has been told where to dial it.
    pub(super) fn channel_is_resumable(&self) {
        self.channel_record.set_resumable();
    }

    /// The peer's sockets come from there now.
    pub(super) fn peer_is_at(&self, address: IpAddr) {
        if let Some(host) = &mut *lock(&self.connected_host) {
            host.move_to(address);
        }
    }

    /// It is there again, after `time` and so many tries of this end.
    pub(super) fn report_channel_resumed(&self, address: SocketAddr, time: Duration, tries: u32) {
        process_counts().channel_resumed();
        let (peer, ms) = (self.peer.control, time.as_millis());
        let dialled = if self.leads { format!(", dialled {tries} times") } else { String::new() };
        report!(
            info,
            ChannelResumed,
            peer = peer,
            "the control channel is made anew with {address} after {ms} ms{dialled}"
        );
    }

    /// What is known of its control channel.
    #[doc(hidden)]
    pub fn channel_record(&self) -> &ChannelRecord {
        &self.channel_record
    }

    /// Breaks the control channel as a network that fails does, for tests.
    #[doc(hidden)]
    pub fn break_channel(&self) {
        self.channel.shutdown();
    }

    /// Breaks the notification socket in the same way, for tests.
    #[doc(hidden)]
    pub fn break_notifications(&self) {
        if let Some(sender) = &self.notify {
            sender.break_socket();
        }
    }
}
