//! What another process takes of an offer.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{FileType, fstat};
use rustix::io::{Errno, pread, retry_on_intr};

use super::super::GpuError;
use super::{FileReference, MOST_FILES, MemoryFile, MemoryFiles, POOL_POINTER_BYTES, Token, list};
use crate::process::PeerProcess;

/// The process that offers memory which is open here.
#[derive(Debug)]
pub struct Owner {
    process: Arc<PeerProcess>,
    list: OwnedFd,
    reference: FileReference,
}

impl Owner {
    /// Refuses memory that is its owner's no more: the process has ended, or has deregistered the range. Two system calls.
    pub fn check(&self) -> Result<(), GpuError> {
        if !self.process.is_alive() {
            return Err(self.refuse(ENDED));
        }
        let mut token = Token::default();
        let read = retry_on_intr(|| pread(&self.list, &mut token, 0));
        if read != Ok(token.len()) || token != self.reference.token {
            return Err(self.refuse(DEREGISTERED));
        }
        Ok(())
    }

    fn refuse(&self, reason: &str) -> GpuError {
        refuse(&self.reference, reason)
    }
}

/// Takes the files of an offer out of the process that has it.
pub(in crate::gpu) fn take(reference: &FileReference) -> Result<(Owner, MemoryFiles), GpuError> {
    let process = PeerProcess::of_identity(reference.owner).ok_or_else(|| refuse(reference, ENDED))?;
    let take = |number: u32| {
        let taken = i32::try_from(number).map_err(|_| Errno::BADF.into());
        taken
            .and_then(|number| process.take_descriptor(number))
            .map_err(|error| refuse(reference, &said(&error)))
    };
    let list = take(reference.list)?;
    // A descriptor that has got the number since may be of anything: only a file is read.
    let is_file =
        fstat(&list).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile);
    let owner = Owner { process: Arc::clone(&process), list, reference: *reference };
    if !is_file {
        return Err(owner.refuse(DEREGISTERED));
    }
    owner.check()?;
    let listed = read_list(&owner.list).ok_or_else(|| owner.refuse("its list is malformed"))?;
    let files =
        listed.files.into_iter().map(|(number, length)| Ok(MemoryFile { file: take(number)?, length }));
    let files = files.collect::<Result<Vec<_>, GpuError>>()?;
    // The token is there still: so no file was closed before it was taken.
    owner.check()?;
    Ok((owner, MemoryFiles { base: 0, files, pool_pointer: listed.pool_pointer }))
}

/// What a list says: descriptors of its process, and lengths.
struct Listed {
    files: Vec<(u32, u64)>,
    pool_pointer: Option<[u8; POOL_POINTER_BYTES]>,
}

fn read_list(file: &OwnedFd) -> Option<Listed> {
    let mut bytes = vec![0; list::HEADER + MOST_FILES * list::FILE + POOL_POINTER_BYTES];
    let read = retry_on_intr(|| pread(file, &mut bytes, 0)).ok()?;
    bytes.truncate(read);
    parse_list(&bytes)
}

fn parse_list(bytes: &[u8]) -> Option<Listed> {
    let (_, rest) = bytes.split_first_chunk::<{ size_of::<Token>() }>()?;
    let (count, rest) = rest.split_first_chunk()?;
    let (pool, mut rest) = rest.split_first_chunk()?;
    let (count, of_pool) = (u32::from_ne_bytes(*count) as usize, u32::from_ne_bytes(*pool) != 0);
    if count == 0 || count > MOST_FILES || of_pool && count != 1 {
        return None;
    }
    let (mut files, mut total) = (Vec::with_capacity(count), 0_u64);
    for _ in 0..count {
        let (number, after) = rest.split_first_chunk()?;
        let (length, after) = after.get(4..)?.split_first_chunk()?;
        let length = u64::from_ne_bytes(*length);
        total = total.checked_add(length).filter(|_| length > 0)?;
        files.push((u32::from_ne_bytes(*number), length));
        rest = after;
    }
    let pool_pointer = if of_pool { Some(*rest.first_chunk()?) } else { None };
    Some(Listed { files, pool_pointer })
}

fn refuse(reference: &FileReference, reason: &str) -> GpuError {
    let process = reference.owner.pid;
    GpuError::NotShared { reason: format!("process {process} has it: {reason}") }
}

const ENDED: &str = "that process has ended, or cannot be seen from here: both must be in one PID namespace";
const DEREGISTERED: &str = "it has been deregistered there: ask its owner for its IPC information again";

fn said(error: &io::Error) -> String {
    match Errno::from_io_error(error) {
        Some(Errno::BADF) => DEREGISTERED.to_owned(),
        Some(Errno::SRCH) => ENDED.to_owned(),
        Some(Errno::PERM | Errno::ACCESS) => format!(
            "pidfd_getfd is refused ({error}): run both processes as the same user, allow it in the container's seccomp \
             profile, and see kernel.yama.ptrace_scope"
        ),
        Some(Errno::NOSYS) => {
            format!("pidfd_getfd: {error}: it needs Linux 5.6, and a seccomp profile that allows it")
        }
        _ => format!("pidfd_getfd: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Offer;
    use super::*;
    use crate::process::ProcessIdentity;

    fn file() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    fn files(lengths: &[u64]) -> MemoryFiles {
        let files = lengths.iter().map(|length| MemoryFile { file: file(), length: *length }).collect();
        MemoryFiles { base: 0, files, pool_pointer: None }
    }

    #[test]
    fn an_offer_of_no_other_process_is_refused() {
        let own = FileReference::decode(&Offer::new(files(&[4096])).unwrap().handle()).unwrap();
        let gone = FileReference { owner: ProcessIdentity { pid: 0x3fff_fff0, fingerprint: 3 }, ..own };
        let recycled = FileReference { owner: ProcessIdentity { pid: 1, fingerprint: 3 }, ..own };
        for reference in [own, gone, recycled] {
            let error = take(&reference).unwrap_err().to_string();
            assert!(error.contains("has ended, or cannot be seen from here"), "{error}");
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        let list = |count: u32, pool: u32, lengths: &[u64]| {
            let mut bytes = vec![7; 16];
            bytes.extend(count.to_ne_bytes());
            bytes.extend(pool.to_ne_bytes());
            for length in lengths {
                bytes.extend([1, 0, 0, 0, 0, 0, 0, 0]);
                bytes.extend(length.to_ne_bytes());
            }
            bytes
        };
        assert_eq!(parse_list(&list(2, 0, &[5, 6])).unwrap().files, [(1, 5), (1, 6)]);
        for malformed in [
            list(0, 0, &[]),
            list(2, 0, &[5]),
            list(1, 0, &[0]),
            list(2, 0, &[u64::MAX, 2]),
            list(MOST_FILES as u32 + 1, 0, &[]),
            list(1, 1, &[5]),
            list(2, 1, &[5, 6]),
            vec![0; 5],
        ] {
            assert!(parse_list(&malformed).is_none(), "{malformed:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_list_panics(bytes: Vec<u8>) {
            let _ = parse_list(&bytes);
        }
    }
}
