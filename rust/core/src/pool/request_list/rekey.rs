//! The same requests with the keys of another NIC.

use super::RequestList;
use crate::fabric::Sge;
use crate::memory::Hold;

/// The memory of a list is not known on the NIC that is to move it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the memory of iov {iov} has no keys on that rail")]
pub struct NotOnRail {
    /// The caller's iov, the first one for which that is so.
    pub iov: u32,
}

impl RequestList {
    /// Gives the requests from `from` on the keys of another NIC: `local` answers an entry with its key there, `remote` the key of the
    /// peer's memory at an address, which has this key now and of which the request reaches so many bytes. Those before `from` are done: what keeps
    /// their memory registered is released, and `holds`, which keep that of the others, take its place.
    ///
    /// Without an answer for one of them the list stays as it is, and `holds` are released.
    pub fn rekey(
        &mut self,
        from: usize,
        mut local: impl FnMut(Sge) -> Option<Sge>,
        mut remote: impl FnMut(u64, u32, u64) -> Option<u32>,
        holds: Vec<Hold>,
    ) -> Result<(), NotOnRail> {
        let requests = self.requests.get(from..self.len).unwrap_or_default();
        let (mut keys, mut entries) =
            (Vec::with_capacity(requests.len()), Vec::with_capacity(requests.len()));
        for request in requests {
            let missing = NotOnRail { iov: request.origin };
            let first = request.first_sge as usize;
            let own = self.entries.get(first..first + usize::from(request.sge_count)).unwrap_or_default();
            for entry in own {
                entries.push(local(*entry).ok_or(missing)?);
            }
            let length = own.iter().map(|entry| u64::from(entry.length)).sum();
            keys.push(remote(request.remote_address, request.rkey, length).ok_or(missing)?);
        }
        // Emptying the list knows of READs behind WRITEs by the hold on their landing.
        if self.gpu_flushes > 0 && holds.is_empty() {
            return Err(NotOnRail { iov: self.iov(self.len.saturating_sub(1)) });
        }
        let mut entries = entries.into_iter();
        for (request, key) in self.requests.iter_mut().skip(from).zip(keys) {
            let first = request.first_sge as usize;
            let own = self.entries.get_mut(first..first + usize::from(request.sge_count)).unwrap_or_default();
            own.iter_mut().zip(&mut entries).for_each(|(old, new)| *old = new);
            request.rkey = key;
        }
        (self.lease, self.holds) = (None, holds);
        Ok(())
    }
}
