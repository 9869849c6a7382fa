//! The descriptor that a worker sleeps on: a completion queue's signal and alarm, and the sockets of its queue pairs.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// The token of signal and alarm; queue pair numbers are never 0.
const SIGNAL_TOKEN: u64 = 0;
/// Sockets with news that one look reports; the others are reported by the next.
const EVENTS: usize = 64;

/// What epoll says of a socket that its peer has closed or reset.
const ENDED: epoll::EventFlags =
    epoll::EventFlags::RDHUP.union(epoll::EventFlags::HUP).union(epoll::EventFlags::ERR);

/// What is known of a socket that its queue pair has not looked at, the weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum News {
    None = 0,
    /// An answer may have come: nothing has said so, but one is awaited.
    Awaited = 1,
    /// It has become readable or writable.
    Ready = 2,
    /// The same, and nothing comes behind what lies in it.
    End = 3,
}

/// An epoll instance. Any thread may add and remove sockets; one at a time looks.
#[derive(Debug)]
pub(super) struct SocketWatch {
    epoll: OwnedFd,
    /// Sockets in it. Changed by the threads that connect or close one, read by those that look, which leave the
    /// epoll alone when there are none; Relaxed, for a socket without a request on it has nothing to say.
    carrying: AtomicUsize,
}

impl SocketWatch {
    /// Watches `signals`, which wake and say nothing else.
    pub(super) fn new(signals: &[BorrowedFd<'_>]) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        for signal in signals {
            epoll::add(&epoll, signal, epoll::EventData::new_u64(SIGNAL_TOKEN), epoll::EventFlags::IN)?;
        }
        Ok(Self { epoll, carrying: AtomicUsize::new(0) })
    }

    /// Lets the descriptor tell when `socket` of queue pair `qpn` can be read or written.
    pub(super) fn add(&self, qpn: u32, socket: BorrowedFd<'_>) -> io::Result<()> {
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP;
        let data = epoll::EventData::new_u64(u64::from(qpn));
        epoll::add(&self.epoll, socket, data, flags | epoll::EventFlags::ET)?;
        self.carrying.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Forgets a socket that is about to be closed.
    pub(super) fn remove(&self, socket: BorrowedFd<'_>) {
        if epoll::delete(&self.epoll, socket).is_ok() {
            self.carrying.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How many sockets there are.
    pub(super) fn carrying(&self) -> usize {
        self.carrying.load(Ordering::Relaxed)
    }

    /// Calls `news` with the queue pair of each socket that has become readable or writable, and whether the peer sends no
    /// more on it. Waits for none.
    pub(super) fn look(&self, mut news: impl FnMut(u32, News)) -> Result<(), Errno> {
        let mut room = [const { MaybeUninit::<epoll::Event>::uninit() }; EVENTS];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        match epoll::wait(&self.epoll, &mut room, Some(&now)) {
            Ok((events, _)) => events.iter().for_each(|event| {
                let has_ended = { event.flags }.intersects(ENDED);
                news(event.data.u64() as u32, if has_ended { News::End } else { News::Ready });
            }),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(())
    }
}

impl AsFd for SocketWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}
