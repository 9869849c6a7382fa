//! What the library logs in a test's process.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, OnceLock};

/// Lines of the log at WARN and above, of all tests of the process: they are distinguished by regions and peers.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// The log of the process, which begins with the first call.
    pub(crate) fn of_process() -> &'static Self {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Self::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .with_max_level(tracing::Level::WARN)
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .init();
            log
        })
    }

    /// Those in which each of `parts` stands.
    pub(crate) fn lines(&self, parts: &[&str]) -> Vec<String> {
        let all = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        let wanted = |line: &&str| parts.iter().all(|part| line.contains(part));
        all.lines().filter(wanted).map(str::to_owned).collect()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
