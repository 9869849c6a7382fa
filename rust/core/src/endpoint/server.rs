//! The task that accepts clients, and bounds how many there are.

use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::client::{self, Limits};
use super::collector::Collector;
use super::listener::HttpListener;
use super::progress::{Phase, Progress};
use crate::admission::concerns_one_client;
use crate::events::{EventLoopHandle, Interest, Task, Waiter, Wakeup, first};

/// Clients with a place at a time. Further ones wait in the backlog.
const MAX_CLIENTS: usize = 16;
/// Clients at a time that have their answer, and have not closed.
const MAX_ENDING: usize = 16;
/// How long a client may be without a request, or not read its answer, while others wait.
const GRACE: Duration = Duration::from_millis(250);
/// Pause after an error of accepting, such as no free descriptor.
const PAUSE: Duration = Duration::from_millis(500);

struct Client {
    task: Task,
    progress: Rc<Progress>,
}

/// Serves clients until the task is stopped.
pub(super) async fn serve(listener: HttpListener, limits: Limits, handle: EventLoopHandle) {
    let collector = Rc::new(Collector::start(&handle, Instant::now()));
    let (waiter, changed) = (Waiter::on_loop(&handle), Arc::new(Wakeup::default()));
    let mut clients: Vec<Client> = Vec::new();
    loop {
        if waiter.ready(listener.as_fd(), Interest::Read, None).await.is_err() {
            handle.sleep(PAUSE).await;
            continue;
        }
        make_room(&mut clients, &handle, &changed).await;
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
        let progress = Rc::new(Progress::new(Arc::clone(&changed)));
        let (of_client, collector, of_task) = (Rc::clone(&progress), Rc::clone(&collector), handle.clone());
        let task = handle.spawn(async move {
            client::serve(stream, limits, of_task, &collector, &of_client).await;
            of_client.note(Phase::Ending);
        });
        clients.push(Client { task, progress });
        // A flood of clients does not keep the loop from its other tasks.
        handle.give_way().await;
    }
}

/// Waits until there is room for one more client. The one that has not gone on for longest makes room.
async fn make_room(clients: &mut Vec<Client>, handle: &EventLoopHandle, changed: &Wakeup) {
    loop {
        clients.retain(|client| !client.task.is_ended());
        let ending = clients.iter().filter(|client| client.progress.is_ending()).count();
        if ending >= MAX_ENDING
            && let Some((_, index)) = longest_idle(clients, true)
        {
            clients.remove(index);
            continue;
        }
        if clients.len() - ending < MAX_CLIENTS {
            return;
        }
        match longest_idle(clients, false) {
            Some((since, index)) if since + GRACE <= Instant::now() => drop(clients.remove(index)),
            idle => first(changed.wait(), handle.sleep_until(idle.map(|(since, _)| since + GRACE))).await,
        }
    }
}

/// The client that has not gone on for longest, since when, of those that have their answer or of the others.
fn longest_idle(clients: &[Client], is_ending: bool) -> Option<(Instant, usize)> {
    let of_phase = (0..).zip(clients).filter(|(_, client)| client.progress.is_ending() == is_ending);
    of_phase.filter_map(|(index, client)| Some((client.progress.idle_since()?, index))).min()
}
