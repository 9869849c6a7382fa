//! Notifications, as Python gets them.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flagcx_p2p::{Engine as CoreEngine, Notification as CoreNotification};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyList};

use crate::named::NamedTuple;
use crate::reactor::Waiters;

/// Becomes a `flagcx_p2p.Notification`.
#[derive(Debug)]
struct Notification {
    name: Vec<u8>,
    content: Vec<u8>,
}

impl Notification {
    /// Of what the engine has received: the name without the zeros that fill it up.
    fn of(received: &CoreNotification) -> Self {
        let name = received.name();
        let end = name.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        Self { name: name.get(..end).unwrap_or_default().to_vec(), content: received.content().to_vec() }
    }

    fn append_to(&self, list: &Bound<'_, PyList>) -> PyResult<()> {
        static CLASS: NamedTuple = NamedTuple::new("Notification");
        let py = list.py();
        list.append(CLASS.of(py, (PyBytes::new(py, &self.name), PyBytes::new(py, &self.content)))?)
    }
}

/// What is between an engine's notifications and their readers in Python.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Event loops that wait for the next arrival.
    pub(crate) waiters: Waiters,
    /// Those that an exception has kept from their reader. Locked with the interpreter's lock held, and for moments.
    returned: Mutex<VecDeque<Notification>>,
}

impl Arrivals {
    /// Those of an engine that was opened just now.
    pub(crate) fn of(core: &CoreEngine) -> Arc<Self> {
        let arrivals = Arc::new(Self::default());
        let told = Arc::clone(&arrivals);
        // Without a listener of its own the engine receives none, and no loop is told.
        core.on_notification(move || told.waiters.tell());
        arrivals
    }

    /// Appends all, or the oldest. What an exception of Python keeps from the list is there the next time.
    pub(crate) fn receive(&self, core: &CoreEngine, into: &Bound<'_, PyList>, all: bool) -> PyResult<()> {
        let mut taken: VecDeque<_> = {
            let mut returned = self.returned();
            let count = if all { returned.len() } else { returned.len().min(1) };
            returned.drain(..count).collect()
        };
        if all {
            taken.extend(core.take_all_notifications().iter().map(Notification::of));
        } else if taken.is_empty() {
            taken.extend(core.take_first_notification().as_ref().map(Notification::of));
        }
        while let Some(first) = taken.front() {
            if let Err(error) = first.append_to(into) {
                self.put_back(taken);
                return Err(error);
            }
            taken.pop_front();
        }
        Ok(())
    }

    /// Has them come first again, and wakes the readers that wait for one.
    pub(crate) fn give_back(&self, notifications: Vec<(Vec<u8>, Vec<u8>)>) {
        self.put_back(
            notifications.into_iter().map(|(name, content)| Notification { name, content }).collect(),
        );
        self.waiters.tell();
    }

    fn put_back(&self, mut notifications: VecDeque<Notification>) {
        let mut returned = self.returned();
        notifications.append(&mut returned);
        *returned = notifications;
    }

    fn returned(&self) -> MutexGuard<'_, VecDeque<Notification>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The iterator over the notifications of an engine.
pub(crate) fn iterator<'py>(engine: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static CLASS: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    CLASS.import(engine.py(), "flagcx_p2p._asyncio", "Notified")?.call1((engine,))
}
