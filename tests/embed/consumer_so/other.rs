//! Another Rust library in the same plugin: it brings its own copy of the standard library.

#[unsafe(no_mangle)]
pub extern "C" fn other_rust_library(value: u32) -> u32 {
    std::thread::spawn(move || value + 22).join().unwrap_or(0)
}
