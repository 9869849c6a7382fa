//! The end of a connection of which the channel is away: the leader dials once more, to tell the peer. The follower keeps a record, see
//! [`resume`](crate::control::resume).

use std::time::Instant;

use super::Driver;
use super::redial::Dialling;
use crate::control::resume::{Due, ENDED, ResumeError, Try, find_ways, resume};
use crate::events::{EventLoopHandle, Waiter};

impl Drop for Driver {
    /// The connection has ended here, or it is stopped because it ends. What is dialled for then is dialled beside its end, which does
    /// not wait for that, and until the peer gives the connection up at the latest.
    fn drop(&mut self) {
        if let Some(dialling) = self.take_dialling() {
            let handle = self.handle.clone();
            self.handle.spawn(async move { tell_end(dialling, &handle).await }).detach();
        }
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
