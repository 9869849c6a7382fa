//! Ends the process, naming the step, when a step does not end.

use std::io::Write;
use std::sync::{Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// Every bound that the suite relies on is far below this, also on a machine that is busy with other things.
const LIMIT: Duration = Duration::from_secs(90);

static STEP: Mutex<Option<(&str, Instant)>> = Mutex::new(None);

/// A step begins, and the one before has ended.
pub fn step(name: &'static str) {
    static START: Once = Once::new();
    START.call_once(|| {
        std::thread::spawn(watch);
    });
    *STEP.lock().unwrap_or_else(PoisonError::into_inner) = Some((name, Instant::now()));
}

/// Nothing is to be watched.
pub fn idle() {
    *STEP.lock().unwrap_or_else(PoisonError::into_inner) = None;
}

fn watch() {
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let step = *STEP.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((name, since)) = step
            && since.elapsed() > LIMIT
        {
            let _ = writeln!(std::io::stderr(), "chaos: HANG: `{name}` has not ended within {LIMIT:?}");
            std::process::abort();
        }
    }
}
