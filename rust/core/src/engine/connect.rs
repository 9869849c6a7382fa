//! Both roles of becoming connected.

use std::cell::Cell;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use super::{Accepted, Engine, EngineError};
use crate::connection::{
    Connection, Context, Established, EstablishedRedial, LaneBuilder, PeerInfo, Presence,
};
use crate::control::resume::{OwnAddresses, ResumeListener};
use crate::control::wire::{Features, RegionEntry, SliceSettings};
use crate::control::{
    self, Channel, Dial, DialError, Dialed, HandshakeError, Limits, LocalSide, Peer, Reason, Step, Stream,
};
use crate::events::Waiter;
use crate::memory::{Cursor, RemoteRegions};
use crate::notify::Sender;
use crate::observe::report;
use crate::process::ProcessIdentity;

impl Engine {
    /// Makes a new connection to the control listener of a peer at `host`, a name or an address, and `port`.
    ///
    /// `remote_gpu` is the GPU index of a peer that reports none; -1 if it is not known. `same_process` says that the peer is
    /// an engine of this process, which is verified. [`Engine::session`] finds a connection again instead of making one.
    ///
    /// A name is looked up, and each of its addresses tried. Look-up and TCP connection end within
    /// `FLAGCX_P2P_CONNECT_TIMEOUT_MS`, the call within that plus `FLAGCX_P2P_HANDSHAKE_TIMEOUT_MS`, however many addresses
    /// there are.
    ///
    /// # Errors
    /// [`EngineError::Peer`] with what was tried at each address; [`EngineError::Unavailable`] for an engine without a device;
    /// [`EngineError::Closed`] for one that is closed, before or meanwhile; [`EngineError::Config`] when the key file cannot be
    /// read.
    pub fn connect(
        self: &Arc<Self>,
        host: &str,
        port: u16,
        remote_gpu: i32,
        same_process: bool,
    ) -> Result<Arc<Connection>, EngineError> {
        let began = Instant::now();
        self.require_open(CONNECT)?;
        let context = self.context()?;
        let error = |reason: DialError| match self.require_open(CONNECT) {
            Ok(()) => EngineError::Peer {
                operation: "connect to",
                peer: format!("{host}:{port}"),
                reason: reason.to_string(),
            },
            Err(closed) => closed,
        };
        // What the table says that the peer gets is where the changes begin that it is told later.
        let told = Cell::new(Cursor::default());
        let regions = || {
            let (regions, cursor) = context.registry.announced().table();
            told.set(cursor);
            regions
        };
        let limits = self.limits()?;
        let slices = |change| change_slices(context, change);
        let local = self.local_side(context, &regions, &slices, same_process);
        let mut dial = Dial::new(host, port, &limits).map_err(error)?;
        loop {
            let Dialed { stream, target, deadline } = dial.connect().map_err(error)?;
            let mut lanes = LaneBuilder::new(Arc::clone(context));
            match control::initiate(stream, target, &local, &mut lanes, &limits, deadline) {
                Ok(peer) => {
                    return self
                        .established(lanes, peer, told.get(), Role::Initiator { remote_gpu }, began)
                        .map(|accepted| accepted.connection);
                }
                Err(failed) => dial.failed(target, &failed),
            }
        }
    }

    /// What the accepting role needs of the engine. Reads the key file.
    pub(super) fn responding(&self) -> Result<Responding, EngineError> {
        let context = Arc::clone(self.context()?);
        Ok(Responding {
            limits: self.limits()?,
            gpu_index: self.gpu_index,
            notify_port: self.notify_port(),
            address: self.address.listen(),
            advertise: self.advertise(),
            features: self.features(&context, self.offers_rails()),
            context,
        })
    }

    /// The connection with a peer that has been accepted.
    pub(super) fn accepted(
        self: &Arc<Self>,
        lanes: LaneBuilder,
        peer: Peer,
        told: Cursor,
        began: Instant,
    ) -> Result<Accepted, EngineError> {
        self.established(lanes, peer, told, Role::Responder, began)
    }

