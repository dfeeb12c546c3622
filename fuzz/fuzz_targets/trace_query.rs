#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fp_server::fuzz::trace_query(bytes));
