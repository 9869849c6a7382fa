//! A channel that is away, and is made anew over another address: see [`resume`](crate::control::resume).
//!
//! While it is away the machine's clock stands still: rebuilds and Quiesce wait, frames for the peer wait in the machine, and
//! nothing is given up because the peer does not answer. What is there to see here goes on: lanes, devices, transfers, rails.

mod link;

use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::link::LinkWatch;
use super::super::LostReason;
use super::Driver;
use super::flap_damping::FlapDamping;
use super::ordered_reports::OrderedReports;
use super::relinking::Relinking;
use crate::auth::AuthKey;
use crate::connection::{Connection, Presence};
use crate::control::resume::{
    Due, FormerEnds, Offered, OwnAddresses, Redialing, ResumeEntry, ResumeError, ResumeListener, ResumeOffer,
    Resumed, Try, Way, find_ways, resume,
};
use crate::control::{ChannelFrame, NotifyRoute, Stream};
use crate::events::{Task, Waiter, with_upgraded};
use crate::sync::{Mutex, lock};

/// What a connection with a channel that can be made anew brings.
#[derive(Debug)]
pub(in crate::connection) struct RedialParts {
    /// For how long it may be away.
    pub(in crate::connection) limit: Duration,
    /// That of its sockets.
    pub(in crate::connection) keepalive: Option<Duration>,
    /// The key that both ends have proven.
    pub(in crate::connection) key: Option<AuthKey>,
    /// From where the leader dials.
    pub(in crate::connection) own: OwnAddresses,
    /// How the notification socket is made anew.
    pub(in crate::connection) notify: Option<NotifyRoute>,
    /// What the leader dials for, on the follower's side, and the listener, which is there for as long.
    pub(in crate::connection) entry: Option<(Arc<ResumeEntry>, Arc<ResumeListener>)>,
}

/// The state of that.
#[derive(Debug)]
pub(super) struct Redial {
    parts: RedialParts,
    /// What the follower has told, on the leader's side.
    offer: Option<ResumeOffer>,
    /// Number of the last request.
    generation: u64,
    away: Option<Away>,
    /// For how long it has been away before.
    total: Duration,
    /// Channels that were lost again soon after they were made.
    damping: FlapDamping,
    /// Whether its link is there.
    link: LinkWatch,
    reports: Arc<OrderedReports>,
    relinking: Option<Relinking>,
}

#[derive(Debug)]
struct Away {
    since: Instant,
    /// When the connection is given up.
    until: Instant,
    reason: String,
    /// The ends of the socket that was lost.
    former: FormerEnds,
    /// Frames that this end has received.
    received: u64,
    /// The leader dials.
    redialing: Option<Redialing>,
    under_way: Option<UnderWay>,
}

/// What is under way. Its task ends with it.
#[derive(Debug)]
struct UnderWay {
    end: Arc<Mutex<Option<End>>>,
    _task: Task,
}

/// The end of that.
#[derive(Debug)]
enum End {
    Ways(Vec<Way>),
    Tried(Way, Result<Resumed, ResumeError>),
}

/// What it takes to dial beside the connection.
#[derive(Debug)]
pub(super) struct Dialling {
    pub(super) offer: ResumeOffer,
    pub(super) generation: u64,
    pub(super) key: Option<AuthKey>,
    pub(super) own: OwnAddresses,
    pub(super) former: FormerEnds,
    pub(super) redialing: Redialing,
}

impl Redial {
    pub(super) fn new(mut parts: RedialParts) -> Self {
        let limit = parts.limit;
        let relinking = parts.notify.take().map(|route| Relinking::new(route, limit));
        Self {
            parts,
            offer: None,
            generation: 0,
            away: None,
            total: Duration::ZERO,
            damping: FlapDamping::default(),
            link: LinkWatch::default(),
            reports: Arc::default(),
            relinking,
        }
    }

    /// Where the peer is: the addresses that it has told.
    fn addresses(&self) -> Vec<IpAddr> {
        self.offer.as_ref().map_or_else(Vec::new, |offer| offer.addresses.clone())
    }

    fn is_possible(&self) -> bool {
        self.offer.is_some() || self.parts.entry.is_some()
    }
}

