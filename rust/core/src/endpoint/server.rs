//! The task that accepts clients, and bounds how many there are.

use std::cell::Cell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{self, Limits};
use super::collector::Collector;
use super::listener::Listener;
use crate::admission::concerns_one_client;
use crate::events::{Handle, Interest, Task, Waiter, Wakeup, first};

/// Clients at a time. Further ones wait in the backlog.
const MAX_CLIENTS: usize = 16;
/// How long a client may be without a request while others wait.
const GRACE: Duration = Duration::from_millis(250);
/// Pause after an error of accepting, such as no free descriptor.
const PAUSE: Duration = Duration::from_millis(500);

struct Client {
    task: Task,
    since: Instant,
    is_reading: Rc<Cell<bool>>,
}

/// Serves clients until the task is stopped.
pub(super) async fn serve(listener: Listener, limits: Limits, handle: Handle) {
    let collector = Rc::new(Collector::start(&handle, Instant::now()));
    let (waiter, ended) = (Waiter::on_loop(&handle), Arc::new(Wakeup::default()));
    let mut clients: Vec<Client> = Vec::new();
    loop {
        if waiter.ready(listener.as_fd(), Interest::Read, None).await.is_err() {
            handle.sleep(PAUSE).await;
            continue;
        }
        make_room(&mut clients, &handle, &ended).await;
        let stream = match listener.accept() {
            Ok(Some(stream)) => stream,
            Ok(None) => continue,
            Err(error) if concerns_one_client(&error) => continue,
            Err(error) => {
                tracing::debug!("the metrics endpoint cannot accept: {error}");
                handle.sleep(PAUSE).await;
                continue;
            }
        };
        let is_reading = Rc::new(Cell::new(true));
        let (reading, collector, of_client, ended) =
            (Rc::clone(&is_reading), Rc::clone(&collector), handle.clone(), Arc::clone(&ended));
        let task = handle.spawn(async move {
            client::serve(stream, limits, of_client, &collector, &reading).await;
            reading.set(false);
            ended.wake();
        });
        clients.push(Client { task, since: Instant::now(), is_reading });
        // A flood of clients does not keep the loop from its other tasks.
        handle.give_way().await;
    }
}

/// Waits until there is room for one more client. The one that has been without a request for longest makes room.
async fn make_room(clients: &mut Vec<Client>, handle: &Handle, ended: &Wakeup) {
    loop {
        clients.retain(|client| !client.task.is_ended());
        if clients.len() < MAX_CLIENTS {
            return;
        }
        // They are in the order in which they came.
        let idle = clients.iter().position(|client| client.is_reading.get());
        let until = idle.and_then(|index| clients.get(index)).map(|client| client.since + GRACE);
        match (idle, until) {
            (Some(index), Some(until)) if until <= Instant::now() => drop(clients.remove(index)),
            _ => first(ended.wait(), handle.sleep_until(until)).await,
        }
    }
}
