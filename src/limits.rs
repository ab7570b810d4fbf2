//! The bounds that every reader and writer keeps. SPEC.md repeats them under "Limits".

/// Containers inside one another in a record; the record itself is the first.
///
/// Bounds the recursion of every encoder and decoder. With the five levels that a JSON backup wraps around a
/// record it stays below the 128 that `serde_json` allows.
pub(crate) const DEPTH_MAX: usize = 100;

/// Bytes of one encoded record.
pub(crate) const ROW_BYTES_MAX: usize = 256 << 20;

/// Bytes of one frame's payload, which bounds what one commit may hold.
pub(crate) const FRAME_PAYLOAD_BYTES_MAX: usize = 1 << 30;

/// Bytes of a table's, primary key's or field's name, and of a string key.
pub(crate) const NAME_BYTES_MAX: usize = 64 << 10;

/// Tables of one database: each takes some hundreds of bytes of memory, and nine of a file.
pub(crate) const TABLES_MAX: usize = 64 << 10;

/// A snapshot's block of rows is closed once its payload reaches this many bytes.
pub(crate) const BLOCK_BYTES: usize = 256 << 10;

/// Bytes that a compressed block of rows decompresses to; a larger one is not compressed.
pub(crate) const COMPRESSED_BLOCK_BYTES_MAX: usize = 16 << 20;

/// The ring's bytes where nobody says otherwise: this part of the bytes of the records, within these bounds. A delta of more
/// would be little cheaper than a full backup.
pub(crate) const RING_PART_OF_RECORDS: u64 = 10;
/// The same of a store, whose log reaches further back.
pub(crate) const RING_PART_OF_RECORDS_IN_STORE: u64 = 32;
pub(crate) const RING_BYTES_MIN: usize = 4 << 20;
pub(crate) const RING_BYTES_MAX: usize = 64 << 20;

/// A log segment's bytes where nobody says otherwise.
pub(crate) const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// What a log segment is made with and grows by where nobody says otherwise.
pub(crate) const PREALLOCATE_BYTES_DEFAULT: u64 = 1 << 20;

/// Bytes of the log that gather at most before they are written, where no sync is wanted: few enough that they are still in
/// the processor's caches, and that whoever has to wait for a core meanwhile does not wait long.
pub(crate) const WRITTEN_BYTES: usize = 512 << 10;

/// Bytes of the log that are written without a sync, about: what is behind a sync proves that what was before it had been
/// durable, so that rot there is told from a torn tail.
pub(crate) const UNSYNCED_BYTES: u64 = 8 << 20;

/// Bytes of the log that gather at most before they are synced, where nothing calls for that earlier.
pub(crate) const GATHERED_BYTES_MAX: usize = 2 << 20;

/// Writers wait once this many bytes of the log have not been written.
pub(crate) const PENDING_BYTES_MAX: usize = 8 << 20;
