//! Bytes of a message, taken and put one after the other.

use super::HelloError;
use crate::fabric::software::identity::Identity;
use crate::fabric::{LINK_SOFTWARE, QpAddress};

/// Fills an array from the front.
pub(super) struct Writer<const N: usize> {
    bytes: [u8; N],
    used: usize,
}

impl<const N: usize> Writer<N> {
    pub(super) fn new() -> Self {
        Self { bytes: [0; N], used: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> &mut Self {
        let end = self.used + bytes.len();
        debug_assert!(end <= N, "a message is larger than its size");
        if let Some(to) = self.bytes.get_mut(self.used..end) {
            to.copy_from_slice(bytes);
        }
        self.used = end;
        self
    }

    pub(super) fn finish(&self) -> [u8; N] {
        debug_assert_eq!(self.used, N, "a message is smaller than its size");
        self.bytes
    }
}

/// Takes a slice apart from the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl Reader<'_> {
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], HelloError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(HelloError::Malformed)?;
        self.0 = tail;
        Ok(*head)
    }

    pub(super) fn u16(&mut self) -> Result<u16, HelloError> {
        self.take().map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, HelloError> {
        self.take().map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self) -> Result<u64, HelloError> {
        self.take().map(u64::from_le_bytes)
    }
}

pub(super) fn encode_address(address: &QpAddress) -> [u8; ADDRESS] {
    let mut out = Writer::new();
    out.put(&address.qpn.to_le_bytes()).put(&address.gid).put(&address.lid.to_le_bytes());
    out.put(&[address.port, address.link_layer, address.mtu, 0]).put(&[0; 4]);
    out.finish()
}

pub(super) fn decode_address(bytes: &[u8; ADDRESS]) -> Result<QpAddress, HelloError> {
    let mut input = Reader(bytes);
    let (qpn, gid, lid) = (input.u32()?, input.take()?, input.u32()?);
    let [port, link_layer, mtu, _] = input.take()?;
    if link_layer != LINK_SOFTWARE || qpn == 0 {
        return Err(HelloError::Malformed);
    }
    Ok(QpAddress { qpn, gid, port, link_layer, lid, mtu })
}

pub(super) fn encode_identity(identity: &Identity) -> [u8; IDENTITY] {
    let mut out = Writer::new();
    out.put(&identity.pid.to_le_bytes()).put(&identity.uid.to_le_bytes()).put(&identity.boot_id);
    out.put(&identity.incarnation.to_le_bytes()).put(&identity.probe);
    out.put(&identity.probe_address.to_le_bytes()).put(&[0; 8]);
    out.finish()
}

pub(super) fn decode_identity(bytes: &[u8; IDENTITY]) -> Result<Identity, HelloError> {
    let mut input = Reader(bytes);
    Ok(Identity {
        pid: input.u32()?,
        uid: input.u32()?,
        boot_id: input.take()?,
        incarnation: input.u64()?,
        probe: input.take()?,
        probe_address: input.u64()?,
    })
}

pub(super) const ADDRESS: usize = 32;
pub(super) const IDENTITY: usize = 64;
