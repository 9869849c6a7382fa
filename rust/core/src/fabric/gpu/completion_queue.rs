//! The completion queue of copy streams: asks each stream how far it is.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll;

use super::copies::Copies;
use crate::events::{Alarm, Notifier};
use crate::fabric::{Completion, CompletionQueue, FabricError, QueueHandle};
use crate::sync::{Mutex, lock};

/// How soon a stream is looked at again if its runtime makes no call when it has come so far.
const LOOK_AGAIN: Duration = Duration::from_micros(100);

/// How soon if its runtime does: it makes no call on a stream of a failed context.
const LOOK_AFTER_FAILURE: Duration = Duration::from_millis(10);

/// Polled by one worker; its work queues complete into it.
#[derive(Debug)]
pub struct GpuCompletionQueue {
    streams: Arc<CopyStreams>,
    depth: u32,
    /// Readable when the notifier or the timer is.
    either: OwnedFd,
    notifier: Arc<Notifier>,
    timer: Alarm,
}

/// The streams of a completion queue, those of work queues that are gone included until their copies are done.
#[derive(Debug, Default)]
pub struct CopyStreams(Mutex<Vec<Arc<Mutex<Copies>>>>);

impl CopyStreams {
    pub(super) fn attach(&self, copies: &Arc<Mutex<Copies>>) {
        lock(&self.0).push(Arc::clone(copies));
    }

    /// Gives back the streams that are not needed any more.
    pub(super) fn sweep(&self) {
        lock(&self.0).retain(|copies| {
            let mut copies = lock(copies);
            if copies.is_orphaned {
                copies.look();
            }
            !copies.is_orphaned || copies.outstanding() > 0
        });
    }
}

impl GpuCompletionQueue {
    /// A queue of `depth` entries: as many requests may be outstanding on its work queues together.
    pub fn new(depth: u32) -> Result<Self, FabricError> {
        let failed = |error: io::Error| {
            FabricError::call(
                "creating a completion queue",
                "copy streams",
                error.raw_os_error().unwrap_or(0),
            )
        };
        let notifier = Arc::new(Notifier::new().map_err(failed)?);
        let timer = Alarm::new().map_err(failed)?;
        let either = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        for (number, fd) in [notifier.as_fd(), timer.as_fd()].into_iter().enumerate() {
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&either, fd, data, epoll::EventFlags::IN).map_err(|errno| failed(errno.into()))?;
        }
        Ok(Self { streams: Arc::default(), depth: depth.max(1), either, notifier, timer })
    }

    /// What its work queues share.
    pub fn streams(&self) -> &Arc<CopyStreams> {
        &self.streams
    }
}

impl CompletionQueue for GpuCompletionQueue {
    fn poll(&mut self, out: &mut [Completion]) -> Result<usize, FabricError> {
        let (mut found, mut has_orphaned) = (0, false);
        for copies in lock(&self.streams.0).iter() {
            let mut copies = lock(copies);
            copies.look();
            has_orphaned |= copies.is_orphaned;
            if !copies.is_orphaned {
                found += copies.take(out.get_mut(found..).unwrap_or_default());
            }
        }
        if has_orphaned {
            self.streams.sweep();
        }
        Ok(found)
    }

    fn arm(&mut self) -> Result<bool, FabricError> {
        let mut pause: Option<Duration> = None;
        for copies in lock(&self.streams.0).iter() {
            let mut copies = lock(copies);
            copies.look();
            if copies.has_completions() && !copies.is_orphaned {
                return Ok(false);
            }
            if copies.outstanding() == 0 {
                continue;
            }
            // The call comes behind all that is under way: too late for what is done before the last of it.
            let is_announced = copies.announce(&self.notifier) && copies.groups() == 1;
            let wanted = if is_announced { LOOK_AFTER_FAILURE } else { LOOK_AGAIN };
            pause = Some(pause.map_or(wanted, |pause| pause.min(wanted)));
        }
        if let Some(pause) = pause {
            let set = self.timer.set(Instant::now() + pause);
            set.map_err(|errno| FabricError::call("timerfd_settime", "copy streams", errno.raw_os_error()))?;
        }
        Ok(true)
    }

    fn acknowledge(&mut self) -> Result<(), FabricError> {
        self.notifier.acknowledge();
        self.timer.acknowledge();
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }

    fn depth(&self) -> u32 {
        self.depth
    }

    fn handle(&self) -> QueueHandle {
        QueueHandle::new(Arc::clone(&self.streams))
    }
}

impl Drop for GpuCompletionQueue {
    /// Copies that are under way keep their stream for as long as the process lives.
    fn drop(&mut self) {
        self.streams.sweep();
        for copies in lock(&self.streams.0).drain(..).filter(|copies| lock(copies).outstanding() > 0) {
            std::mem::forget(copies);
        }
    }
}
