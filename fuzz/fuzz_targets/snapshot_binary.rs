//! See `dictdb::fuzzing::snapshot_binary`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dictdb::fuzzing::snapshot_binary(data);
});
