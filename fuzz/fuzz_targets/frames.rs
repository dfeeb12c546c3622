#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fp_sandbox::fuzz::frames(bytes));
