//! See `dictdb::fuzzing::log_recover`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dictdb::fuzzing::log_recover(data);
});