    fn established(
        self: &Arc<Self>,
        lanes: LaneBuilder,
        peer: Peer,
        told: Cursor,
        role: Role,
        began: Instant,
    ) -> Result<Accepted, EngineError> {
        let context = self.context()?;
        let heals = peer.features.is_some_and(|features| features.has(Features::CHANNEL | Features::REBUILD));
        let changes =
            peer.features.is_some_and(|features| features.has(Features::CHANNEL | Features::REGIONS));
        let gpu_index = match role {
            Role::Initiator { remote_gpu } if peer.gpu_index < 0 => remote_gpu,
            _ => peer.gpu_index,
        };
        let ip = peer.ip;
        let largest = peer.features.map_or(0, |features| features.max_notification);
        let notify = match (peer.notify, peer.same_process, peer.features) {
            (Some(stream), _, _) if peer.notify_route.is_some() => Some(Sender::kept(stream, largest)),
            (Some(stream), _, _) => Some(Sender::new(stream, largest)),
            (None, true, Some(features)) => Sender::same_process(features.incarnation, largest),
            _ => None,
        };
        let redials = peer.features.is_some_and(|features| features.has_redial());
        let redial = self.config.control_redial.filter(|_| redials).map(|limit| EstablishedRedial {
            limit,
            keepalive: self.config.keepalive,
            key: peer.key,
            own: OwnAddresses::from_config(&self.config),
            notify: peer.notify_route,
            listener: matches!(role, Role::Responder).then(|| self.resume_listener()).flatten(),
        });
        let channel = match redial {
            Some(_) => Channel::resumable(peer.channel),
            None => Channel::new(peer.channel),
        };
        let established = Established {
            peer: PeerInfo {
                control: peer.control,
                ip,
                gpu_index,
                local: peer.local,
                same_process: peer.same_process,
                ours: peer.features.is_some(),
                incarnation: peer.features.map_or(0, |features| features.incarnation),
            },
            remote: RemoteRegions::of_peer(
                &peer.regions,
                peer.features.is_some_and(|features| features.has(Features::NEEDS_GPU_FLUSH)),
            ),
            told: changes.then_some(told),
            capabilities: peer.capabilities,
            heals,
            rails: peer.features.is_some_and(|features| self.makes_rails_with(&features)),
            other_pairs: peer
                .features
                .is_some_and(|features| self.offers_other_pairs() && features.has_other_pairs()),
            lanes_on_use: peer.features.is_some_and(|features| features.has(Features::LANES_ON_USE)),
            leads: matches!(role, Role::Initiator { .. }),
            began,
            presence: Presence::of(&self.config, peer.features.as_ref()),
            process: peer
                .features
                .map(|features| features.identity)
                .filter(|process| *process != ProcessIdentity::default() && !process.is_own()),
            channel,
            redial,
            notify,
            connected_host: Some(peer.connected_host),
        };
        let connection = Connection::new(Arc::clone(context), lanes, established);
        let is_kept = connection.as_ref().is_ok_and(|connection| self.remember(connection));
        if self.require_open(CONNECT).is_err() {
            // The engine was closed meanwhile, perhaps before the listener was opened.
            drop(self.resume_listener.lock().unwrap_or_else(PoisonError::into_inner).take());
        }
        let connection = connection?;
        if !is_kept {
            connection.close();
            return Err(EngineError::Closed { attempted: CONNECT });
        }
        Ok(Accepted { connection, ip, gpu_index })
    }

