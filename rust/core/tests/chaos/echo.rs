//! Numbered notifications, which the other end sends back: each arrives once and in order, there and here.

use std::cell::Cell;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use flagcx_p2p::internals::connection::Connection;
use flagcx_p2p::internals::engine::Engine;
use flagcx_p2p::internals::notify::Notification;

use super::random::Random;
use crate::support::eventually;

/// Those of this end, over one connection after the other: those of the former one are back before the next one begins.
#[derive(Debug, Default)]
pub struct Numbers {
    sent: Cell<u64>,
    back: Cell<u64>,
    /// Connections that were used before.
    former: Cell<u64>,
}

impl Numbers {
    /// Sends the next one, with up to so many bytes behind its number.
    pub fn send(&self, connection: &Connection, most: u64, random: &mut Random) {
        let padding = vec![7; random.below(most) as usize];
        let numbers = [self.sent.get(), self.former.get()].map(u64::to_le_bytes).concat();
        connection.send_notification_bytes(b"number", &[numbers, padding].concat()).unwrap();
        self.sent.set(self.sent.get() + 1);
    }

    /// Goes on over another connection.
    pub fn go_on(&self) {
        self.former.set(self.former.get() + 1);
    }

    /// Takes what has come back; true once everything has.
    pub fn are_back(&self, engine: &Engine) -> bool {
        for one in engine.take_all_notifications() {
            assert_eq!(numbers(&one)[0], self.back.get(), "of {} that were sent", self.sent.get());
            self.back.set(self.back.get() + 1);
        }
        self.back == self.sent
    }
}

/// The other end's.
#[derive(Debug, Default)]
pub struct Echo {
    next: Cell<u64>,
}

impl Echo {
    /// Sends back what has arrived, over the connection of which the sender has used so many before.
    pub fn turn(&self, engine: &Engine, connection: impl Fn(u64) -> Arc<Connection>) {
        for one in engine.take_all_notifications() {
            let [number, former] = numbers(&one);
            assert_eq!(number, self.next.get(), "at the other end");
            self.next.set(number + 1);
            connection(former).send_notification_bytes(b"number", one.content()).unwrap();
        }
    }

    /// Accepts peers for an engine until it closes, and sends back what they send.
    pub fn keep(engine: &Arc<Engine>) {
        let accepted = Arc::new(Mutex::new((0, None::<Arc<Connection>>)));
        let (accepting, newest) = (Arc::clone(engine), Arc::clone(&accepted));
        std::thread::spawn(move || {
            while let Ok(one) = accepting.accept() {
                let mut newest = newest.lock().unwrap_or_else(PoisonError::into_inner);
                *newest = (newest.0 + 1, Some(one.connection));
            }
        });
        let engine = Arc::downgrade(engine);
        std::thread::spawn(move || {
            let echo = Self::default();
            // Notifications may be here before their connection is accepted.
            let connection = |former| {
                let mut found = None;
                eventually("the connection is accepted", || {
                    let newest = accepted.lock().unwrap_or_else(PoisonError::into_inner);
                    found = newest.1.clone().filter(|_| newest.0 > former);
                    found.is_some()
                });
                found.unwrap()
            };
            while let Some(engine) = engine.upgrade() {
                echo.turn(&engine, connection);
                drop(engine);
                std::thread::sleep(Duration::from_micros(300));
            }
        });
    }
}

/// Of a notification, and of connections before its own.
fn numbers(notification: &Notification) -> [u64; 2] {
    let number = |at: usize| u64::from_le_bytes(notification.content()[at..at + 8].try_into().unwrap());
    [number(0), number(8)]
}
