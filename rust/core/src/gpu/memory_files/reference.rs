//! What names an offer in the place of a GPU runtime's handle.

use super::super::IPC_HANDLE_BYTES;
use super::Token;
use crate::process::ProcessIdentity;

/// First bytes of a handle that is a reference. A runtime's handle begins with them once in 2^128.
const MARK: [u8; 16] = *b"flagcx-p2p\0files";

/// Names the list of an offer: the process that has it, the number of its descriptor there, and its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileReference {
    pub(super) owner: ProcessIdentity,
    pub(super) list: u32,
    pub(super) token: Token,
}

impl FileReference {
    /// Whether a handle is a reference.
    pub fn is_in(handle: &[u8; IPC_HANDLE_BYTES]) -> bool {
        handle.starts_with(&MARK)
    }

    pub(in crate::gpu) fn encode(&self) -> [u8; IPC_HANDLE_BYTES] {
        let fields = (MARK.into_iter())
            .chain(self.owner.pid.to_ne_bytes())
            .chain(self.list.to_ne_bytes())
            .chain(self.owner.fingerprint.to_ne_bytes())
            .chain(self.token);
        let mut handle = [0; IPC_HANDLE_BYTES];
        for (place, byte) in handle.iter_mut().zip(fields) {
            *place = byte;
        }
        handle
    }

    /// The reference in a handle, if it is one. Not with a token of zeros: it is what an offer has that has ended.
    pub(in crate::gpu) fn decode(handle: &[u8; IPC_HANDLE_BYTES]) -> Option<Self> {
        let (_, rest) = handle.split_first_chunk::<16>().filter(|(mark, _)| **mark == MARK)?;
        let (pid, rest) = rest.split_first_chunk()?;
        let (list, rest) = rest.split_first_chunk()?;
        let (fingerprint, rest) = rest.split_first_chunk()?;
        let (token, _) = rest.split_first_chunk().filter(|(token, _)| **token != Token::default())?;
        let owner =
            ProcessIdentity { pid: u32::from_ne_bytes(*pid), fingerprint: u64::from_ne_bytes(*fingerprint) };
        Some(Self { owner, list: u32::from_ne_bytes(*list), token: *token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_fits_into_a_handle_and_is_told_from_others() {
        let owner = ProcessIdentity { pid: 7, fingerprint: 0x1122_3344_5566_7788 };
        let reference = FileReference { owner, list: 9, token: [5; 16] };
        let handle = reference.encode();
        assert!(FileReference::is_in(&handle));
        assert_eq!(FileReference::decode(&handle), Some(reference));
        let mut other = handle;
        other[15] ^= 1;
        assert!(!FileReference::is_in(&other));
        assert_eq!(FileReference::decode(&other), None);
    }

    #[test]
    fn a_token_of_zeros_is_refused() {
        let owner = ProcessIdentity { pid: 7, fingerprint: 1 };
        let erased = FileReference { owner, list: 9, token: Token::default() };
        assert_eq!(FileReference::decode(&erased.encode()), None, "it is what an ended offer has");
    }
}
