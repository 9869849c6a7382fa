//! Commands of one device that may take long, such as that to destroy a queue pair that its device does not flush: one after the other, so that a
//! device that answers late holds one thread, whatever it is asked.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use crate::sync::{Mutex, lock};

type Command = Box<dyn FnOnce() + Send>;

/// Those that wait, in their order.
#[derive(Default)]
pub(super) struct DeviceCommands(Mutex<State>);

#[derive(Default)]
struct State {
    waiting: VecDeque<Command>,
    /// A thread carries them out, or is asked to.
    is_served: bool,
}

/// The right to carry them out, of one thread at a time. Without it those that wait are dropped, as at the end of the event loop.
pub(super) struct Turn {
    commands: Arc<DeviceCommands>,
    is_over: bool,
}

impl DeviceCommands {
    /// Adds one. Answers the turn if no thread has it: the caller hands it to one.
    pub(super) fn push(self: &Arc<Self>, command: impl FnOnce() + Send + 'static) -> Option<Turn> {
        let mut state = lock(&self.0);
        state.waiting.push_back(Box::new(command));
        let is_served = std::mem::replace(&mut state.is_served, true);
        (!is_served).then(|| Turn { commands: Arc::clone(self), is_over: false })
    }

    /// The next one; if there is none, the turn is over.
    fn next(&self) -> Option<Command> {
        let mut state = lock(&self.0);
        let next = state.waiting.pop_front();
        state.is_served = next.is_some();
        next
    }
}

impl Turn {
    /// Carries out all that wait.
    pub(super) fn serve(mut self) {
        while let Some(command) = self.commands.next() {
            command();
        }
        self.is_over = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut state = lock(&self.commands.0);
        state.is_served = false;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        drop(waiting);
    }
}

impl fmt::Debug for DeviceCommands {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceCommands").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(flagcx_p2p_loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_device_that_answers_late_holds_one_thread() {
        let commands = Arc::<DeviceCommands>::default();
        let (answer, answered) = mpsc::channel();
        let (report, done) = mpsc::channel();
        let turn = commands.push(move || answered.recv().unwrap());
        let thread = std::thread::spawn(|| turn.unwrap().serve());
        for number in 0..8 {
            let report = report.clone();
            assert!(commands.push(move || report.send(number).unwrap()).is_none(), "one thread is enough");
        }
        assert!(done.try_recv().is_err());
        answer.send(()).unwrap();
        thread.join().unwrap();
        assert!(done.try_iter().eq(0..8), "in their order");
        commands.push(move || report.send(8).unwrap()).unwrap().serve();
        assert_eq!(done.recv(), Ok(8), "the next turn");
    }

    #[test]
    fn commands_without_a_thread_are_dropped_and_the_next_ones_are_not() {
        let commands = Arc::<DeviceCommands>::default();
        let (report, done) = mpsc::channel();
        let late = report.clone();
        drop(commands.push(move || late.send(0).unwrap()));
        commands.push(move || report.send(1).unwrap()).unwrap().serve();
        assert!(done.iter().eq([1]));
    }
}
