//! The CUDA driver, found at run time: nothing links it, and a process without it is a process without GPU.

mod registration;
mod runtime;
mod stream;
mod symbols;
#[cfg(test)]
mod tests;

pub use runtime::CudaRuntime;
