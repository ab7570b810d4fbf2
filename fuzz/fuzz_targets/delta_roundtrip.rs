//! See `dictdb::fuzzing::delta_roundtrip`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dictdb::fuzzing::delta_roundtrip(data);
});
