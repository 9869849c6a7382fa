//! The frames of a channel, as bytes.

use super::path_frame::{self, PathAnswer};
use super::region_frame::{self, RegionFrame};
use crate::control::resume::ResumeOffer;
use crate::control::wire::{
    LANE_RECORD_SIZE, LaneRecord, MAX_NIC_LIST, MAX_REGION_CHANGES, NicList, WireError,
};

const MAGIC: u32 = 0x4c43_5846;
const VERSION: u16 = 1;
const HEADER_SIZE: usize = 12;
/// Kind of the frame that holds a [`NicList`].
const NICS: u16 = 18;
/// Kind of the frame that holds a [`ResumeOffer`].
const RESUME_AT: u16 = 27;
/// Kind of the frame that says how many frames have been received.
const ACKNOWLEDGEMENT: u16 = 25;
/// Bytes of payload that a frame may have, unless it holds changes of regions or a list of NICs.
pub const MAX_FRAME: usize = 1024;

/// The frames of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelFrame {
    /// A liveness request, answered by a [`ChannelFrame::Pong`] of the same number.
    Ping(u64),
    /// The answer to a [`ChannelFrame::Ping`].
    Pong(u64),
    /// Requests a rebuild: lane `lane` of the sender has failed and is drained, and this is its new queue pair.
    /// `attempt` counts up, so that an answer to an older request is recognised.
    Rebuild {
        /// Index of the lane.
        lane: u32,
        /// Number of the attempt.
        attempt: u32,
        /// The new queue pair.
        record: LaneRecord,
    },
    /// Answers [`ChannelFrame::Rebuild`]: the sender's lane is drained as well, and this is its new queue pair.
    Rebuilt {
        /// Index of the lane.
        lane: u32,
        /// Number of the attempt that is answered.
        attempt: u32,
        /// The new queue pair.
        record: LaneRecord,
    },
    /// Completes a rebuild: the sender's new queue pair is connected as well, and the lane may be used.
    Ready {
        /// Index of the lane.
        lane: u32,
        /// Number of the attempt that has succeeded.
        attempt: u32,
    },
    /// Lane `lane` of the sender has failed, and the receiver is to request a rebuild. Only one side requests
    /// rebuilds, so that both never do at once.
    Broken {
        /// Index of the lane.
        lane: u32,
    },
    /// Lane `lane` of the sender is closed for good: it could not be rebuilt.
    Refused {
        /// Index of the lane.
        lane: u32,
        /// Number of the attempt that is answered.
        attempt: u32,
    },
    /// The sender closes the connection in order.
    Goodbye,
    /// The leader makes rail `rail` of NIC `own` of the sender and NIC `peer` of the receiver, with `lanes` lanes; both by their
    /// places in the lists of NICs that the two have sent. It has its end of them.
    AddRail {
        /// Number of the rail: 1 to 7.
        rail: u8,
        /// The sender's NIC.
        own: u16,
        /// The receiver's NIC.
        peer: u16,
        /// Lanes of the rail, 1 to 8. Each is made by a rebuild that the sender requests.
        lanes: u8,
    },
    /// Answers [`ChannelFrame::AddRail`]: the sender has its end of the rail, and its lanes wait for rebuilds.
    RailReady {
        /// Number of the rail.
        rail: u8,
    },
    /// Answers [`ChannelFrame::AddRail`]: the sender does not make this rail.
    RailRefused {
        /// Number of the rail.
        rail: u8,
        /// Why.
        why: RailRefusal,
    },
    /// The follower has need of a rail of NIC `own` of the sender and NIC `peer` of the receiver. The leader may add it.
    RequestRail {
        /// The sender's NIC.
        own: u16,
        /// The receiver's NIC.
        peer: u16,
    },
    /// The sender takes its parts from lane `lane`, of which its own queue pair is in ERROR. The receiver moves its queue pair to ERROR too,
    /// and answers once that is drained.
    Quiesce {
        /// Index of the lane.
        lane: u32,
        /// Counts up, so that an answer to an older question is recognised.
        number: u32,
    },
    /// Answers [`ChannelFrame::Quiesce`]: the sender's queue pair of that lane lets nothing through any more.
    Quiesced {
        /// Index of the lane.
        lane: u32,
        /// The number that is answered.
        number: u32,
    },
    /// Answers [`ChannelFrame::Rebuild`]: the sender's port is down. It does nothing for this attempt, and sends
    /// [`ChannelFrame::Broken`] once the port is up.
    NotNow {
        /// Index of the lane.
        lane: u32,
        /// Number of the attempt that is answered.
        attempt: u32,
    },
    /// The leader tries whether NIC `own` of the sender reaches NIC `peer` of the receiver, both by their places in the lists that the two have
    /// sent, before it makes a rail of them.
    TryPath {
        /// Number that the rail is to have, 1 to 7.
        rail: u8,
        /// Counts up, so that an answer to an older trial is recognised.
        number: u32,
        /// The sender's NIC.
        own: u16,
        /// The receiver's NIC.
        peer: u16,
        /// The leader's queue pair.
        record: LaneRecord,
    },
    /// Answers [`ChannelFrame::TryPath`]; of the leader: its trial has ended.
    PathTried {
        /// Number of the rail.
        rail: u8,
        /// Number of the trial.
        number: u32,
        /// What came of it.
        answer: PathAnswer,
    },
    /// Answers [`ChannelFrame::RequestRail`] if the rail is not made: the leader may be asked again later.
    RequestRefused {
        /// The sender's NIC.
        own: u16,
        /// The receiver's NIC.
        peer: u16,
        /// Why.
        why: RailRefusal,
    },
}

