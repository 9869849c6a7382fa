//! The socket address union: 28 bytes, `sockaddr_in` or `sockaddr_in6` as Linux lays them out.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use super::WireError;
use super::fields::{Fields, Record};

/// Bytes of the union.
pub const ADDRESS_SIZE: usize = 28;

const FAMILY_V4: u16 = 2;
const FAMILY_V6: u16 = 10;

/// Writes an address; unused bytes are zero.
pub fn encode_address(address: &SocketAddr) -> [u8; ADDRESS_SIZE] {
    let record = Record::new().put(2, &address.port().to_be_bytes());
    match address {
        SocketAddr::V4(v4) => record.put(0, &FAMILY_V4.to_le_bytes()).put(4, &v4.ip().octets()).0,
        SocketAddr::V6(v6) => {
            record
                .put(0, &FAMILY_V6.to_le_bytes())
                .put(4, &v6.flowinfo().to_le_bytes())
                .put(8, &v6.ip().octets())
                .put(24, &v6.scope_id().to_le_bytes())
                .0
        }
    }
}

/// Reads an address.
pub fn decode_address(bytes: &[u8]) -> Result<SocketAddr, WireError> {
    let fields = Fields::new("socket address", bytes, ADDRESS_SIZE)?;
    let port = u16::from_be_bytes(fields.array(2)?);
    match fields.u16(0)? {
        FAMILY_V4 => Ok(SocketAddrV4::new(Ipv4Addr::from(fields.array::<4>(4)?), port).into()),
        FAMILY_V6 => {
            let address = Ipv6Addr::from(fields.array::<16>(8)?);
            Ok(SocketAddrV6::new(address, port, fields.u32(4)?, fields.u32(24)?).into())
        }
        other => {
            Err(WireError::new("socket address", format!("family {other}, expected 2 (IPv4) or 10 (IPv6)")))
        }
    }
}
