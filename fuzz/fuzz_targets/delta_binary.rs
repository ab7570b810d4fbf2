//! See `dictdb::fuzzing::delta_binary`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dictdb::fuzzing::delta_binary(data);
});
