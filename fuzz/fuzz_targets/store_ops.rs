//! See `dictdb::fuzzing::store_ops`.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    dictdb::fuzzing::store_ops(data);
});
