//! See `dictdb::fuzzing::frame`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dictdb::fuzzing::frame(data);
});
