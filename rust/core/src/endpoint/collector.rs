//! The pages: made on a helper thread, one at a time.

use std::time::Instant;

use futures_channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures_channel::oneshot;
use futures_lite::StreamExt;

use super::answer::{HttpResponse, JSON, OPEN_METRICS};
use super::health;
use super::request::{HttpStatus, Page};
use crate::events::{EventLoopHandle, Task};
use crate::observe::{json, prometheus_text, registry};

/// Makes pages for the clients. One at a time: helper threads are few, and connections are made by them too.
pub(super) struct Collector {
    orders: UnboundedSender<Order>,
    _task: Task,
}

/// A page that a client waits for.
struct Order {
    page: Page,
    client: oneshot::Sender<HttpResponse>,
}

impl Collector {
    pub(super) fn start(handle: &EventLoopHandle, opened: Instant) -> Self {
        let (orders, received) = unbounded();
        let task = handle.spawn(collect(received, handle.clone(), opened));
        Self { orders, _task: task }
    }

    /// Waits for a page; `None` when the endpoint is closing.
    pub(super) async fn page(&self, page: Page) -> Option<HttpResponse> {
        let (client, answer) = oneshot::channel();
        self.orders.unbounded_send(Order { page, client }).ok()?;
        answer.await.ok()
    }
}

/// There are at most as many orders as clients.
async fn collect(mut orders: UnboundedReceiver<Order>, handle: EventLoopHandle, opened: Instant) {
    while let Some(Order { page, client }) = orders.next().await {
        if !client.is_canceled() {
            let _ = client.send(handle.blocking(move || make(page, opened)).await);
        }
    }
}

fn make(page: Page, opened: Instant) -> HttpResponse {
    let made = match page {
        Page::Health => return health::answer(&registry().snapshot()),
        Page::Metrics => prometheus_text(&registry().snapshot())
            .map(|body| (OPEN_METRICS, body))
            .map_err(|error| error.to_string()),
        Page::Snapshot => {
            json::page(opened.elapsed()).map(|body| (JSON, body)).map_err(|error| error.to_string())
        }
    };
    match made {
        Ok((content_type, body)) => HttpResponse { status: HttpStatus::Ok, content_type, body },
        Err(error) => HttpResponse::line(
            HttpStatus::InternalServerError,
            &format!("internal error: cannot write the page: {error}"),
        ),
    }
}
