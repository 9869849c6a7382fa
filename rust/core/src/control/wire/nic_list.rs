//! The NICs of an engine, as it names them to a peer: frames about rails say their places in this list.
//!
//! ```text
//! 0 the sender's NIC of the first rail (u16)   2 number of NICs (u16)   4 zero (u32)   8 NICs
//! NIC: 0 bytes of the NIC, these included (u16)   2 link layer (u8)   3 path MTU code (u8)   4 Mbit/s (u32)
//!      8 bytes of the name (u8)   9 number of networks (u8)   10 name (UTF-8)   then networks
//! network: 0 family: 4 or 6 (u8)   1 prefix length (u8)   2 address, as it is written: 4 or 16 bytes, the rest zero (16)
//! ```
//! Later versions may lengthen a NIC, and the list: what is behind the fields here is skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::WireError;
use super::fields::{Fields, Record};
use crate::rails::NicEnd;

/// NICs that an engine names at most.
pub const MAX_NICS: usize = 16;
/// Networks of one NIC.
pub const MAX_NIC_NETWORKS: usize = 4;
/// Bytes of the name of a NIC.
pub const MAX_NIC_NAME: usize = 64;
/// Bytes of payload that the list may have: this version writes 2,344 at most.
pub const MAX_NIC_LIST: usize = 4096;

const HEADER: usize = 8;
const NIC: usize = 10;
const NETWORK: usize = 18;
/// Bytes of the largest list that this engine writes.
const LARGEST: usize = HEADER + MAX_NICS * (NIC + MAX_NIC_NAME + MAX_NIC_NETWORKS * NETWORK);
const _: () = assert!(LARGEST == 2344 && LARGEST <= MAX_NIC_LIST);

/// One NIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicRecord {
    /// Speed of its port in Mbit/s; 0 if that is not known.
    pub speed_mbps: u32,
    /// Link layer, see [`QpAddress::link_layer`](crate::fabric::QpAddress::link_layer). The receiver checks it.
    pub link_layer: u8,
    /// Path MTU code, 1 to 5.
    pub mtu: u8,
    /// Its name there: at most [`MAX_NIC_NAME`] bytes, without control characters. Several may have the same one.
    pub name: String,
    /// The networks of its addresses, with the address of the NIC.
    pub networks: Vec<IpNet>,
}

/// The NICs of an engine, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicList {
    own: u16,
    nics: Vec<NicRecord>,
}

impl NicList {
    /// The first [`MAX_NICS`] of `nics`, with the first [`MAX_NIC_NETWORKS`] networks of each; `own` is the place of that of the
    /// first rail, which must be among them.
    pub fn new(own: usize, nics: Vec<NicRecord>) -> Result<Self, WireError> {
        let mut nics = nics;
        nics.truncate(MAX_NICS);
        nics.iter_mut().for_each(|nic| nic.networks.truncate(MAX_NIC_NETWORKS));
        let count = nics.len();
        if own >= count {
            return Err(error(format!("NIC {own} is that of the first rail, of {count} NICs")));
        }
        nics.iter().try_for_each(NicRecord::check)?;
        Ok(Self { own: own as u16, nics })
    }

    /// The place of the sender's NIC of the first rail.
    pub fn own(&self) -> u16 {
        self.own
    }

    /// All NICs, by their places.
    pub fn nics(&self) -> &[NicRecord] {
        &self.nics
    }

    /// The NIC in that place.
    pub fn get(&self, place: u16) -> Option<&NicRecord> {
        self.nics.get(usize::from(place))
    }

    /// What [`match_nics`](crate::rails::match_nics) pairs them by.
    pub fn ends(&self) -> Vec<NicEnd> {
        let end = |nic: &NicRecord| NicEnd {
            name: nic.name.clone(),
            networks: nic.networks.clone(),
            link_layer: nic.link_layer,
        };
        self.nics.iter().map(end).collect()
    }

