//! How fast the device of an engine registers host memory: of a NIC mostly the time to pin the pages.

use std::time::{Duration, Instant};

use super::{Engine, EngineError};
use crate::fabric::Access;
use crate::memory::MemoryKind;

/// Registrations of which the quickest counts: the first one may be slowed down by what is made once.
const ROUNDS: usize = 3;

impl Engine {
    /// The time that the engine's device takes to register `length` bytes of host memory, of which every page is in place. The memory is
    /// given back before this returns.
    ///
    /// # Errors
    /// Those of [`Engine::register`]; [`EngineError::Memory`] if there is not so much memory.
    #[doc(hidden)]
    pub fn registration_time(&self, length: usize) -> Result<Duration, EngineError> {
        self.require_open("measure a registration")?;
        let error = |problem: &str| EngineError::Memory {
            address: 0,
            length: length as u64,
            problem: problem.to_owned(),
        };
        let mut memory = Vec::<u8>::new();
        memory.try_reserve_exact(length).map_err(|_| error("there is not so much memory to measure with"))?;
        memory.resize(length, 1);
        let range = (memory.as_ptr().expose_provenance() as u64, length as u64);
        let registry = &self.context()?.registry;
        let mut best = Duration::MAX;
        for _ in 0..ROUNDS {
            let since = Instant::now();
            let region = registry.register(range, MemoryKind::Host, Access::FULL, false, None, None)?;
            best = best.min(since.elapsed());
            if !self.deregister(region) {
                // The device may still have it.
                std::mem::forget(memory);
                return Err(error("its registration did not end"));
            }
        }
        Ok(best)
    }
}
