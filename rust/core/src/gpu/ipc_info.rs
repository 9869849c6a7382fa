//! What another process of this host needs to open GPU memory: 128 bytes, as FlagCX's programs pass them around.

use super::{FileReference, IPC_HANDLE_BYTES};

/// Bytes of the record.
pub const IPC_INFO_BYTES: usize = 128;

/// Bit of the flags: the memory is GPU memory, and the handle is of its runtime.
const DEVICE_MEMORY: u32 = 1;
/// Bit of the flags: the memory is GPU memory, and the handle is a [`FileReference`]. The original engine, which does not know
/// it, refuses the record as one of no GPU memory, and opens nothing.
const BY_FILES: u32 = 2;

/// A range of GPU memory, named for other processes of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpcInfo {
    /// What the other process opens.
    pub handle: [u8; IPC_HANDLE_BYTES],
    /// Where the handle's memory begins in the process that it belongs to.
    pub base: u64,
    /// Where the range begins in it.
    pub offset: u64,
    /// Bytes of the range.
    pub size: u64,
}

impl IpcInfo {
    /// Writes the record.
    pub fn encode(&self) -> [u8; IPC_INFO_BYTES] {
        let fields = (self.handle.iter().copied())
            .chain(self.base.to_ne_bytes())
            .chain(self.offset.to_ne_bytes())
            .chain(self.size.to_ne_bytes())
            .chain(flag(&self.handle).to_ne_bytes())
            .chain((IPC_HANDLE_BYTES as u32).to_ne_bytes());
        let mut bytes = [0; IPC_INFO_BYTES];
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    /// Reads a record; `None` if it does not speak of GPU memory, or of a handle that is longer than any.
    pub fn decode(bytes: &[u8; IPC_INFO_BYTES]) -> Option<Self> {
        let (handle, rest) = bytes.split_first_chunk()?;
        let (base, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let (size, rest) = rest.split_first_chunk()?;
        let (flags, rest) = rest.split_first_chunk()?;
        let (handle_bytes, _) = rest.split_first_chunk()?;
        let usable = u32::from_ne_bytes(*flags) & (DEVICE_MEMORY | BY_FILES) == flag(handle)
            && (1..=IPC_HANDLE_BYTES as u32).contains(&u32::from_ne_bytes(*handle_bytes));
        usable.then(|| Self {
            handle: *handle,
            base: u64::from_ne_bytes(*base),
            offset: u64::from_ne_bytes(*offset),
            size: u64::from_ne_bytes(*size),
        })
    }
}

/// What the flags say of a handle.
fn flag(handle: &[u8; IPC_HANDLE_BYTES]) -> u32 {
    if FileReference::is_in(handle) { BY_FILES } else { DEVICE_MEMORY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_where_the_original_engine_has_them() {
        let mut handle = [0; 64];
        handle[0] = 0xaa;
        handle[63] = 0xbb;
        let info = IpcInfo { handle, base: 0x1122_3344_5566_7788, offset: 0x10, size: 0x2000 };
        let bytes = info.encode();
        assert_eq!((bytes[0], bytes[63]), (0xaa, 0xbb));
        assert_eq!(bytes[64..72], 0x1122_3344_5566_7788_u64.to_le_bytes());
        assert_eq!((bytes[72], bytes[81], bytes[88], bytes[92]), (0x10, 0x20, 1, 64));
        assert_eq!(bytes[96..], [0; 32]);
        assert_eq!(IpcInfo::decode(&bytes), Some(info));
    }

    /// The original engine looks at bit 0 of the flags and opens the handle if it is set.
    #[test]
    fn a_reference_to_files_is_no_gpu_memory_for_the_original_engine() {
        let mut handle = [3; 64];
        handle[..16].copy_from_slice(b"flagcx-p2p\0files");
        let info = IpcInfo { handle, base: 1, offset: 2, size: 3 };
        let bytes = info.encode();
        assert_eq!(bytes[88..92], [2, 0, 0, 0]);
        assert_eq!(IpcInfo::decode(&bytes), Some(info.clone()));
        let mut claimed = bytes;
        claimed[88] = 1;
        assert_eq!(IpcInfo::decode(&claimed), None, "a reference is never given to a runtime");
        let mut runtime = IpcInfo { handle: [3; 64], ..info }.encode();
        runtime[88] = 2;
        assert_eq!(IpcInfo::decode(&runtime), None, "nor another handle taken for one");
    }

    #[test]
    fn other_memory_and_long_handles_are_refused() {
        let info = IpcInfo { handle: [1; 64], base: 0, offset: 0, size: 0 };
        let bytes = info.encode();
        assert_eq!(IpcInfo::decode(&[0; 128]), None);
        assert_eq!(
            IpcInfo::decode(&{
                let mut host = bytes;
                host[88] = 0;
                host
            }),
            None
        );
        assert_eq!(
            IpcInfo::decode(&{
                let mut long = bytes;
                long[92] = 65;
                long
            }),
            None
        );
    }
}
