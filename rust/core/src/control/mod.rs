//! The control plane: two engines connect, agree on lanes and exchange their region tables.
//!
//! * [`wire`] holds the byte formats, as pure functions over slices;
//! * [`Stream`], [`Listener`] and [`connect`] are blocking TCP in which every wait has a deadline and can be aborted;
//! * [`Dial`] connects to a name, over all its addresses within one deadline;
//! * [`initiate`] and [`respond`] are the two roles of the handshake, [`initiate_raw`] and [`RawListener`] its lane
//!   part alone;
//! * [`Channel`] is the connection that stays open afterwards between two engines of this kind;
//! * [`crate::auth::AuthKey`] and [`AllowList`] define the clients that may connect, and [`ConnectedHosts`] the hosts
//!   of peers;
//! * [`rank_interfaces`] and [`local_address`] choose the address that is announced to peers, or [`Advertised`]
//!   replaces it;
//! * [`resolve`], [`split_session`] and [`Metadata`] parse and resolve addresses in text form.

mod advertise;
mod allow;
mod channel;
mod connected_hosts;
mod dial;
mod handshake;
mod host;
mod interface;
mod metadata;
mod resolver;
pub mod resume;
mod socket;
pub mod wire;

pub use crate::events::Abort;
pub use advertise::{Advertise, AdvertiseError, Advertised};
pub use allow::AllowList;
pub(crate) use allow::parse_networks;
#[cfg(test)]
pub(crate) use channel::tests as channel_tests;
pub use channel::{
    Channel, ChannelFrame, MAX_FRAME, PathAnswer, RailRefusal, Received, RegionFrame, encode_acknowledgement,
    encode_nics, encode_offer,
};
pub use connected_hosts::{ConnectedHost, ConnectedHosts};
pub use dial::{Dial, DialError, Dialed};
pub(crate) use handshake::respond_with;
pub use handshake::{
    HandshakeError, LaneFuture, LaneSetup, Limits, LocalSide, NotifyRoute, Openings, Peer, PeerCapabilities,
    RawListener, RawPeer, Reason, Step, initiate, initiate_raw, respond,
};
pub use host::{HostError, numeric, parse_address, split_session};
pub use interface::{
    AddressError, Exclusion, Interface, InterfaceRules, Kind, LinkState, LocalAddress, Preference, Ranked,
    interfaces, local_address, own_address, rank_interfaces,
};
pub use metadata::Metadata;
pub use resolver::{ResolveError, resolve};
pub use socket::{
    AddressFailure, ConnectError, Listener, PathFacts, RefusalPolicy, Source, Stream, connect, connect_any,
    path_facts,
};
pub use wire::LaneCapabilities;
