//! Checks of one group, in a process of their own: a line for each.

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::Instant;

/// In the environment of a process that runs one group: its name.
pub const ROLE: &str = "GPU_SUITE_GROUP";

/// What the last panic of any thread said.
static SAID: Mutex<String> = Mutex::new(String::new());

#[derive(Debug)]
pub struct Group {
    name: &'static str,
    failed: bool,
}

impl Group {
    pub fn new(name: &'static str) -> Self {
        std::panic::set_hook(Box::new(|panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("no text");
            let place = panic.location().map_or_else(String::new, |place| format!(" ({place})"));
            let mut said = SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            // The first one: those that follow in other threads mostly come from it.
            if said.is_empty() {
                *said = format!("{text}{place}");
            }
        }));
        Self { name, failed: false }
    }

    /// Runs one check; what it answers stands behind its name.
    pub fn check(&mut self, name: &str, body: impl FnOnce() -> String) {
        SAID.lock().unwrap().clear();
        let start = Instant::now();
        let ended = catch_unwind(AssertUnwindSafe(body));
        let took = start.elapsed().as_secs_f64() * 1e3;
        let (verdict, detail) = match ended {
            Ok(detail) => ("ok", detail),
            Err(_) => ("FAILED", SAID.lock().unwrap().replace('\n', "; ")),
        };
        self.failed |= verdict != "ok";
        println!("{verdict:<7} {}: {name} [{took:.1} ms] {detail}", self.name);
        let _ = std::io::stdout().flush();
    }

    /// Something to know that is no check.
    pub fn note(&self, text: &str) {
        println!("note    {}: {text}", self.name);
    }

    /// The exit status.
    pub fn end(self) -> i32 {
        i32::from(self.failed)
    }
}
