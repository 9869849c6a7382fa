//! Raw connections.
#![allow(unsafe_code, reason = "takes handles back from C++")]

use std::mem::offset_of;
use std::ptr;
use std::sync::Arc;

use flagcx_p2p::internals::config;
use flagcx_p2p::internals::connection::{Connection, Context, Established, LaneBuilder, PeerInfo, Presence};
use flagcx_p2p::internals::control::{self, Channel, RawPeer, own_address};
use flagcx_p2p::internals::memory::RemoteRegions;

use super::answer::{NetError, answer};
use super::devices::{device, limits};
use super::ffi::Answer;

/// Target of a sendComm and of a recvComm.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Comm {
    /// First, because FlagCX reads it through the pointer.
    device: i32,
    connection: Arc<Connection>,
}

const _: () = assert!(offset_of!(Comm, device) == 0);

impl Comm {
    /// A comm over the lanes that a handshake has connected. `leads`: by us.
    pub(super) fn new(
        device: i32,
        context: Arc<Context>,
        lanes: LaneBuilder,
        peer: RawPeer,
        leads: bool,
    ) -> Result<Self, NetError> {
        let (control, ours) = (peer.stream.peer(), peer.capabilities.ours);
        let ip = control.ip();
        // Not the advertised one: hosts behind one forwarder have it in common.
        let (own, _) = own_address(config::global()).map_err(NetError::internal)?;
        let local = ip.is_loopback() || ip == own;
        let established = Established {
            peer: PeerInfo { control, ip, gpu_index: -1, local, same_process: false, ours, incarnation: 0 },
            // The peer announces no regions here: its keys are checked by the fabric alone.
            remote: RemoteRegions::new(&[]),
            told: None,
            capabilities: peer.capabilities,
            heals: ours,
            rails: false,
            other_pairs: false,
            lanes_on_use: false,
            leads,
            began: peer.began,
            presence: Presence::Sockets,
            process: None,
            channel: Channel::new(peer.stream),
            redial: None,
            notify: None,
            connected_host: None,
        };
        let connection = Connection::new(context, lanes, established)?;
        Ok(Self { device, connection })
    }

    /// Its connection.
    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    /// Hands the comm to C++, which must give it back.
    pub(super) fn into_raw(self) -> *mut Self {
        Box::into_raw(Box::new(self))
    }
}

/// Connects to the listener that `handle` names.
pub(super) fn connect(device: i32, handle: &[u8], out: &mut Answer) -> *mut Comm {
    let mut made = ptr::null_mut();
    *out = answer("connect", connect_to(device, handle), |comm| made = comm.into_raw());
    made
}

fn connect_to(index: i32, handle: &[u8]) -> Result<Comm, NetError> {
    let context = device(index)?.context()?;
    let mut lanes = LaneBuilder::new(Arc::clone(context));
    let peer = control::initiate_raw(handle, &mut lanes, &limits(config::global())?)?;
    Comm::new(index, Arc::clone(context), lanes, peer, true)
}

/// # Safety
/// `comm` comes from [`connect`] or `accept` and is not used again.
pub(super) unsafe fn close_comm(comm: *mut Comm) {
    // SAFETY: the caller's promise.
    unsafe { Box::from_raw(comm) }.connection.close();
}
