//! The notification socket of a connection, made anew: as part of the task of the connection.

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::connection::Connection;
use crate::control::{NotifyRoute, Source, Stream};
use crate::events::{EventLoopHandle, Task, Waiter, Wakeup, with_upgraded};
use crate::sync::{Mutex, lock};

/// How long a try may take at each address.
const TRY: Duration = Duration::from_secs(1);
/// Between tries, at first and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often the socket is looked at while messages are kept.
const LOOK: Duration = Duration::from_millis(250);

#[derive(Debug)]
pub(super) struct Relinking {
    route: Arc<NotifyRoute>,
    /// For how long the connection may be without one.
    limit: Duration,
    /// Since when it is.
    since: Option<Instant>,
    under_way: Option<UnderWay>,
    pause: Duration,
    /// When something is to be done; `None` if that is woken.
    at: Option<Instant>,
    /// The socket is to be made anew, whatever it says itself.
    anew: bool,
}

/// The other end of the channel, and its socket here, unless that is away.
type PeerEnd = (SocketAddr, Option<Arc<Stream>>);

/// A try. Its task ends with it.
#[derive(Debug)]
struct UnderWay {
    end: Arc<Mutex<Option<io::Result<()>>>>,
    /// It has a socket, and a helper thread goes on over that.
    is_connected: Rc<Cell<bool>>,
    _task: Task,
}

impl Relinking {
    pub(super) fn new(route: NotifyRoute, limit: Duration) -> Self {
        let (route, pause) = (Arc::new(route), FIRST_PAUSE);
        Self { route, limit, since: None, under_way: None, pause, at: None, anew: false }
    }

    /// The channel has been made anew, and the path of the socket may have failed. What is dialled is left: it may be the peer's former addresses, over
    /// dead routes, for longer than the limit. That counts from now on, as the way is known only now.
    pub(super) fn begin_anew(&mut self) {
        (self.anew, self.pause, self.at, self.since) = (true, FIRST_PAUSE, None, None);
        self.under_way = self.under_way.take().filter(|under_way| under_way.is_connected.get());
    }

    /// When to call [`Relinking::tend`] at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at.filter(|_| self.under_way.is_none())
    }

    /// Takes the end of a try, and begins the next one if it is needed and due.
    pub(super) fn tend(
        &mut self,
        connection: &Weak<Connection>,
        (hosts, peer): (Vec<IpAddr>, PeerEnd),
        wakeup: &Arc<Wakeup>,
        handle: &EventLoopHandle,
    ) {
        let now = Instant::now();
        if let Some(under_way) = &self.under_way {
            let Some(end) = lock(&under_way.end).take() else { return };
            self.under_way = None;
            match end {
                Ok(()) => (self.pause, self.at) = (FIRST_PAUSE, Some(now + LOOK)),
                Err(error) => {
                    tracing::debug!("the notification socket is not made anew: {error}");
                    self.at = Some(now + self.pause);
                    self.pause = (2 * self.pause).min(LONGEST_PAUSE);
                }
            }
        }
        if self.at.is_some_and(|at| now < at) {
            return;
        }
        let anew = std::mem::take(&mut self.anew);
        let seen =
            with_upgraded(handle, connection, move |connection| connection.look_at_notifications(anew));
        let (needs_socket, keeps_some) = seen.unwrap_or_default();
        if needs_socket {
            let limit = self.limit;
            if now.duration_since(*self.since.get_or_insert(now)) < limit {
                return self.begin(connection, (hosts, peer), wakeup, handle);
            }
            let connection = Weak::clone(connection);
            // Events may wait for a file.
            handle.detach(move || {
                if let Some(connection) = connection.upgrade() {
                    connection.give_up_notifications(limit);
                }
            });
            self.at = Some(now + LONGEST_PAUSE);
        } else {
            self.since = None;
            self.at = keeps_some.then(|| now + LOOK);
        }
    }

    fn begin(
        &mut self,
        connection: &Weak<Connection>,
        (hosts, peer): (Vec<IpAddr>, PeerEnd),
        wakeup: &Arc<Wakeup>,
        handle: &EventLoopHandle,
    ) {
        let end: Arc<Mutex<Option<_>>> = Arc::default();
        let is_connected = Rc::new(Cell::new(false));
        let connected = Rc::clone(&is_connected);
        let (result, wakeup, waiter) = (Arc::clone(&end), Arc::clone(wakeup), Waiter::on_loop(handle));
        let source = peer.1.as_deref().map(Source::of);
        let (route, connection, helpers) = (Arc::clone(&self.route), Weak::clone(connection), handle.clone());
        let task = handle.spawn(async move {
            // One behind the other: what the receiver has said of an older socket is not true any more after the next one.
            let ended = match route.connect(&hosts, (peer.0, source.as_ref()), TRY, &waiter).await {
                Ok((stream, count)) => {
                    connected.set(true);
                    // Messages are sent again, for which a thread may have to wait.
                    let relink = move || {
                        if let Some(connection) = connection.upgrade() {
                            connection.relink_notifications(stream, count);
                        }
                    };
                    helpers.blocking(relink).await;
                    Ok(())
                }
                Err(error) => Err(error),
            };
            *lock(&result) = Some(ended);
            wakeup.wake();
        });
        self.under_way = Some(UnderWay { end, is_connected, _task: task });
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::sync::mpsc;

    use super::*;
    use crate::events::EventLoop;

    #[test]
    fn a_new_channel_ends_what_is_dialled_and_not_what_is_connected() {
        let events = EventLoop::acquire().unwrap();
        let (sender, seen) = mpsc::channel();
        let _task = events.spawn(move |handle| {
            let handle = handle.clone();
            async move {
                let mut relinking = Relinking::new(NotifyRoute::default(), Duration::from_secs(5));
                for is_connected in [false, true] {
                    relinking.since = Some(Instant::now());
                    let peer = (SocketAddr::from((Ipv4Addr::LOCALHOST, 7)), None);
                    relinking.begin(&Weak::new(), (Vec::new(), peer), &Arc::default(), &handle);
                    let begun = relinking
                        .under_way
                        .as_ref()
                        .map(|under_way| under_way.is_connected.set(is_connected));
                    relinking.begin_anew();
                    let goes_on = relinking.under_way.is_some();
                    sender.send((begun.is_some(), goes_on, relinking.since)).unwrap();
                }
            }
        });
        let seen: Vec<_> = seen.iter().collect();
        assert_eq!(seen, [(true, false, None), (true, true, None)]);
    }
}