impl Driver {
    /// Whether the channel is away.
    pub(super) fn is_away(&self) -> bool {
        self.redial.as_ref().is_some_and(|redial| redial.away.is_some())
    }

    /// The machine's time: it stands still while the channel is away.
    pub(super) fn now(&self) -> Instant {
        let now = Instant::now();
        let Some(redial) = &self.redial else { return now };
        let now = redial.away.as_ref().map_or(now, |away| away.since);
        now.checked_sub(redial.total).unwrap_or(now)
    }

    /// When the machine's deadline is.
    pub(super) fn machine_deadline(&self) -> Option<Instant> {
        let total = self.redial.as_ref().map_or(Duration::ZERO, |redial| redial.total);
        self.machine.deadline().filter(|_| !self.is_away()).map(|deadline| deadline + total)
    }

    /// When something is to be done about a channel that is away.
    pub(super) fn redial_deadline(&self) -> Option<Instant> {
        let redial = self.redial.as_ref()?;
        // A channel that the peer has dialled may wait for that.
        let taken = redial.parts.entry.as_ref().and_then(|_| redial.damping.next(Instant::now()));
        let own = redial.away.as_ref().map(|away| match (&away.redialing, &away.under_way) {
            (Some(redialing), None) => redialing.deadline(),
            _ => away.until,
        });
        own.into_iter().chain(taken).min()
    }

    /// When the notification socket is to be looked at.
    pub(super) fn relink_deadline(&self) -> Option<Instant> {
        self.redial.as_ref()?.relinking.as_ref()?.deadline()
    }

    /// Makes the notification socket anew, if it is needed.
    pub(super) fn tend_notifications(&mut self) {
        let is_over = self.machine.is_over();
        let Some(redial) = self.redial.as_mut().filter(|_| !is_over) else { return };
        let addresses = redial.addresses();
        let Some(relinking) = &mut redial.relinking else { return };
        let hosts = [&[self.peer_address.ip()][..], &addresses].concat();
        // As the channel: the peer expects this end's sockets from there.
        let peer = (self.peer_address, self.socket.stream());
        relinking.tend(&self.connection, (hosts, peer), &self.wakeup, &self.handle);
    }

    /// The follower has told where it can be dialled.
    pub(super) fn take_offer(&mut self, offer: ResumeOffer) {
        // Without an address there is nothing to dial, and the connection ends with its channel.
        let is_useful = self.leads && !offer.addresses.is_empty();
        if let Some(redial) = self.redial.as_mut().filter(|_| is_useful) {
            redial.offer.get_or_insert(offer);
            with_upgraded(&self.handle, &self.connection, |connection| connection.channel_is_resumable());
        }
    }

    /// The channel has failed: it is made anew if that is possible, else the connection is lost.
    pub(super) fn channel_failed(&mut self, error: &io::Error) {
        // What a peer says that is malformed, it says again.
        if error.kind() == ErrorKind::InvalidData || !self.leave(&LostReason::of_channel(error).to_string()) {
            self.machine.channel_lost(error);
        }
    }

    /// Takes the channel out of use; false if it cannot be made anew. True also if it is away already.
    pub(super) fn leave(&mut self, reason: &str) -> bool {
        if self.machine.is_over() || !self.redial.as_ref().is_some_and(Redial::is_possible) {
            return false;
        }
        if self.is_away() {
            return true;
        }
        // The peer has closed, and its socket fails before the frame that says so is read.
        if self.socket.has_goodbye() {
            self.machine.frame(ChannelFrame::Goodbye, self.now());
            return true;
        }
        let own = self.socket.stream().map_or_else(|| self.peer_address.ip(), |stream| stream.local().ip());
        let former = FormerEnds { own, peer: self.peer_address.ip() };
        let Some(redial) = &mut self.redial else { return false };
        let (now, received) = (Instant::now(), self.socket.suspend());
        redial.damping.lost(now);
        let limit = redial.parts.limit.saturating_sub(redial.damping.spent());
        let round = redial.damping.round();
        let redialing = redial.offer.as_ref().map(|_| Redialing::new(limit, round, now));
        let (until, under_way, reason_text) = (now + limit, None, reason.to_owned());
        redial.away =
            Some(Away { since: now, until, reason: reason_text, former, received, redialing, under_way });
        self.forget_socket();
        with_upgraded(&self.handle, &self.connection, |connection| connection.channel_record.note_lost(now));
        let reason = reason.to_owned();
        self.note(move |connection| connection.report_channel_lost(&reason, limit));
        true
    }

