//! A queue pair by which two NICs are tried before a rail is made over them. It has a completion queue of its own and belongs to no
//! worker, and its NIC is not opened: no memory is registered for it.

use std::sync::Arc;
use std::time::Instant;

use super::lanes::capabilities_of;
use super::rail_record::{RailRecord, nic_name};
use super::{Connection, LaneBuilder};
use crate::control::RailRefusal;
use crate::control::wire::LaneRecord;
use crate::events::{EventLoopHandle, Waiter};
use crate::fabric::{
    Completion, CompletionQueue, CompletionStatus, Device, FabricError, PathOptions, QpAddress, QueuePair,
    QueuePairCaps,
};
use crate::pool::clock;
use crate::sync::lock;

/// One request is posted. Some devices refuse shorter queues.
const DEPTH: u32 = 16;
const COMPLETIONS: u32 = 256;

/// One end of a trial.
#[derive(Debug)]
pub(super) struct PathTrial {
    // Destroyed in this order.
    queue_pair: Box<dyn QueuePair>,
    completions: Box<dyn CompletionQueue>,
    device: Arc<dyn Device>,
    is_unsupported: bool,
}

impl PathTrial {
    /// A queue pair in INIT, and what the peer needs to connect to it. Blocks for commands of the device. It asks for the entries and the
    /// inline bytes of a lane, because what a device grants is not in its attributes.
    fn create(device: &Arc<dyn Device>, lane: &QueuePairCaps) -> Result<(Self, LaneRecord), FabricError> {
        let completions = Arc::clone(device).create_completion_queue(COMPLETIONS)?;
        let caps = QueuePairCaps { send_depth: DEPTH, ..*lane };
        let queue_pair = Arc::clone(device).create_queue_pair(&completions.handle(), &caps)?;
        let capabilities = Some(capabilities_of(&**device));
        let record = LaneRecord { address: queue_pair.address(), capabilities };
        Ok((Self { queue_pair, completions, device: Arc::clone(device), is_unsupported: false }, record))
    }

    /// Connects it to the peer's; destroyed, off the loop, if that fails.
    pub(super) async fn connect(
        self,
        peer: &QpAddress,
        options: PathOptions,
        handle: &EventLoopHandle,
    ) -> Result<Self, String> {
        if self.queue_pair.connects_by_commands() {
            let (mut trial, peer) = (self, *peer);
            let connect = move || {
                let connected = trial.queue_pair.connect(&peer, &options);
                connected.map(|()| trial).map_err(|error| error.to_string())
            };
            return handle.blocking(connect).await;
        }
        // Destroyed by a helper, also when this task is stopped.
        let mut trial = scopeguard::guard(self, |trial| handle.detach(move || drop(trial)));
        let connected = trial.queue_pair.connect_with(peer, &options, &Waiter::on_loop(handle)).await;
        match connected {
            Ok(()) => Ok(scopeguard::ScopeGuard::into_inner(trial)),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Posts the request.
    pub(super) fn post(&mut self) -> Result<(), String> {
        let posted = self.queue_pair.post_empty(1, (0, 0));
        match posted.errno.map(std::num::NonZeroI32::get) {
            None => Ok(()),
            // Then the connect is all that there is to try.
            Some(libc::EOPNOTSUPP) => {
                self.is_unsupported = true;
                Ok(())
            }
            Some(errno) => {
                let error = std::io::Error::from_raw_os_error(errno);
                Err(format!("the queue pair refused a request of no bytes: {error}"))
            }
        }
    }

    /// How the request has ended, if it has.
    pub(super) fn ended(&mut self) -> Option<Result<(), String>> {
        if self.is_unsupported {
            return Some(Ok(()));
        }
        let mut completion = [Completion::default()];
        match self.completions.poll(&mut completion) {
            Ok(0) => None,
            Ok(_) => {
                let [Completion { status, vendor_error, .. }] = completion;
                Some(match status {
                    CompletionStatus::Success => Ok(()),
                    _ => Err(format!("a request of no bytes failed: {status} (vendor error {vendor_error})")),
                })
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }

    /// Lets a device that works by the CPU go on.
    pub(super) fn advance(&mut self) {
        let _ = self.completions.poll(&mut [Completion::default()]);
    }
}

/// Called by the connection's recovery.
impl Connection {
    /// Creates the queue pair of a trial on a NIC, by its place in the list that was sent to the peer. Blocks for commands of the device.
    pub(super) fn create_trial(&self, rail: usize, own: u16) -> Result<(PathTrial, LaneRecord), RailRefusal> {
        if rail >= self.context.settings.rails {
            return Err(RailRefusal::Limited);
        }
        let refused = |why: RailRefusal, reason: &str| {
            self.note_refused(rail, own, reason);
            why
        };
        let unusable = |error: FabricError| refused(RailRefusal::Unusable, &error.to_string());
        if !self.context.slots.have_room_for(self.context.nic_if_open(usize::from(own))) {
            return Err(refused(RailRefusal::Limited, "rails use as many NICs of this host as they can"));
        }
        let device = self.context.nic_device(usize::from(own)).ok_or(RailRefusal::Unknown)?;
        device.check_use().map_err(unusable)?;
        self.suits(&**device).map_err(|reason| refused(RailRefusal::Unlike, &reason))?;
        if !device.port().map_err(unusable)?.active {
            return Err(refused(RailRefusal::Unusable, "its port is down: it is tried again"));
        }
        let caps = LaneBuilder::caps_on(&**device, &self.context.settings);
        let (trial, record) = PathTrial::create(device, &caps).map_err(unusable)?;
        self.check_grant(&trial.queue_pair.caps()).map_err(|reason| refused(RailRefusal::Unlike, &reason))?;
        Ok((trial, record))
    }

    /// With what the queue pair of a trial is connected.
    pub(super) fn trial_options(&self, trial: &PathTrial, deadline: Instant) -> PathOptions {
        LaneBuilder::path_options(&*trial.device, self.capabilities, deadline)
    }

    /// An event: a rail is not made. Of many only some are: a peer can ask without end.
    pub(super) fn note_refused(&self, rail: usize, own: u16, reason: &str) {
        // The end that does not lead answers what its peer asks.
        let lines = &self.context.refusals;
        let lines = if self.leads { &lines.own } else { &lines.asked_by_peers };
        if !lock(lines).take(clock::now_ns()) {
            tracing::debug!(peer = %self.peer.control, rail, own, "a rail is not made: {reason}");
            return;
        }
        let nic = self.context.nics().get(usize::from(own));
        let nic = nic.map_or_else(String::new, |nic| nic_name(&nic.name, nic.port));
        RailRecord::refused(rail as u8, self.peer.control, &nic, reason);
    }
}