/// Why a peer does not make a rail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum RailRefusal {
    /// It has no NIC in that place, no place for the rail, or uses that number for another one.
    Unknown = 1,
    /// Its NIC cannot be used: the log of that host says why.
    Unusable = 2,
    /// The NIC grants less than the requests of this connection need (scatter/gather entries, inline bytes), or has another link layer or MTU.
    Unlike = 3,
    /// It makes no further rails: `FLAGCX_P2P_RAILS` of that host.
    Limited = 4,
}

impl RailRefusal {
    /// An unknown number, of a later version, is [`RailRefusal::Unknown`].
    pub(super) fn of_number(number: u8) -> Self {
        match number {
            2 => Self::Unusable,
            3 => Self::Unlike,
            4 => Self::Limited,
            _ => Self::Unknown,
        }
    }
}

/// What [`Channel::try_read`](super::Channel::try_read) has received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Received {
    /// A frame.
    Frame(ChannelFrame),
    /// A frame about regions.
    Regions(RegionFrame),
    /// The NICs of the peer: what it sends first, if both ends have [`Features::RAILS`](crate::control::wire::Features::RAILS), and once.
    Nics(NicList),
    /// Where the sender can be dialled when the channel has failed: from the follower, if both ends have
    /// [`Features::REDIAL`](crate::control::wire::Features::REDIAL), and once.
    Offer(ResumeOffer),
    /// The sender has received so many frames on this connection. Only if both ends have that feature.
    Acknowledgement(u64),
    /// A frame of a later version, to be skipped.
    Unknown,
    /// No whole frame has arrived.
    Nothing,
}