    /// Writes the list.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LARGEST);
        bytes.extend(self.own.to_le_bytes());
        bytes.extend((self.nics.len() as u16).to_le_bytes());
        bytes.extend([0; 4]);
        for nic in &self.nics {
            nic.encode(&mut bytes);
        }
        bytes
    }

    /// Reads a list.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let fields = Fields::new(WHAT, bytes, HEADER)?;
        let count = usize::from(fields.u16(2)?);
        if count > MAX_NICS {
            return Err(error(format!("{count} NICs, expected at most {MAX_NICS}")));
        }
        let mut nics = Vec::with_capacity(count);
        let mut rest = bytes.get(HEADER..).unwrap_or_default();
        for _ in 0..count {
            let (nic, behind) = NicRecord::decode(rest)?;
            nics.push(nic);
            rest = behind;
        }
        Self::new(fields.u16(0)?.into(), nics)
    }
}

impl NicRecord {
    fn check(&self) -> Result<(), WireError> {
        let Self { mtu, name, .. } = self;
        if !(1..=5).contains(mtu) {
            return Err(error(format!("path MTU code {mtu}, expected 1 to 5")));
        }
        if name.len() > MAX_NIC_NAME {
            let length = name.len();
            return Err(error(format!("a name of {length} bytes, expected at most {MAX_NIC_NAME}")));
        }
        match name.contains(char::is_control) {
            true => Err(error(format!("the name {name:?} has control characters"))),
            false => Ok(()),
        }
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        let length = NIC + self.name.len() + self.networks.len() * NETWORK;
        bytes.extend((length as u16).to_le_bytes());
        bytes.extend([self.link_layer, self.mtu]);
        bytes.extend(self.speed_mbps.to_le_bytes());
        bytes.extend([self.name.len() as u8, self.networks.len() as u8]);
        bytes.extend(self.name.as_bytes());
        bytes.extend(self.networks.iter().flat_map(encode_network));
    }

    /// The NIC at the start of `bytes`, and what is behind it.
    fn decode(bytes: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let length = usize::from(Fields::new(WHAT, bytes, NIC)?.u16(0)?);
        let (record, behind) = bytes
            .split_at_checked(length)
            .ok_or_else(|| error(format!("ends within a NIC of {length} bytes")))?;
        let fields = Fields::new(WHAT, record, NIC)?;
        let (name_length, count) = (usize::from(fields.byte(8)?), usize::from(fields.byte(9)?));
        if count > MAX_NIC_NETWORKS {
            return Err(error(format!("{count} networks of a NIC, expected at most {MAX_NIC_NETWORKS}")));
        }
        let rest = record.get(NIC..).unwrap_or_default();
        let (name, networks) =
            rest.split_at_checked(name_length).ok_or_else(|| error("ends within the name of a NIC"))?;
        let name = str::from_utf8(name).map_err(|error| self::error(format!("a name: {error}")))?;
        let networks =
            networks.get(..count * NETWORK).ok_or_else(|| error("ends within the networks of a NIC"))?;
        let nic = Self {
            speed_mbps: fields.u32(4)?,
            link_layer: fields.byte(2)?,
            mtu: fields.byte(3)?,
            name: name.to_owned(),
            networks: networks.chunks_exact(NETWORK).map(decode_network).collect::<Result<_, _>>()?,
        };
        Ok((nic, behind))
    }
}

fn encode_network(network: &IpNet) -> [u8; NETWORK] {
    let record = Record::new().put(1, &[network.prefix_len()]);
    match network.addr() {
        IpAddr::V4(address) => record.put(0, &[4]).put(2, &address.octets()).0,
        IpAddr::V6(address) => record.put(0, &[6]).put(2, &address.octets()).0,
    }
}

fn decode_network(bytes: &[u8]) -> Result<IpNet, WireError> {
    let fields = Fields::new(WHAT, bytes, NETWORK)?;
    let (family, prefix) = (fields.byte(0)?, fields.byte(1)?);
    let address: IpAddr = match family {
        4 => Ipv4Addr::from(fields.array::<4>(2)?).into(),
        6 => Ipv6Addr::from(fields.array::<16>(2)?).into(),
        _ => return Err(error(format!("a network of family {family}, expected 4 or 6"))),
    };
    IpNet::new(address, prefix).map_err(|_| error(format!("the prefix length {prefix} of {address}")))
}

fn error(problem: impl Into<String>) -> WireError {
    WireError::new(WHAT, problem)
}

const WHAT: &str = "list of NICs";
