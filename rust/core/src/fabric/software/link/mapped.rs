//! The regions of a link's peer that are mapped here.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Link;
use crate::events::{EventLoop, EventLoopHandle, Task, Wakeup, with_upgraded};
use crate::fabric::Opcode;
use crate::fabric::software::address_space::CheckedRange;
use crate::fabric::software::file_mapping::{FileMapping, Unmappable, Wanted};
use crate::fabric::software::link_messages::{FileAnswer, FileReply};
use crate::fabric::software::mappings::Known;
use crate::fabric::software::questions::FileFor;
use crate::fabric::software::send_queue::QueuedRequest;
use crate::fabric::software::table::{Pinned, Right, Violation, slot_of};

/// How often it is looked for regions that have ended: their memory is kept for so long after its owner has given it up.
const SWEEP: Duration = Duration::from_millis(250);

/// Why a region is not mapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::fabric::software) enum Unmapped {
    /// It may be at this time.
    NotYet(Instant),
    /// It is not to be.
    Never(String),
}

/// Unmaps the regions of a link that have ended. Stopped when dropped.
#[derive(Debug, Default)]
pub(super) struct Sweeper {
    wanted: Arc<Wakeup>,
    task: std::sync::OnceLock<(Task, Arc<EventLoop>)>,
}

impl Link {
    /// Where `length` bytes at `address` of the region `pinned` are mapped here, until the pin is dropped; `None`: they are not. The
    /// first time it asks for the region's file. Otherwise takes no lock and makes no system call.
    #[inline]
    pub(in crate::fabric::software) fn locate(
        &self,
        pinned: &Pinned<'_>,
        address: u64,
        length: u64,
        opcode: Opcode,
    ) -> Option<CheckedRange> {
        if !pinned.is_mappable() {
            return None;
        }
        let find = || self.mappings.find(pinned, address, length, opcode);
        match find() {
            Known::Mapped(place) => Some(place),
            Known::Evicted(_) | Known::Refused => None,
            Known::Nothing => {
                self.ask_for_file(pinned.key());
                match find() {
                    Known::Mapped(place) => Some(place),
                    _ => None,
                }
            }
        }
    }

    /// Whether a request can be carried out by a mapping. The answer holds for the moment.
    pub(in crate::fabric::software) fn maps(&self, request: &QueuedRequest) -> bool {
        self.pin(request.rkey).is_ok_and(|pinned| {
            self.locate(&pinned, request.remote_address, request.length, request.opcode).is_some()
        })
    }

    /// Why the region of a request is not mapped.
    pub(in crate::fabric::software) fn why_unmapped(&self, request: &QueuedRequest) -> Unmapped {
        let now = Instant::now();
        let Ok(pinned) = self.pin(request.rkey) else { return Unmapped::NotYet(now) };
        if !pinned.is_mappable() {
            let (base, length) = pinned.range();
            return Unmapped::Never(format!(
                "the memory {base:#x}+{length} of process {} is not shared: allocate it as shared memory, or register it with its \
                 file",
                self.pid()
            ));
        }
        match self.mappings.find(&pinned, request.remote_address, request.length, request.opcode) {
            Known::Mapped(_) => Unmapped::NotYet(now),
            Known::Evicted(until) => Unmapped::NotYet(until),
            Known::Nothing => Unmapped::NotYet(self.ask_for_file(pinned.key()).unwrap_or(now)),
            Known::Refused => {
                let reason = self.mappings.reason(pinned.key());
                let reason = reason.unwrap_or_else(|| "its peer has changed what it says of it".to_owned());
                let (base, length) = pinned.range();
                Unmapped::Never(format!(
                    "the memory {base:#x}+{length} of process {} cannot be mapped: {reason}",
                    self.pid()
                ))
            }
        }
    }