impl ChannelFrame {
    /// Encodes the frame.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, payload): (u16, Vec<u8>) = match self {
            Self::Ping(number) => (1, number.to_le_bytes().to_vec()),
            Self::Pong(number) => (2, number.to_le_bytes().to_vec()),
            Self::Rebuild { lane, attempt, record } => (3, lane_payload(*lane, *attempt, Some(record))),
            Self::Rebuilt { lane, attempt, record } => (4, lane_payload(*lane, *attempt, Some(record))),
            Self::Refused { lane, attempt } => (5, lane_payload(*lane, *attempt, None)),
            Self::Goodbye => (6, Vec::new()),
            Self::Ready { lane, attempt } => (7, lane_payload(*lane, *attempt, None)),
            Self::Broken { lane } => (8, lane_payload(*lane, 0, None)),
            Self::AddRail { rail, own, peer, lanes } => (12, rail_payload(*rail, *lanes, *own, *peer)),
            Self::RailReady { rail } => (13, rail_payload(*rail, 0, 0, 0)),
            Self::RailRefused { rail, why } => (14, rail_payload(*rail, *why as u8, 0, 0)),
            Self::RequestRail { own, peer } => (15, rail_payload(0, 0, *own, *peer)),
            Self::Quiesce { lane, number } => (16, lane_payload(*lane, *number, None)),
            Self::Quiesced { lane, number } => (17, lane_payload(*lane, *number, None)),
            Self::NotNow { lane, attempt } => (26, lane_payload(*lane, *attempt, None)),
            Self::TryPath { rail, number, own, peer, record } => {
                (22, path_frame::try_path((*rail, *number), (*own, *peer), record))
            }
            Self::PathTried { rail, number, answer } => (23, path_frame::path_tried(*rail, *number, answer)),
            Self::RequestRefused { own, peer, why } => (24, rail_payload(0, *why as u8, *own, *peer)),
        };
        encode_frame(kind, &payload)
    }

    fn decode_payload(kind: u16, payload: &[u8]) -> Result<Option<Self>, WireError> {
        Ok(Some(match kind {
            1 => Self::Ping(number(payload)?),
            2 => Self::Pong(number(payload)?),
            3 => {
                let (lane, attempt, record) = lane_fields(payload)?;
                Self::Rebuild { lane, attempt, record: LaneRecord::decode(record)? }
            }
            4 => {
                let (lane, attempt, record) = lane_fields(payload)?;
                Self::Rebuilt { lane, attempt, record: LaneRecord::decode(record)? }
            }
            5 => {
                let (lane, attempt, _) = lane_fields(payload)?;
                Self::Refused { lane, attempt }
            }
            6 => Self::Goodbye,
            7 => {
                let (lane, attempt, _) = lane_fields(payload)?;
                Self::Ready { lane, attempt }
            }
            8 => {
                let (lane, _, _) = lane_fields(payload)?;
                Self::Broken { lane }
            }
            12 => {
                let (rail, lanes, own, peer) = rail_fields(payload)?;
                Self::AddRail { rail, own, peer, lanes }
            }
            13 => Self::RailReady { rail: rail_fields(payload)?.0 },
            14 => {
                let (rail, why, ..) = rail_fields(payload)?;
                Self::RailRefused { rail, why: RailRefusal::of_number(why) }
            }
            15 => {
                let (_, _, own, peer) = rail_fields(payload)?;
                Self::RequestRail { own, peer }
            }
            16 => {
                let (lane, number, _) = lane_fields(payload)?;
                Self::Quiesce { lane, number }
            }
            17 => {
                let (lane, number, _) = lane_fields(payload)?;
                Self::Quiesced { lane, number }
            }
            26 => {
                let (lane, attempt, _) = lane_fields(payload)?;
                Self::NotNow { lane, attempt }
            }
            22 => path_frame::read_try_path(payload)?,
            23 => path_frame::read_path_tried(payload)?,
            24 => {
                let (_, why, own, peer) = rail_fields(payload)?;
                Self::RequestRefused { own, peer, why: RailRefusal::of_number(why) }
            }
            _ => return Ok(None),
        }))
    }
}

impl Received {
    /// Decodes the frame at the start of `bytes`, if it is complete; returns it with its length in bytes.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, WireError> {
        let Some((kind, payload)) = split_frame(bytes)? else { return Ok(None) };
        let frame = match ChannelFrame::decode_payload(kind, payload)? {
            Some(frame) => Self::Frame(frame),
            None if kind == NICS => Self::Nics(NicList::decode(payload)?),
            None if kind == RESUME_AT => Self::Offer(ResumeOffer::decode(payload)?),
            None if kind == ACKNOWLEDGEMENT => Self::Acknowledgement(number(payload)?),
            None => RegionFrame::decode_payload(kind, payload)?.map_or(Self::Unknown, Self::Regions),
        };
        Ok(Some((frame, HEADER_SIZE + payload.len())))
    }
}

impl ChannelFrame {
    /// Whether it counts among the frames that are sent again if they are not received. Pings are about the socket they are sent on,
    /// and nothing follows a Goodbye.
    pub(super) fn is_numbered(&self) -> bool {
        !matches!(self, Self::Ping(_) | Self::Pong(_) | Self::Goodbye)
    }
}

