//! The CUDA driver, found at run time: nothing links it, and a process without it is a process without GPU.

mod allocations;
mod context;
mod file_symbols;
mod files;
mod registration;
mod runtime;
mod stream;
mod symbols;
#[cfg(test)]
mod tests;

pub use runtime::CudaRuntime;
