#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| flagcx_p2p_cli::fuzzing::bench_frame(data));
