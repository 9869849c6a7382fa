//! What the owner of a range keeps for other processes to take.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{MemfdFlags, fcntl_add_seals, memfd_create};
use rustix::io::{pwrite, retry_on_intr};
use rustix::process::getpid;

use super::super::{GpuError, IPC_HANDLE_BYTES};
use super::{FileReference, MemoryFiles, Token, list};
use crate::auth::random;
use crate::process::ProcessIdentity;

/// The files of a range and their list, open for others to take until this is dropped.
#[derive(Debug)]
pub(in crate::gpu) struct Offer {
    reference: FileReference,
    list: OwnedFd,
    /// `None` once they are given up.
    files: Option<MemoryFiles>,
}

impl Offer {
    pub(in crate::gpu) fn new(files: MemoryFiles) -> Result<Self, GpuError> {
        let owner = ProcessIdentity::own();
        if owner == ProcessIdentity::default() {
            return Err(failed("the process cannot be told from others: mount /proc"));
        }
        let token: Token = random().map_err(|error| failed(&error.to_string()))?;
        let list = write_list(&token, &files).map_err(|error| not_now(&error))?;
        let number = u32::try_from(list.as_raw_fd()).unwrap_or(u32::MAX);
        Ok(Self { reference: FileReference { owner, list: number, token }, list, files: Some(files) })
    }

    pub(in crate::gpu) fn handle(&self) -> [u8; IPC_HANDLE_BYTES] {
        self.reference.encode()
    }
}

impl Drop for Offer {
    fn drop(&mut self) {
        // A forked child has the same list: it is its parent's, and stays.
        if getpid().as_raw_nonzero().get().unsigned_abs() != self.reference.owner.pid {
            return;
        }
        let erased = retry_on_intr(|| pwrite(&self.list, &Token::default(), 0));
        if erased != Ok(size_of::<Token>()) {
            // The numbers of the files must not come to name others while the token is there.
            std::mem::forget(self.files.take());
            tracing::warn!(
                "a list of GPU memory for other processes was not erased ({erased:?}): its files stay open"
            );
        }
    }
}

fn failed(reason: &str) -> GpuError {
    GpuError::NotShared { reason: format!("no file descriptors can be offered for it: {reason}") }
}

/// As when there are no descriptors left: it may be tried again.
fn not_now(error: &io::Error) -> GpuError {
    GpuError::Call {
        runtime: "Linux",
        operation: "writing a list of its file descriptors",
        code: error.raw_os_error().unwrap_or(0),
        text: format!(", {error}"),
    }
}

fn write_list(token: &Token, files: &MemoryFiles) -> io::Result<OwnedFd> {
    let mut bytes = token.to_vec();
    bytes.extend(u32::try_from(files.files.len()).unwrap_or(u32::MAX).to_ne_bytes());
    bytes.extend(u32::from(files.pool_pointer.is_some()).to_ne_bytes());
    for file in &files.files {
        bytes.extend(file.file.as_raw_fd().to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(file.length.to_ne_bytes());
    }
    bytes.extend(files.pool_pointer.into_iter().flatten());
    memfd(&bytes)
}

/// The file of a list: it keeps its size, and its token can be erased.
pub(super) fn memfd(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let list = match retry_on_intr(|| memfd_create(NAME, flags | MemfdFlags::NOEXEC_SEAL)) {
        // A kernel before 6.3.
        Err(rustix::io::Errno::INVAL) => retry_on_intr(|| memfd_create(NAME, flags))?,
        made => made?,
    };
    let written = retry_on_intr(|| pwrite(&list, bytes, 0))?;
    if written != bytes.len() {
        return Err(io::Error::other(format!("{written} of {} bytes written", bytes.len())));
    }
    retry_on_intr(|| fcntl_add_seals(&list, list::seals()))?;
    Ok(list)
}

/// As `/proc/PID/fd` shows it.
const NAME: &str = "flagcx-p2p-gpu-memory";

#[cfg(test)]
mod tests {
    use rustix::io::pread;

    use super::super::MemoryFile;
    use super::*;

    /// A list as a peer has taken it, and what happens to its token when the offer ends.
    fn token_after(change: impl FnOnce(&mut Offer)) -> (Token, Token) {
        let file = std::fs::File::open("/dev/null").unwrap().into();
        let files = vec![MemoryFile { file, length: 4096 }];
        let mut offer = Offer::new(MemoryFiles { base: 0, files, pool_pointer: None }).unwrap();
        let (list, token) = (offer.list.try_clone().unwrap(), offer.reference.token);
        change(&mut offer);
        drop(offer);
        let mut read = Token::default();
        assert_eq!(pread(&list, &mut read, 0), Ok(read.len()));
        (token, read)
    }

    #[test]
    fn peers_that_have_the_list_see_the_offer_end() {
        let (token, after) = token_after(|_| {});
        assert_eq!(after, Token::default());
        assert_ne!(token, after);
    }

    #[test]
    fn a_list_keeps_its_size_and_its_seals() {
        token_after(|offer| {
            assert_eq!(rustix::fs::ftruncate(&offer.list, 0), Err(rustix::io::Errno::PERM));
            let more = fcntl_add_seals(&offer.list, rustix::fs::SealFlags::WRITE);
            assert_eq!(more, Err(rustix::io::Errno::PERM), "the token must stay erasable");
        });
    }

    #[test]
    fn a_forked_child_does_not_end_the_offer_of_its_parent() {
        let (token, after) = token_after(|offer| offer.reference.owner.pid += 1);
        assert_eq!(token, after);
    }
}
