//! A runtime made of C callbacks, shaped like the part of FlagCX's device adaptor that the engine uses.

mod dma_buf;
mod handle;
mod layout;
mod runtime;
mod stream;
#[cfg(test)]
mod tests;

pub use layout::GpuTable;
pub use runtime::TableRuntime;
