//! The end of a connection of which the channel is away: the leader dials once more, to tell the peer. The follower keeps a record, see
//! [`resume`](crate::control::resume).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Driver;
use super::redial::Dialling;
use crate::control::resume::{Due, ENDED, ResumeError, Try, find_ways, resume};
use crate::events::{EventLoopHandle, Waiter};
use crate::fork::PerProcess;

/// So many ends are told at a time in a process: peers may cut channels without end, and be connected to again.
const MOST: usize = 256;
/// So long is each dialled for at most. Later the peer learns of it by its own limit.
const LONGEST: Duration = Duration::from_secs(60);

/// Ends that are being told. Counted by the threads of event loops alone, and it guards nothing: Relaxed.
static TOLD: PerProcess<AtomicUsize> = PerProcess::new(|| AtomicUsize::new(0));

/// One of them.
#[derive(Debug)]
struct Place(&'static AtomicUsize);

impl Place {
    /// `None` if there are `MOST`.
    fn take(taken: &'static AtomicUsize) -> Option<Self> {
        let more = |count| (count < MOST).then_some(count + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok().map(|_| Self(taken))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Driver {
    /// The connection has ended here, or it is stopped because it ends. What is dialled for then is dialled beside its end, which does
    /// not wait for that: until the peer gives the connection up, but not for longer than `LONGEST`, and for `MOST` connections.
    fn drop(&mut self) {
        let Some(mut dialling) = self.take_dialling() else { return };
        let Some(place) = Place::take(TOLD.get()) else { return };
        dialling.redialing.end_by(Instant::now() + LONGEST);
        let handle = self.handle.clone();
        let telling = async move {
            tell_end(dialling, &handle).await;
            drop(place);
        };
        self.handle.spawn(telling).detach();
    }
}

async fn tell_end(mut dialling: Dialling, handle: &EventLoopHandle) {
    let waiter = Waiter::on_loop(handle);
    loop {
        let now = Instant::now();
        match dialling.redialing.due(now) {
            Some(Due::Ways) => {
                let (own, targets, former) =
                    (dialling.own.clone(), dialling.offer.targets(), dialling.former);
                let ways = handle.blocking(move || find_ways(&own, &targets, former)).await;
                dialling.redialing.found(ways, Instant::now());
            }
            Some(Due::Try(Try { way, deadline })) => {
                dialling.generation += 1;
                let name = (dialling.offer.name, dialling.generation);
                let secret = (dialling.key.as_ref(), &dialling.offer.token);
                match resume(&way, name, secret, ENDED, (deadline, None), &waiter).await {
                    // A peer that does not know what it was told has another socket now, and finds out by its end.
                    Ok(_) | Err(ResumeError::Ended) => return,
                    Err(error) => dialling.redialing.failed(&way, &error.to_string(), Instant::now()),
                }
            }
            None if dialling.redialing.is_over(now) => return,
            None => handle.sleep_until(Some(dialling.redialing.deadline())).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_come_back() {
        static TAKEN: AtomicUsize = AtomicUsize::new(0);
        let mut places: Vec<_> = (0..MOST).map_while(|_| Place::take(&TAKEN)).collect();
        assert_eq!(places.len(), MOST);
        assert!(Place::take(&TAKEN).is_none());
        places.pop();
        assert!(Place::take(&TAKEN).is_some_and(|_| Place::take(&TAKEN).is_none()));
        drop(places);
        assert_eq!(TAKEN.load(Ordering::Relaxed), 0);
    }
}