    fn local_side<'a>(
        &self,
        context: &Context,
        regions: &'a dyn Fn() -> Vec<RegionEntry>,
        slices: &'a dyn Fn(SliceSettings) -> SliceSettings,
        same_process: bool,
    ) -> LocalSide<'a> {
        LocalSide {
            gpu_index: self.gpu_index,
            notify_port: self.notify_port(),
            same_process,
            address: self.address.listen(),
            advertise: self.advertise(),
            features: self.features(context, self.offers_rails()),
            regions,
            slices,
        }
    }

    fn advertise(&self) -> Option<IpAddr> {
        self.address.advertised.map(|advertised| advertised.ip)
    }

    /// Whether connections may get further rails: there is a NIC for them, and `FLAGCX_P2P_RAILS` allows more than one.
    fn offers_rails(&self) -> bool {
        self.config.rails > 1 && self.nic.device_count() > 1
    }

    /// Whether other pairs of NICs may take over: also with one NIC, for those of the peer.
    fn offers_other_pairs(&self) -> bool {
        self.config.rails > 1
    }

    /// Whether a connection with that peer may get further rails. If one of the ends has a single NIC, once the NIC at the other end is lost.
    fn makes_rails_with(&self, peer: &Features) -> bool {
        let both_have = self.offers_rails() && peer.has_rails();
        let one_has = self.offers_rails() || peer.has_rails();
        both_have || one_has && self.offers_other_pairs() && peer.has_other_pairs()
    }

    fn features(&self, context: &Context, offers_rails: bool) -> Features {
        let rails = if offers_rails { Features::RAILS } else { 0 };
        let of_rails = Features::OTHER_PAIRS | Features::LANES_ON_USE;
        let of_rails = if self.offers_other_pairs() { of_rails } else { 0 };
        let redial = if self.config.control_redial.is_some() { Features::REDIAL } else { 0 };
        let gpu_flush = if context.registry.may_need_gpu_flush() { Features::NEEDS_GPU_FLUSH } else { 0 };
        Features {
            bits: gpu_flush
                | rails
                | of_rails
                | redial
                | Features::CHANNEL
                | Features::REBUILD
                | Features::REGIONS
                | Features::LIVENESS
                | Features::GPU_FLUSH
                | Features::SEGMENTS,
            max_notification: u32::try_from(self.config.notif_max_bytes).unwrap_or(u32::MAX),
            incarnation: self.incarnation,
            ..Features::default()
        }
    }

    /// Where leaders dial channels that have failed; opened with the first connection that may need it.
    fn resume_listener(&self) -> Option<Arc<ResumeListener>> {
        let mut resume_listener = self.resume_listener.lock().unwrap_or_else(PoisonError::into_inner);
        if resume_listener.is_none() {
            match ResumeListener::open(&self.config, &self.address) {
                Ok(open) => *resume_listener = Some(open),
                Err(error) => tracing::warn!(
                    "no listener for control channels that are made anew, so they are not: {error}"
                ),
            }
        }
        resume_listener.clone()
    }

    fn limits(&self) -> Result<Limits, EngineError> {
        let limits = Limits::from_config(&self.config, Some(self.abort.clone()))?;
        let (connected_hosts, openings) = (self.connected_hosts.clone(), self.openings.clone());
        Ok(Limits { connected_hosts, openings, ..limits })
    }
}

/// The accepting role of an engine, for one peer.
#[derive(Debug)]
pub(super) struct Responding {
    context: Arc<Context>,
    limits: Limits,
    gpu_index: i32,
    notify_port: u16,
    address: IpAddr,
    advertise: Option<IpAddr>,
    features: Features,
}

impl Responding {
    /// No lanes yet.
    pub(super) fn lanes(&self) -> LaneBuilder {
        LaneBuilder::new(Arc::clone(&self.context))
    }

    /// The handshake on a socket that a peer has just opened, with `lanes` of [`Responding::lanes`]. `Ok(None)`: it was no
    /// peer at all.
    pub(super) async fn handshake(
        &self,
        stream: Stream,
        lanes: &mut LaneBuilder,
        waiter: &Waiter,
    ) -> Result<Option<(Peer, Cursor)>, EngineError> {
        let source = stream.peer();
        let told = Cell::new(Cursor::default());
        let regions = || {
            let (regions, cursor) = self.context.registry.announced().table();
            told.set(cursor);
            regions
        };
        let &Self { gpu_index, notify_port, address, advertise, features, .. } = self;
        let slices = |change| change_slices(&self.context, change);
        let local = LocalSide {
            gpu_index,
            notify_port,
            same_process: false,
            address,
            advertise,
            features,
            regions: &regions,
            slices: &slices,
        };
        match control::respond_with(stream, &local, lanes, &self.limits, waiter).await {
            Ok(peer) => Ok(Some((peer, told.get()))),
            // It has been logged with what it asked for.
            Err(HandshakeError {
                step: Step::RuntimeControl,
                reason: Reason::RuntimeControl | Reason::Refused(_),
                ..
            }) => Ok(None),
            Err(error) if error.is_stray() => {
                report!(info, ClientRefused, peer = source, "{source} is no peer: {error}");
                Ok(None)
            }
            Err(error) => Err(accept_error(source, &error)),
        }
    }
}

/// Which side of the handshake we were.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Initiator {
        /// The GPU index of a peer that reports none.
        remote_gpu: i32,
    },
    Responder,
}

/// What a closed engine does not do any more.
const CONNECT: &str = "connect to a peer";

fn accept_error(source: SocketAddr, error: &HandshakeError) -> EngineError {
    EngineError::Peer { operation: "accept from", peer: source.to_string(), reason: error.to_string() }
}

/// For clients of the runtime control.
fn change_slices(context: &Context, change: SliceSettings) -> SliceSettings {
    let (slice_size, fragment_limit) = context.slice_sizes.change(change.slice_size, change.fragment_limit);
    SliceSettings { slice_size, fragment_limit }
}
