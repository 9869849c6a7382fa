//! A process of this host, and the watchers of its end.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError, Weak};

use rustix::io::retry_on_intr;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use super::ProcessIdentity;
use crate::events::{EventLoop, EventLoopHandle, Interest, Task, Wakeup, is_ready};
use crate::fork::PerProcess;
use crate::observe::report;

/// A watcher of a process's end. Called once, on the thread of the event loop or of [`PeerProcess::watch`], so it
/// must not block or take locks of its caller.
pub(crate) trait EndWatcher: Send + Sync {
    /// The process has ended.
    fn process_ended(&self);
}

impl EndWatcher for Wakeup {
    fn process_ended(&self) {
        self.wake();
    }
}

/// Another process of this host, through a pidfd that the event loop watches. There is one for each process.
#[derive(Debug)]
pub struct PeerProcess {
    shared: Arc<Shared>,
    watching: Option<(Task, Arc<EventLoop>)>,
}

struct Shared {
    pid: Pid,
    /// Becomes readable when the process ends, whatever holds its descriptors.
    pidfd: OwnedFd,
    watchers: Mutex<Watchers>,
}

#[derive(Default)]
struct Watchers {
    ended: bool,
    list: Vec<Weak<dyn EndWatcher>>,
    /// Dropped watchers are removed from the list when it is that long.
    prune_at: usize,
}

/// Processes by pid.
type Processes = Mutex<HashMap<Pid, Weak<PeerProcess>>>;
static PROCESSES: PerProcess<Processes> = PerProcess::new(Processes::default);

impl PeerProcess {
    /// The process that has this pid now. The caller must verify before or afterwards that it is the intended one.
    pub(crate) fn of_pid(pid: Pid) -> io::Result<Arc<Self>> {
        // Dropped after the lock is released: dropping the last reference to a process takes other locks.
        let _former;
        let mut processes = PROCESSES.get().lock().unwrap_or_else(PoisonError::into_inner);
        match processes.get(&pid).and_then(Weak::upgrade) {
            // Alive, so no other process has its pid.
            Some(known) if known.is_alive() => return Ok(known),
            former => _former = former,
        }
        let process = Arc::new(Self::open(pid)?);
        processes.retain(|_, process| process.strong_count() > 0);
        processes.insert(pid, Arc::downgrade(&process));
        Ok(process)
    }

    /// The process with this identity, if it is another process of this host, visible from here, and alive.
    pub(crate) fn of_identity(identity: ProcessIdentity) -> Option<Arc<Self>> {
        let pid = identity.pid().filter(|pid| *pid != getpid())?;
        // Identities of other hosts mostly end here, before a pidfd is opened.
        if !identity.matches_running_process() {
            return None;
        }
        let process = Self::of_pid(pid).inspect_err(|error| note_unwatched(pid, error)).ok()?;
        // Alive after the check: so the check saw this process.
        (identity.matches_running_process() && process.is_alive()).then_some(process)
    }

    fn open(pid: Pid) -> io::Result<Self> {
        let pidfd = retry_on_intr(|| pidfd_open(pid, PidfdFlags::empty()))?;
        let shared = Arc::new(Shared { pid, pidfd, watchers: Mutex::default() });
        let events = EventLoop::acquire()?;
        let watched = Arc::clone(&shared);
        let task = events.spawn(move |handle| watch(watched, handle.clone()));
        Ok(Self { shared, watching: Some((task, events)) })
    }

    pub(crate) fn pid(&self) -> Pid {
        self.shared.pid
    }

    /// False once the process has ended. A system call, which sees it before the event loop does.
    pub(crate) fn is_alive(&self) -> bool {
        self.shared.is_alive()
    }

    /// A descriptor of the open file that the process has under this number now. The kernel asks for the rights of a
    /// debugger, as for copies out of its memory. Whether it is the intended file is the caller's to check.
    pub(crate) fn take_descriptor(&self, number: RawFd) -> io::Result<OwnedFd> {
        Ok(retry_on_intr(|| pidfd_getfd(&self.shared.pidfd, number, PidfdGetfdFlags::empty()))?)
    }

