//! Hands log lines to a C function, for a FlagCX that prints them by its own rules.

use std::ffi::{CString, c_char};
use std::io::{self, Write};
use std::mem;

use flagcx_p2p::internals::config::subsystem_of;
use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Takes one line: FlagCX's level and subsystem bits ([`flagcx_flags`]), the source line, and the NUL-terminated text.
pub(crate) type Function = extern "C" fn(level: i32, flags: u64, line: i32, text: *const c_char);

/// A function that takes log lines.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sink(Function);

/// One line on its way.
#[derive(Debug)]
pub(super) struct Line {
    function: Function,
    level: i32,
    flags: u64,
    line: i32,
}

impl Sink {
    /// `None` for address 0.
    ///
    /// # Safety
    /// Any other address is that of a C function of type [`Function`] that may be called from any thread, for ever.
    pub(super) unsafe fn from_address(address: usize) -> Option<Self> {
        // SAFETY: the caller's promise; an `Option` of a function pointer has the size of one, with null for `None`.
        unsafe { mem::transmute::<usize, Option<Function>>(address) }.map(Self)
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        let level = Level::INFO;
        Line { function: self.0, level: flagcx_level(level), flags: flagcx_flags(level, ""), line: 0 }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line {
        Line {
            function: self.0,
            level: flagcx_level(*metadata.level()),
            flags: flagcx_flags(*metadata.level(), metadata.target()),
            line: metadata.line().and_then(|line| i32::try_from(line).ok()).unwrap_or(0),
        }
    }
}

impl Write for Line {
    /// Takes a whole line at once, as the formatting layer writes it.
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let line = text.trim_ascii_end().to_vec();
        // A NUL within the text ends the line early.
        let line = CString::new(line).unwrap_or_else(|error| {
            let end = error.nul_position();
            let mut line = error.into_vec();
            line.truncate(end);
            CString::new(line).unwrap_or_default()
        });
        (self.function)(self.level, self.flags, self.line, line.as_ptr());
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// FlagCX's number of a level.
fn flagcx_level(level: Level) -> i32 {
    match level {
        Level::ERROR | Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG | Level::TRACE => 5,
    }
}

/// The subsystem bits that a line of a module is handed over with. FlagCX leaves out a line of any level, warnings too,
/// that has no bit in common with `FLAGCX_DEBUG_SUBSYS` (by default INIT and ENV), so its own warnings have all bits.
fn flagcx_flags(level: Level, target: &str) -> u64 {
    if level <= Level::WARN { ALL_SUBSYSTEMS } else { subsystem_of(target) }
}

/// `FLAGCX_ALL`.
const ALL_SUBSYSTEMS: u64 = !0;

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::CStr;
    use std::sync::Mutex;

    static LINES: Mutex<Vec<(i32, u64, String)>> = Mutex::new(Vec::new());

    extern "C" fn keep(level: i32, flags: u64, _line: i32, text: *const c_char) {
        // SAFETY: the sink passes a NUL-terminated string.
        let text = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
        LINES.lock().unwrap().push((level, flags, text));
    }

    #[test]
    fn lines_arrive_with_level_and_subsystem_and_what_warns_with_all_of_them() {
        // SAFETY: `keep` is such a function.
        let sink = unsafe { Sink::from_address(keep as Function as usize) }.unwrap();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_level(false)
            .with_target(false)
            .with_ansi(false)
            .with_writer(sink)
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(target: "flagcx_p2p::pool", "a queue is gone");
            tracing::warn!(target: "flagcx_p2p::memory", "region {}", 7);
            tracing::info!(target: "flagcx_p2p::config", "one\0two");
            tracing::info!(target: "flagcx_p2p::memory", "region 8");
            tracing::info!(target: "flagcx_p2p::gpu::driver", "found");
        });
        let lines = LINES.lock().unwrap();
        let expected = [
            (2, !0, "a queue is gone"),
            (2, !0, "region 7"),
            (3, 128, "one"),
            (3, 8192, "region 8"),
            (3, 1, "found"),
        ];
        assert_eq!(*lines, expected.map(|(level, flags, text)| (level, flags, text.to_owned())));
    }

    #[test]
    fn address_zero_is_no_sink() {
        // SAFETY: 0 is allowed.
        assert!(unsafe { Sink::from_address(0) }.is_none());
    }
}
