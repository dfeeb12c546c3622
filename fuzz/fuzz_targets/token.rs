#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fp_core::fuzz::token(bytes));