    /// Pins a region that this process sees.
    #[inline]
    pub(in crate::fabric::software) fn pin(&self, key: u32) -> Result<Pinned<'_>, Violation> {
        self.view().pin(key).or_else(|_| self.granted().pin(key))
    }

    /// Asks for the file of a region, or takes the answers that are there. When to come again, if there is none for this one.
    #[cold]
    fn ask_for_file(&self, key: u32) -> Option<Instant> {
        if !self.is_same_user {
            // A file system of another user's process could keep an access waiting for ever.
            let reason = "it runs as another user".to_owned();
            self.refuse(key, &Unmappable { reason, passes: false });
            return None;
        }
        let now = Instant::now();
        loop {
            match self.questions.file(&self.socket, key, now) {
                FileFor::Here(reply, file) => {
                    self.take_file(reply, file);
                    if reply.key == key {
                        return None;
                    }
                }
                FileFor::NotYet(time) => return Some(time),
                FileFor::Late => {
                    let reason = "its process has not answered for 30 s".to_owned();
                    self.refuse(key, &Unmappable { reason, passes: true });
                    return None;
                }
                FileFor::Never => {
                    let reason = "its process does not answer".to_owned();
                    self.refuse(key, &Unmappable { reason, passes: false });
                    return None;
                }
            }
        }
    }

    fn take_file(&self, reply: FileReply, file: Option<OwnedFd>) {
        // Otherwise it has ended meanwhile.
        let Ok(pinned) = self.pin(reply.key) else { return };
        let mapped = self
            .map(&pinned, reply, file)
            .and_then(|mapping| self.mappings.insert(&pinned, mapping, &self.pins));
        match mapped {
            Ok(()) => self.sweeper.wanted.wake(),
            Err(unmappable) => self.refuse(reply.key, &unmappable),
        }
    }

    fn map(
        &self,
        pinned: &Pinned<'_>,
        reply: FileReply,
        file: Option<OwnedFd>,
    ) -> Result<FileMapping, Unmappable> {
        let (offset, is_own) = match reply.answer {
            FileAnswer::Own(offset) => (offset, true),
            FileAnswer::Foreign(offset) => (offset, false),
            FileAnswer::None => {
                let reason = "its owner gives no file for it".to_owned();
                return Err(Unmappable { reason, passes: false });
            }
            FileAnswer::Refused(errno) => return Err(not_given(errno)),
        };
        let file = file.ok_or_else(|| Unmappable {
            reason: "this process has no descriptor left for its file (see ulimit -n)".to_owned(),
            passes: true,
        })?;
        let (base, length) = pinned.range();
        let writable = pinned.allows(Right::RemoteWrite);
        let mapping = FileMapping::make(&file, Wanted { base, length, offset, is_own, writable })?;
        tracing::debug!(pid = %self.pid(), base, length, own = mapping.region.is_own, "mapped memory of a peer");
        Ok(mapping)
    }

    fn refuse(&self, key: u32, unmappable: &Unmappable) {
        if self.mappings.refuse(key, unmappable) {
            tracing::warn!(
                pid = %self.pid(),
                "shared memory of a peer is not mapped and takes another path: {}",
                unmappable.reason
            );
        }
    }

    fn is_live(&self, key: u32) -> bool {
        let tables = [&self.regions, &self.granted];
        tables.iter().filter_map(|table| table.get(slot_of(key))).any(|entry| entry.is_of(key))
    }

    /// Begins to unmap regions that have ended.
    pub(in crate::fabric::software) fn begin_sweeps(self: &Arc<Self>) {
        let (link, wanted) = (Arc::downgrade(self), Arc::clone(&self.sweeper.wanted));
        match EventLoop::acquire() {
            Ok(events) => {
                let task = events.spawn(move |handle| sweep(link, wanted, handle.clone()));
                let _ = self.sweeper.task.set((task, events));
            }
            Err(error) => {
                tracing::warn!(%error, "no event loop: regions of a peer stay mapped until it is gone")
            }
        }
    }
}

/// What an owner's error means: descriptors and memory may be there another time.
fn not_given(errno: i32) -> Unmappable {
    let passes = matches!(errno, libc::EMFILE | libc::ENFILE | libc::ENOMEM);
    let hint = match errno {
        libc::EMFILE | libc::ENFILE => " (see its ulimit -n)",
        // It opens the file for reading only by its descriptor's name.
        libc::ENOENT => " (it has no /proc, which memory that peers only read needs: mount it there)",
        _ => "",
    };
    // Of a peer: it may be none.
    let error = std::io::Error::from_raw_os_error(errno);
    Unmappable { reason: format!("its owner cannot give its file: {error}{hint}"), passes }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // Not waited for: the last reference may be the task's own.
        if let Some((task, _events)) = self.task.take() {
            task.stop_soon();
        }
    }
}

/// Sleeps for as long as nothing is mapped.
async fn sweep(link: Weak<Link>, wanted: Arc<Wakeup>, handle: EventLoopHandle) {
    loop {
        wanted.wait().await;
        loop {
            handle.sleep_until(Some(Instant::now() + SWEEP)).await;
            let swept = with_upgraded(&handle, &link, |link| {
                link.mappings.sweep(|key| link.is_live(key), &link.pins)
            });
            let Some((gone, is_left)) = swept else { return };
            if !gone.is_empty() {
                // To unmap a large region takes time.
                handle.detach(move || drop(gone));
            }
            if !is_left {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_without_proc_is_not_asked_again() {
        let refused = not_given(libc::ENOENT);
        assert!(refused.reason.contains("/proc") && !refused.reason.contains("ulimit"), "{refused:?}");
        assert!(!refused.passes && !not_given(libc::EACCES).passes);
        let full = not_given(libc::EMFILE);
        assert!(full.passes && full.reason.contains("ulimit -n"), "{full:?}");
    }
}