impl Received {
    /// As [`ChannelFrame::is_numbered`]: frames of a later version are, unless it says so in the handshake.
    pub(super) fn is_numbered(&self) -> bool {
        match self {
            Self::Frame(frame) => frame.is_numbered(),
            Self::Regions(_) | Self::Nics(_) | Self::Offer(_) | Self::Unknown => true,
            Self::Acknowledgement(_) | Self::Nothing => false,
        }
    }
}

/// A frame that holds where its sender can be dialled.
pub fn encode_offer(offer: &ResumeOffer) -> Vec<u8> {
    encode_frame(RESUME_AT, &offer.encode())
}

/// A frame that says how many frames have been received.
pub fn encode_acknowledgement(count: u64) -> Vec<u8> {
    encode_frame(ACKNOWLEDGEMENT, &count.to_le_bytes())
}

/// A frame that holds a list of NICs.
pub fn encode_nics(nics: &NicList) -> Vec<u8> {
    encode_frame(NICS, &nics.encode())
}

pub(super) fn encode_frame(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER_SIZE + payload.len());
    frame.extend(MAGIC.to_le_bytes());
    frame.extend(VERSION.to_le_bytes());
    frame.extend(kind.to_le_bytes());
    frame.extend((payload.len() as u32).to_le_bytes());
    frame.extend(payload);
    frame
}

/// Kind and payload of the frame at the start of `bytes`, if it is complete.
fn split_frame(bytes: &[u8]) -> Result<Option<(u16, &[u8])>, WireError> {
    let Some((header, rest)) = bytes.split_first_chunk::<HEADER_SIZE>() else { return Ok(None) };
    let [m0, m1, m2, m3, _, _, k0, k1, l0, l1, l2, l3] = *header;
    let magic = u32::from_le_bytes([m0, m1, m2, m3]);
    if magic != MAGIC {
        let problem = format!("magic {magic:#010x}, expected {MAGIC:#010x}");
        return Err(WireError::new("channel frame", problem));
    }
    let kind = u16::from_le_bytes([k0, k1]);
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let limit = match kind {
        region_frame::CHANGES => MAX_REGION_CHANGES,
        NICS => MAX_NIC_LIST,
        _ => MAX_FRAME,
    };
    if length > limit {
        let problem = format!("{length} bytes of payload, expected at most {limit}");
        return Err(WireError::new("channel frame", problem));
    }
    Ok(rest.get(..length).map(|payload| (kind, payload)))
}

fn lane_payload(lane: u32, attempt: u32, record: Option<&LaneRecord>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(8 + LANE_RECORD_SIZE);
    payload.extend(lane.to_le_bytes());
    payload.extend(attempt.to_le_bytes());
    payload.extend(record.into_iter().flat_map(LaneRecord::encode));
    payload
}

fn lane_fields(payload: &[u8]) -> Result<(u32, u32, &[u8]), WireError> {
    let short = || WireError::new("channel frame", "ends within the lane's number");
    let (lane, rest) = payload.split_first_chunk().ok_or_else(short)?;
    let (attempt, record) = rest.split_first_chunk().ok_or_else(short)?;
    Ok((u32::from_le_bytes(*lane), u32::from_le_bytes(*attempt), record))
}

/// The rail, another byte, the sender's NIC, the receiver's NIC.
fn rail_payload(rail: u8, other: u8, own: u16, peer: u16) -> Vec<u8> {
    let ([own0, own1], [peer0, peer1]) = (own.to_le_bytes(), peer.to_le_bytes());
    vec![rail, other, own0, own1, peer0, peer1, 0, 0]
}

fn rail_fields(payload: &[u8]) -> Result<(u8, u8, u16, u16), WireError> {
    let short = || WireError::new("channel frame", "ends within the rail's NICs");
    let ([rail, other, own0, own1, peer0, peer1], _) = payload.split_first_chunk().ok_or_else(short)?;
    Ok((*rail, *other, u16::from_le_bytes([*own0, *own1]), u16::from_le_bytes([*peer0, *peer1])))
}

pub(super) fn number(payload: &[u8]) -> Result<u64, WireError> {
    let (number, _) = payload
        .split_first_chunk()
        .ok_or_else(|| WireError::new("channel frame", "ends within the number"))?;
    Ok(u64::from_le_bytes(*number))
}
