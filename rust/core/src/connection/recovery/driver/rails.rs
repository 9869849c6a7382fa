//! Requests about rails, and their opening, as part of the task of a connection.

use std::sync::{Arc, Weak};

use super::super::requests::RailRequest;
use super::{CommandResult, Driver};
use crate::control::RailRefusal;
use crate::events::with_upgraded;

impl Driver {
    /// Passes what the connection has asked for to the machine.
    pub(super) async fn pass_rail_requests(&mut self) {
        for request in self.rail_requests.take() {
            let now = self.now();
            match request {
                RailRequest::Add { rail, own, peer, lanes } => {
                    self.machine.try_rail(rail, (own, peer), lanes, now)
                }
                RailRequest::Decline { own, peer, why } => self.machine.refuse_request(own, peer, why),
                RailRequest::Request { own, peer } => self.machine.request_rail(own, peer),
            }
            self.act().await;
        }
    }

    /// Both ends have the rail: the regions of its NIC are announced, and those of the peer's are taken.
    pub(super) fn announce_rail(&mut self, rail: u8) {
        let (wakeup, connection) = (Arc::clone(&self.wakeup), Weak::clone(&self.connection));
        let Some(exchange) = &mut self.exchange else { return };
        let found = with_upgraded(&self.handle, &connection, |connection| {
            connection.regions_of_rail(rail.into(), wakeup)
        });
        if let Some(Some((local, remote))) = found {
            exchange.add_rail(rail, local, remote);
        }
    }

    /// Opens this end of a rail on a thread for long calls. Its NIC may have to be opened, which takes long, so nothing waits for it.
    pub(super) fn open_rail(&self, rail: usize, nics: (u16, u16), lanes: usize) {
        let (connection, report) = (Weak::clone(&self.connection), self.report());
        let handle = self.handle.clone();
        self.rebuilds.add_command(self.handle.spawn(async move {
            let open = move || {
                let connection = connection.upgrade();
                connection
                    .map_or(Err(RailRefusal::Unusable), |connection| connection.open_rail(rail, nics, lanes))
            };
            let result = handle.blocking_long(open).await;
            report(CommandResult::RailOpened { rail, result });
        }));
    }
}
