//! What another process takes of an offer.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{fcntl_get_seals, fstat};
use rustix::io::{Errno, pread, retry_on_intr};

use super::super::GpuError;
use super::{FileReference, MOST_FILES, MemoryFile, MemoryFiles, POOL_POINTER_BYTES, Token, list};
use crate::process::{PeerProcess, ProcessIdentity};

/// The process that offers memory which is open here.
#[derive(Debug)]
pub struct Owner {
    process: Arc<PeerProcess>,
    list: OwnedFd,
    reference: FileReference,
}

impl Owner {
    /// Refuses memory that is its owner's no more: the process has ended, runs another program, or has deregistered the range.
    pub fn check(&self) -> Result<(), GpuError> {
        if !self.process.is_alive() {
            return Err(self.refuse(ENDED));
        }
        let mut token = Token::default();
        let read = retry_on_intr(|| pread(&self.list, &mut token, 0));
        if read != Ok(token.len()) || token != self.reference.token {
            return Err(self.refuse(DEREGISTERED));
        }
        // Another program of the same process has not erased the token, but exec has closed the list.
        match take_file(&self.process, self.reference.list) {
            Ok(file) if is_list(&file) && is_same(&file, &self.list) => Ok(()),
            Ok(_) => Err(self.refuse(DEREGISTERED)),
            // That this process has no descriptor left says nothing of the owner.
            Err(Errno::MFILE | Errno::NFILE) => Ok(()),
            Err(error) => Err(self.refuse(&said(error))),
        }
    }

    fn refuse(&self, reason: &str) -> GpuError {
        refuse(&self.reference, reason)
    }
}

/// Takes the files of an offer out of the process that has it.
///
/// `peer`: the only process of which anything is taken, if it is known.
pub(in crate::gpu) fn take(
    reference: &FileReference,
    peer: Option<ProcessIdentity>,
) -> Result<(Owner, MemoryFiles), GpuError> {
    if peer.is_some_and(|peer| peer != reference.owner) {
        return Err(refuse(reference, NOT_THE_PEERS));
    }
    let process = PeerProcess::of_identity(reference.owner).ok_or_else(|| refuse(reference, ENDED))?;
    let take = |number: u32| take_file(&process, number).map_err(|error| refuse(reference, &said(error)));
    let list = take(reference.list)?;
    let owner = Owner { process: Arc::clone(&process), list, reference: *reference };
    // A descriptor that has got the number since may be of anything.
    if !is_list(&owner.list) {
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

fn take_file(process: &PeerProcess, number: u32) -> Result<OwnedFd, Errno> {
    let number = i32::try_from(number).map_err(|_| Errno::BADF)?;
    process.take_descriptor(number).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Whether both are the same file. Of lists only: other file systems may block.
fn is_same(one: &OwnedFd, other: &OwnedFd) -> bool {
    matches!((fstat(one), fstat(other)), (Ok(one), Ok(other)) if (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

/// Whether a file is sealed as a list is: then it is in memory, and reading it does not block. Other files answer here without
/// a call of their file system.
fn is_list(file: &OwnedFd) -> bool {
    fcntl_get_seals(file).is_ok_and(|seals| seals.contains(list::seals()))
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
const NOT_THE_PEERS: &str =
    "that is not the peer's process: use a connection to the process that has registered the memory";
const DEREGISTERED: &str = "it has been deregistered there: ask its owner for its IPC information again";

fn said(error: Errno) -> String {
    match error {
        Errno::BADF => DEREGISTERED.to_owned(),
        Errno::SRCH => ENDED.to_owned(),
        Errno::PERM | Errno::ACCESS => format!(
            "pidfd_getfd is refused ({error}): run both processes as the same user, allow it in the container's seccomp \
             profile, and see kernel.yama.ptrace_scope"
        ),
        Errno::NOSYS => {
            format!("pidfd_getfd: {error}: it needs Linux 5.6, and a seccomp profile that allows it")
        }
        _ => format!("pidfd_getfd: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    use rustix::fs::{MemfdFlags, memfd_create};
    use rustix::io::pwrite;

    use super::super::Offer;
    use super::super::offer::memfd;
    use super::*;

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
            let error = take(&reference, None).unwrap_err().to_string();
            assert!(error.contains("has ended, or cannot be seen from here"), "{error}");
        }
    }

    #[test]
    fn nothing_is_taken_of_a_process_that_is_not_the_peer() {
        let own = FileReference::decode(&Offer::new(files(&[4096])).unwrap().handle()).unwrap();
        let gone = FileReference { owner: ProcessIdentity { pid: 0x3fff_fff0, fingerprint: 3 }, ..own };
        let said = |peer| take(&gone, Some(peer)).unwrap_err().to_string();
        assert!(said(own.owner).contains("not the peer's process"));
        assert!(said(gone.owner).contains("has ended"), "it was looked for");
    }

    /// A process that has `list` as its standard error, and names that very file in it; it goes on as another program when its
    /// input ends.
    fn process_with(list: OwnedFd) -> (Child, FileReference) {
        let mut shell = Command::new("sh");
        shell.args(["-c", "read line; exec sleep 60 2>&-"]).stdin(Stdio::piped()).stderr(list);
        let child = shell.spawn().unwrap();
        let owner = ProcessIdentity::of(child.id());
        (child, FileReference { owner, list: 2, token: [7; 16] })
    }

    /// The bytes of a list of one file, descriptor 2.
    fn list_of_itself() -> Vec<u8> {
        let numbers = [1_u32, 0, 2, 0].into_iter().flat_map(u32::to_ne_bytes);
        [7; 16].into_iter().chain(numbers).chain(4096_u64.to_ne_bytes()).collect()
    }

    #[test]
    fn what_the_owner_offered_is_refused_once_it_runs_another_program() {
        let list = memfd(&list_of_itself()).unwrap();
        let (mut child, reference) = process_with(list);
        let (owner, files) = take(&reference, None).unwrap();
        assert_eq!(files.length(), Some(4096));
        owner.check().unwrap();
        drop(child.stdin.take());
        let start = Instant::now();
        let error = loop {
            match owner.check() {
                Err(error) => break error.to_string(),
                Ok(()) if start.elapsed() > Duration::from_secs(10) => break "it was not refused".to_owned(),
                Ok(()) => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let ran_on = child.try_wait().unwrap().is_none();
        child.kill().unwrap();
        child.wait().unwrap();
        let ended = owner.check().unwrap_err().to_string();
        assert!(error.contains("deregistered"), "{error}");
        assert!(ran_on && ended.contains("has ended"), "{ended}");
    }

    #[test]
    fn a_file_that_is_no_sealed_list_is_not_read() {
        let unsealed = memfd_create("unsealed", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
        pwrite(&unsealed, &list_of_itself(), 0).unwrap();
        let (mut child, reference) = process_with(unsealed);
        let taken = take(&reference, None).map(|_| ());
        child.kill().unwrap();
        child.wait().unwrap();
        let error = taken.unwrap_err().to_string();
        assert!(error.contains("deregistered"), "{error}");
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
