//! Where a follower can be dialled again: the payload of a frame of the channel.
//!
//! ```text
//! 0 name (u64)   8 token (32 bytes)   40 port (u16)   42 addresses (u16)   44 reserved (u32)   48 addresses, 20 bytes each:
//!   family, 4 or 6 (u8)   reserved (3 bytes)   address (16 bytes, IPv4 in the first 4)
//! ```

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::control::wire::WireError;

/// Addresses of an offer at most.
pub const MAX_RESUME_ADDRESSES: usize = 32;
/// Bytes of the secret.
pub(super) const TOKEN_SIZE: usize = 32;

const HEADER: usize = 48;
const ENTRY: usize = 20;

/// What a follower tells the leader about the channel, once. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct ResumeOffer {
    /// Names the connection at the follower.
    pub name: u64,
    /// Known to the two ends alone: the end that dials has to prove it.
    pub token: [u8; TOKEN_SIZE],
    /// The port of the follower's listener for resumption.
    pub port: u16,
    /// Addresses of the follower's host, the best first.
    pub addresses: Vec<IpAddr>,
}

impl ResumeOffer {
    /// Where to dial.
    pub fn targets(&self) -> Vec<SocketAddr> {
        self.addresses.iter().map(|address| SocketAddr::new(*address, self.port)).collect()
    }

    /// Writes the payload.
    pub fn encode(&self) -> Vec<u8> {
        let addresses = self.addresses.get(..MAX_RESUME_ADDRESSES).unwrap_or(&self.addresses);
        let mut bytes = Vec::with_capacity(HEADER + ENTRY * addresses.len());
        bytes.extend(self.name.to_le_bytes());
        bytes.extend(self.token);
        bytes.extend(self.port.to_le_bytes());
        bytes.extend((addresses.len() as u16).to_le_bytes());
        bytes.extend([0; 4]);
        for address in addresses {
            let (family, mut place) = match address {
                IpAddr::V4(_) => (4, [0; 16]),
                IpAddr::V6(v6) => (6, v6.octets()),
            };
            if let IpAddr::V4(v4) = address {
                place.iter_mut().zip(v4.octets()).for_each(|(to, from)| *to = from);
            }
            bytes.extend([family, 0, 0, 0]);
            bytes.extend(place);
        }
        bytes
    }

    /// Reads the payload. Addresses of an unknown family, of a later version, are skipped.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let short = || WireError::new("resume offer", format!("{} bytes", bytes.len()));
        let (name, rest) = bytes.split_first_chunk().ok_or_else(short)?;
        let (token, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (port, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let (count, rest) = rest.split_first_chunk().ok_or_else(short)?;
        let count = usize::from(u16::from_le_bytes(*count));
        if count > MAX_RESUME_ADDRESSES {
            let problem = format!("{count} addresses, expected at most {MAX_RESUME_ADDRESSES}");
            return Err(WireError::new("resume offer", problem));
        }
        let entries = rest.get(4..4 + ENTRY * count).ok_or_else(short)?;
        let addresses = entries.chunks_exact(ENTRY).filter_map(address).collect();
        Ok(Self {
            name: u64::from_le_bytes(*name),
            token: *token,
            port: u16::from_le_bytes(*port),
            addresses,
        })
    }
}

impl fmt::Debug for ResumeOffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port, addresses, .. } = self;
        write!(f, "ResumeOffer {{ name: {name:#x}, port: {port}, addresses: {addresses:?}, token: .. }}")
    }
}

fn address(entry: &[u8]) -> Option<IpAddr> {
    let (family, place) = (entry.first()?, entry.get(4..)?);
    match family {
        4 => place.first_chunk::<4>().map(|octets| IpAddr::from(*octets)),
        6 => place.first_chunk::<16>().map(|octets| IpAddr::from(*octets)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn offer() -> ResumeOffer {
        let addresses = vec!["192.0.2.1".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        ResumeOffer { name: 0x0102_0304, token: [7; TOKEN_SIZE], port: 258, addresses }
    }

    #[test]
    fn it_survives_and_does_not_show_its_token() {
        assert_eq!(ResumeOffer::decode(&offer().encode()).unwrap(), offer());
        assert_eq!(offer().encode().len(), 48 + 2 * 20);
        assert_eq!(offer().targets()[0].to_string(), "192.0.2.1:258");
        assert!(!format!("{:?}", offer()).contains("7, 7"));
        let many = ResumeOffer { addresses: vec!["::1".parse().unwrap(); 99], ..offer() };
        assert_eq!(ResumeOffer::decode(&many.encode()).unwrap().addresses.len(), MAX_RESUME_ADDRESSES);
    }

    #[test]
    fn malformed_ones_are_refused() {
        let bytes = offer().encode();
        for length in 0..bytes.len() {
            assert!(ResumeOffer::decode(&bytes[..length]).is_err(), "{length}");
        }
        let mut many = bytes.clone();
        many[42] = 33;
        assert!(ResumeOffer::decode(&many).is_err());
        let mut later = bytes;
        later[48] = 9;
        assert_eq!(ResumeOffer::decode(&later).unwrap().addresses.len(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..900)) {
            if let Ok(offer) = ResumeOffer::decode(&bytes) {
                prop_assert!(offer.addresses.len() <= MAX_RESUME_ADDRESSES);
            }
        }
    }
}