    fn forget_socket(&mut self) {
        (self.channel, self.writable) = (None, None);
        (self.blocked, self.urgent, self.send_by) = (false, false, None);
    }

    /// Takes up a channel that the peer has dialled, or that was dialled here; dials; gives up.
    pub(super) fn tend_channel(&mut self) {
        if self.machine.is_over() {
            return;
        }
        let may_take = |redial: &&Redial| redial.damping.next(Instant::now()).is_none();
        let offered = self
            .redial
            .as_ref()
            .filter(may_take)
            .and_then(|redial| redial.parts.entry.as_ref())
            .and_then(|(entry, _)| entry.take())
            // The leader has given that try up.
            .filter(|offered| !matches!(offered, Offered::Channel { stream, .. } if stream.is_closed()));
        match offered {
            Some(Offered::Ended) => return self.end_with_peer(),
            Some(Offered::Channel { stream, received, proof }) => {
                // The leader has noticed the failure first.
                self.leave("the peer dials it again");
                if self.machine.is_over() {
                    return;
                }
                let greeting = [&proof[..], &self.received_frames().to_le_bytes()].concat();
                self.take_up(stream, &greeting, received);
            }
            None => {}
        }
        self.end_try();
        let Some(redial) = &mut self.redial else { return };
        let Some(away) = &mut redial.away else { return };
        let now = Instant::now();
        if now >= away.until {
            let summary = away.redialing.as_ref().map_or_else(
                || format!("the peer did not dial it again within {} ms", redial.parts.limit.as_millis()),
                Redialing::summary,
            );
            let text = format!("{}; {summary}", away.reason);
            away.under_way = None;
            self.machine.channel_lost(&io::Error::other(text));
        } else if away.under_way.is_none() {
            self.dial(now);
        }
    }

    fn received_frames(&self) -> u64 {
        self.redial.as_ref().and_then(|redial| redial.away.as_ref()).map_or(0, |away| away.received)
    }

    /// Takes the end of what was under way.
    fn end_try(&mut self) {
        let Some(away) = self.redial.as_mut().and_then(|redial| redial.away.as_mut()) else { return };
        let Some(end) = away.under_way.as_ref().and_then(|under_way| lock(&under_way.end).take()) else {
            return;
        };
        away.under_way = None;
        let Some(redialing) = &mut away.redialing else { return };
        match end {
            End::Ways(ways) => redialing.found(ways, Instant::now()),
            End::Tried(_, Ok(resumed)) => self.take_up(resumed.stream, &[], resumed.received),
            End::Tried(_, Err(ResumeError::Ended)) => self.end_with_peer(),
            End::Tried(way, Err(error)) => {
                tracing::debug!("the control channel is not taken up at {way}: {error}");
                redialing.failed(&way, &error.to_string(), Instant::now());
            }
        }
    }

    /// The peer has ended the connection while the channel was away.
    fn end_with_peer(&mut self) {
        if let Some(redial) = &mut self.redial {
            redial.away = None;
        }
        self.machine.frame(ChannelFrame::Goodbye, Instant::now());
    }

    /// For telling the peer that the connection ends: on the side that dials, while the channel is away.
    pub(super) fn take_dialling(&mut self) -> Option<Dialling> {
        let Redial { parts, offer, generation, away, .. } = self.redial.take()?;
        let (away, offer) = (away?, offer?);
        let (former, redialing) = (away.former, away.redialing?);
        Some(Dialling { offer, generation, key: parts.key, own: parts.own, former, redialing })
    }

    /// Begins what is due.
    fn dial(&mut self, now: Instant) {
        let Some(away) = self.redial.as_mut().and_then(|redial| redial.away.as_mut()) else { return };
        match away.redialing.as_mut().and_then(|redialing| redialing.due(now)) {
            Some(Due::Ways) => self.find_ways(),
            Some(Due::Try(due)) => self.begin_try(due),
            None => {}
        }
    }

