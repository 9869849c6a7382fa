//! A descriptor that the loop watches for a task.

use std::future::poll_fn;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;
use calloop::io::Async;

/// A descriptor that the loop watches. It stays registered with the kernel until it is ready, whatever else its task is woken for meanwhile:
/// by itself `Async` registers it anew, by a system call, with each turn of the task that waits for it.
#[derive(Debug)]
pub(crate) struct Watched<F: AsFd> {
    descriptor: Async<'static, F>,
    /// What it is registered for.
    registered: Option<For>,
    event: Arc<Event>,
    waker: Waker,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    Reading,
    Writing,
}

/// That the descriptor has become ready.
#[derive(Debug, Default)]
struct Event {
    /// Set by the loop before it wakes the task, which takes it: both are of the loop's thread, so Relaxed.
    is_new: AtomicBool,
    task: AtomicWaker,
}

impl<F: AsFd> Watched<F> {
    pub(super) fn new(descriptor: Async<'static, F>) -> Self {
        let event = Arc::<Event>::default();
        Self { descriptor, registered: None, waker: Waker::from(Arc::clone(&event)), event }
    }

    /// Waits until it is readable, at its end, or in error.
    pub(crate) async fn readable(&mut self) {
        self.ready(For::Reading).await;
    }

    /// Waits until it is writable, at its end, or in error.
    pub(crate) async fn writable(&mut self) {
        self.ready(For::Writing).await;
    }

    async fn ready(&mut self, wanted: For) {
        poll_fn(|context| {
            self.event.task.register(context.waker());
            if !self.event.is_new.swap(false, Ordering::Relaxed) && self.registered == Some(wanted) {
                return Poll::Pending;
            }
            let mut own = Context::from_waker(&self.waker);
            let polled = match wanted {
                For::Reading => pin!(self.descriptor.readable()).poll(&mut own),
                For::Writing => pin!(self.descriptor.writable()).poll(&mut own),
            };
            self.registered = polled.is_pending().then_some(wanted);
            polled
        })
        .await;
    }
}

impl Wake for Event {
    fn wake(self: Arc<Self>) {
        self.is_new.store(true, Ordering::Relaxed);
        self.task.wake();
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::super::{EventLoop, Wakeup, first};

    const LIMIT: Duration = Duration::from_secs(10);

    /// What a task has registered stays so while it is woken for other things, and what arrives is seen once, also where the task has waited for
    /// something else of the descriptor in between.
    #[test]
    fn a_task_that_is_woken_for_other_things_still_sees_what_arrives() {
        let (mut ours, theirs) = UnixStream::pair().unwrap();
        let (events, wakeup) = (EventLoop::start_alone(), Arc::<Wakeup>::default());
        let (report, seen) = mpsc::channel();
        let of_task = Arc::clone(&wakeup);
        let _task = events.spawn(move |handle| {
            let handle = handle.clone();
            async move {
                let mut reader = theirs.try_clone().unwrap();
                let mut watched = handle.watch(OwnedFd::from(theirs)).unwrap();
                loop {
                    let woken = async {
                        of_task.wait().await;
                        false
                    };
                    let readable = async {
                        watched.readable().await;
                        true
                    };
                    let mut byte = [0];
                    if !first(woken, readable).await {
                        report.send(None).unwrap();
                    } else if reader.read(&mut byte).is_ok_and(|count| count == 1) {
                        report.send(Some(byte[0])).unwrap();
                        watched.writable().await;
                    }
                }
            }
        });
        for byte in 0..20 {
            for _ in 0..3 {
                wakeup.wake();
                assert_eq!(seen.recv_timeout(LIMIT), Ok(None));
            }
            ours.write_all(&[byte]).unwrap();
            assert_eq!(seen.recv_timeout(LIMIT), Ok(Some(byte)));
        }
        assert!(seen.try_recv().is_err(), "nothing else was reported");
    }
}
