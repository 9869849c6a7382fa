//! The links of a device, one per peer device, and what was said of them in the log.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::hello::HelloAnswer;
use super::link::Link;
use crate::events::Waiter;
use crate::sync::{Mutex, lock};

/// Peers remembered for the log; with more of them, some are told of twice.
const MAX_ANNOUNCED: usize = 4096;

/// Links in use, shared by the queue pairs to the same peer.
#[derive(Debug, Default)]
pub(super) struct Links {
    links: Mutex<Vec<Weak<Link>>>,
    announced: Mutex<HashSet<(SocketAddr, String)>>,
}

impl Links {
    /// The link to the device that gave `answer`, established if there is none yet. No lock is held meanwhile: two
    /// queue pairs that connect at once may get a link each, which is as good.
    pub(super) async fn get(
        &self,
        listener: SocketAddr,
        answer: &HelloAnswer,
        deadline: Instant,
        waiter: &Waiter,
    ) -> Result<Arc<Link>, String> {
        let known =
            lock(&self.links).iter().filter_map(Weak::upgrade).find(|link| link.leads_to(listener, answer));
        if let Some(link) = known {
            return Ok(link);
        }
        let link = Arc::new(Link::establish(listener, answer, deadline, waiter).await?);
        link.begin_sweeps();
        let mut links = lock(&self.links);
        links.retain(|link| link.strong_count() > 0);
        links.push(Arc::downgrade(&link));
        Ok(link)
    }

    /// True the first time that `text` is to be said of this peer.
    pub(super) fn is_new(&self, listener: SocketAddr, text: &str) -> bool {
        let mut announced = lock(&self.announced);
        if announced.len() >= MAX_ANNOUNCED {
            announced.clear();
        }
        announced.insert((listener, text.to_owned()))
    }
}