    /// Whether its watchers have been notified of its end.
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.watchers().ended
    }

    /// Notifies `watcher` of the end, unless it is dropped before; at once if the process has ended.
    pub(crate) fn watch<W: EndWatcher + 'static>(&self, watcher: &Arc<W>) {
        let mut watchers = self.shared.watchers();
        if watchers.ended {
            drop(watchers);
            return watcher.process_ended();
        }
        if watchers.list.len() >= watchers.prune_at {
            watchers.list.retain(|watcher| watcher.strong_count() > 0);
            watchers.prune_at = 2 * watchers.list.len() + FIRST_PRUNE;
        }
        let watcher: Weak<W> = Arc::downgrade(watcher);
        watchers.list.push(watcher);
    }
}

impl Drop for PeerProcess {
    fn drop(&mut self) {
        // Not waited for: this may be dropped under a lock, and the task borrows nothing.
        if let Some((task, _events)) = self.watching.take() {
            task.stop_soon();
        }
    }
}

impl Shared {
    fn is_alive(&self) -> bool {
        is_ready(self.pidfd.as_fd(), Interest::Read) == Ok(false)
    }

    fn watchers(&self) -> MutexGuard<'_, Watchers> {
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self) {
        let mut watchers = self.watchers();
        watchers.ended = true;
        let list = std::mem::take(&mut watchers.list);
        drop(watchers);
        list.iter().filter_map(Weak::upgrade).for_each(|watcher| watcher.process_ended());
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("pid", &self.pid).finish_non_exhaustive()
    }
}

/// Waits for the end of a process.
async fn watch(process: Arc<Shared>, handle: EventLoopHandle) {
    let mut watched = match handle.watch(Arc::clone(&process)) {
        Ok(watched) => watched,
        Err(error) => {
            tracing::warn!(pid = %process.pid, "the event loop cannot watch a peer's process: {error}");
            return;
        }
    };
    while process.is_alive() {
        watched.readable().await;
    }
    drop(watched);
    report!(info, PeerDied, "the process {} of a peer has ended", process.pid);
    process.tell();
}

/// Logs once that the ends of peers' processes are detected by sockets and pings only.
fn note_unwatched(pid: Pid, error: &io::Error) {
    static SAID: PerProcess<Once> = PerProcess::new(Once::new);
    SAID.get().call_once(|| {
        tracing::info!(
            "cannot watch a peer's process {pid} (pidfd_open): {error}; the ends of peers are detected by their sockets and by pings"
        );
    });
}

/// Length of the list at which it is pruned for the first time.
const FIRST_PRUNE: usize = 16;

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    #[derive(Default)]
    struct Counts(AtomicUsize);

    impl EndWatcher for Counts {
        fn process_ended(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    impl Counts {
        fn wait_for(&self, count: usize) {
            let start = Instant::now();
            while self.0.load(Ordering::SeqCst) < count {
                assert!(start.elapsed() < Duration::from_secs(10), "the end was not detected");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    fn sleeper() -> (Child, Pid) {
        let child = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        let pid = Pid::from_child(&child);
        (child, pid)
    }

    #[test]
    fn each_watcher_is_notified_once_of_the_end() {
        let (mut child, pid) = sleeper();
        let process = PeerProcess::of_pid(pid).unwrap();
        assert!(Arc::ptr_eq(&process, &PeerProcess::of_pid(pid).unwrap()), "one for each process");
        let watcher = Arc::new(Counts::default());
        let gone = Arc::new(Counts::default());
        (0..40).for_each(|_| process.watch(&Arc::new(Counts::default())));
        assert!(process.shared.watchers().list.len() <= 2 * FIRST_PRUNE, "dropped watchers are removed");
        process.watch(&watcher);
        process.watch(&gone);
        drop(gone);
        assert!(process.is_alive() && !process.has_ended());
        // Not reaped until later: the end counts, not the wait for it.
        child.kill().unwrap();
        watcher.wait_for(1);
        assert!(!process.is_alive() && process.has_ended());
        process.watch(&watcher);
        assert_eq!(watcher.0.load(Ordering::SeqCst), 2, "at once after the end");
        child.wait().unwrap();
        assert!(PeerProcess::of_pid(pid).is_err());
    }

    #[test]
    fn an_identity_matches_only_the_process_that_announced_it() {
        let (mut child, pid) = sleeper();
        let raw = pid.as_raw_nonzero().get().unsigned_abs();
        let own = ProcessIdentity::own();
        assert!(PeerProcess::of_identity(own).is_none(), "this process needs no watching");
        assert!(PeerProcess::of_identity(ProcessIdentity { pid: raw, ..own }).is_none());
        assert!(PeerProcess::of_identity(ProcessIdentity::default()).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