    /// On a helper thread: the state of interfaces is in files.
    fn find_ways(&mut self) {
        let Some(redial) = &self.redial else { return };
        let (Some(offer), Some(away)) = (&redial.offer, &redial.away) else { return };
        let (targets, own, former) = (offer.targets(), redial.parts.own.clone(), away.former);
        let handle = self.handle.clone();
        self.begin(
            async move { End::Ways(handle.blocking(move || find_ways(&own, &targets, former)).await) },
        );
    }

    fn begin_try(&mut self, due: Try) {
        let Some(redial) = &mut self.redial else { return };
        let (Some(offer), Some(away)) = (&redial.offer, &redial.away) else { return };
        redial.generation += 1;
        let (name, token, generation) = (offer.name, offer.token, redial.generation);
        let (key, keepalive, received) = (redial.parts.key.clone(), redial.parts.keepalive, away.received);
        let waiter = Waiter::on_loop(&self.handle);
        self.begin(async move {
            let (Try { way, deadline }, secret) = (due, (key.as_ref(), &token));
            let times = (deadline, keepalive);
            let ended = resume(&way, (name, generation), secret, received, times, &waiter).await;
            End::Tried(way, ended)
        });
    }

    fn begin(&mut self, work: impl Future<Output = End> + 'static) {
        let Some(away) = self.redial.as_mut().and_then(|redial| redial.away.as_mut()) else { return };
        let end: Arc<Mutex<Option<_>>> = Arc::default();
        let (result, wakeup) = (Arc::clone(&end), Arc::clone(&self.wakeup));
        let task = self.handle.spawn(async move {
            let ended = work.await;
            *lock(&result) = Some(ended);
            wakeup.wake();
        });
        away.under_way = Some(UnderWay { end, _task: task });
    }

    /// Goes on over `stream`. The peer has received `count` frames.
    fn take_up(&mut self, stream: Stream, greeting: &[u8], count: u64) {
        let address = stream.peer();
        let taken = self.socket.resume(stream, greeting, count);
        let watched = taken.and_then(|stream| self.handle.watch(stream));
        match watched {
            Ok(watched) => self.channel = Some(watched),
            Err(error) => return self.machine.channel_lost(&error),
        }
        self.peer_address = address;
        let Some(redial) = &mut self.redial else { return };
        let Some(away) = redial.away.take() else { return };
        let time = away.since.elapsed();
        redial.total += time;
        redial.damping.made(time, Instant::now());
        // A pinger that has found no answer has ended, and one that could not ping over the former socket has left this connection out.
        if let Presence::Pinged(pinger) = &self.presence {
            match pinger.renewed() {
                Ok(pinger) => {
                    pinger.add(&self.socket, &self.wakeup);
                    self.presence = Presence::Pinged(pinger);
                }
                Err(error) => {
                    tracing::warn!("cannot ping a peer, its end is detected by its sockets only: {error}");
                    self.presence = Presence::Sockets;
                }
            }
        }
        // Its socket may be of the path that has failed, without a sign of that.
        if let Some(relinking) = &mut redial.relinking {
            relinking.begin_anew();
        }
        let tries = away.redialing.as_ref().map_or(0, Redialing::tries);
        // Before the peer is told: it makes its notification socket anew from that address.
        with_upgraded(&self.handle, &self.connection, move |connection| {
            connection.peer_is_at(address.ip());
            connection.channel_record.note_resumed();
        });
        self.note(move |connection| connection.report_channel_resumed(address, time, tries));
    }

    /// Has a helper thread tell operators, in the order of the calls: events may wait for a file.
    fn note(&self, call: impl FnOnce(&Connection) + Send + 'static) {
        let Some(redial) = &self.redial else { return };
        let (reports, connection) = (Arc::clone(&redial.reports), std::sync::Weak::clone(&self.connection));
        reports.push(Box::new(call));
        self.handle.detach(move || {
            if let Some(connection) = connection.upgrade() {
                reports.tell(&connection);
            }
        });
    }
}
