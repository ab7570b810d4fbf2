//! Blocks of a snapshot's rows: written with the names of their fields once a block, decoded by all cores.
//!
//! ```text
//! block  = shapes, rows
//! shapes = count, then the names of each as they stand at the front of a row; in the order of their first use
//! rows   = count (at least 1), then each: shape (index, where there is more than one), values
//! ```
//!
//! Values say where they end: the check of a row finds where the next one begins.
//!
//! Each block is decoded on its own, into leaves as its table's tree has them; in the order of the file these are put behind
//! one another, and the first mistake in that order is the one told. A compressed block is decompressed by whoever decodes
//! it: most often its shapes are those that the table has by then. One with others is decoded where it is put behind the
//! ones before it.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::error::{Error, Result};
use crate::file::compression;
use crate::frame::FrameKind;
use crate::limits::ROW_BYTES_MAX;
use crate::memory::Growth;
use crate::row::{self, Parts, RowRef};
use crate::state::{Mismatch, Run, RunWriter, TableState};
use crate::value::Key;
use crate::wire::{self, Malformed, Reader};

/// A block as it stands in the file, and what it takes to check its rows.
pub(crate) struct Block {
    payload: Vec<u8>,
    is_compressed: bool,
    /// Of a compressed block: what it decompresses to, or why it does not.
    decompressed: Option<Result<Vec<u8>, Refused>>,
    payload_at: u64,
    /// Where the file's reader is behind it.
    end: u64,
    /// Without rows.
    table: TableState,
    /// The numbers that its shapes have in the table, once they were looked up.
    numbers: Option<Vec<Option<usize>>>,
}

/// Why a block is none, and where in its payload.
type Refused = (usize, String);

/// What was made of a block.
pub(crate) struct Decoded {
    block: Block,
    /// The rows, and where the first one begins in the payload. `None` where the table does not have its shapes yet.
    rows: Option<Result<(Run, usize), Refused>>,
}

impl Block {
    /// One of this table, of one of the kinds of rows frames, at `payload_at` in a file whose reader is at `end` behind it.
    pub(crate) fn new(table: &mut TableState, kind: FrameKind, payload: Vec<u8>, payload_at: u64, end: u64) -> Block {
        let is_compressed = kind == FrameKind::CompressedRows;
        let mut block = Block {
            payload,
            is_compressed,
            decompressed: None,
            payload_at,
            end,
            table: table.without_rows(),
            numbers: None,
        };
        // The first block of a table has the shapes of most others.
        if !is_compressed || table.shapes().get(0).is_none() {
            block.decompress();
            block.take_up_shapes(table);
        }
        block
    }

    /// Bytes that it takes to decode it.
    pub(crate) fn bytes(&self) -> usize {
        if self.is_compressed { compression::claimed(&self.payload) } else { self.payload.len() }
    }

    fn decompress(&mut self) {
        if self.is_compressed && self.decompressed.is_none() {
            let decompressed = compression::decompressed(&self.payload);
            self.decompressed = Some(decompressed.map_err(|m| (m.at, m.expected.to_owned())));
        }
    }

    /// Gives its shapes numbers in its table.
    fn take_up_shapes(&mut self, table: &mut TableState) {
        let (mut numbers, mut are_known) = (Vec::new(), true);
        // Where that is malformed, decoding the block says so.
        let _ = for_each_shape(&mut Reader::new(self.rows().unwrap_or_default()), |names, _| {
            are_known &= self.table.shapes().find(names).is_some();
            numbers.push(table.shape_number(names));
            Ok(())
        });
        self.numbers = Some(numbers);
        if !are_known {
            self.table = table.without_rows();
        }
    }

    /// Finds the numbers that its shapes have; `false` where one would have to be taken up first.
    fn find_shapes(&mut self) -> bool {
        let (mut numbers, mut are_known) = (Vec::new(), true);
        let _ = for_each_shape(&mut Reader::new(self.rows().unwrap_or_default()), |names, _| {
            let number = self.table.shapes().find(names);
            are_known &= number.is_some() || !self.table.shapes().has_room(names);
            numbers.push(number);
            Ok(())
        });
        self.numbers = are_known.then_some(numbers);
        are_known
    }

    /// Names and rows.
    fn rows(&self) -> Result<&[u8], Refused> {
        match &self.decompressed {
            None if self.is_compressed => Ok(&[]),
            None => Ok(&self.payload),
            Some(rows) => rows.as_deref().map_err(Clone::clone),
        }
    }

    fn corrupt(&self, path: &Path, (at, expected): Refused) -> Error {
        if let Some(Ok(_)) = self.decompressed {
            let expected = format!("{expected}, at byte {at} of what the compressed block holds");
            return Error::corrupt(path, self.payload_at, expected);
        }
        Error::corrupt(path, self.payload_at.saturating_add(at as u64), expected)
    }

    pub(crate) fn decode(mut self) -> Decoded {
        self.decompress();
        let are_known = self.numbers.is_some() || self.find_shapes();
        let rows = are_known.then(|| decode(&self));
        // What it holds is not kept while it waits.
        match &mut self.decompressed {
            Some(Ok(held)) if are_known => *held = Vec::new(),
            decompressed if !are_known => *decompressed = None,
            _ => {}
        }
        Decoded { block: self, rows }
    }
}

impl Decoded {
    /// Puts the rows behind those of the table, the last of which has the key `last`. Gives how many they are, where the
    /// file's reader was behind them, and a buffer to read into.
    pub(crate) fn append_to(
        self,
        path: &Path,
        table: &mut TableState,
        last: &mut Option<Key>,
    ) -> Result<(u64, u64, Vec<u8>)> {
        let Decoded { mut block, rows } = self;
        let rows = rows.unwrap_or_else(|| {
            block.decompress();
            block.take_up_shapes(table);
            decode(&block)
        });
        let (mut run, first_at) = rows.map_err(|refused| block.corrupt(path, refused))?;
        if let (Some(last), Some(first)) = (&*last, run.first())
            && *last >= first
        {
            return Err(block.corrupt(path, (first_at, not_behind(&first))));
        }
        *last = run.last.take().or_else(|| last.take());
        let count = run.len() as u64;
        table.append(run);
        Ok((count, block.end, block.payload))
    }
}

/// Calls `each` with the names that the block's rows have, checked, and how many names that are.
fn for_each_shape<'a>(
    reader: &mut Reader<'a>,
    mut each: impl FnMut(&'a [u8], usize) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    for _ in 0..reader.count(1)? {
        let mut names = reader.clone();
        let count = row::names(reader)?;
        each(names.take(names.remaining().saturating_sub(reader.remaining()))?, count)?;
    }
    Ok(())
}

/// A shape as the rows of one block use it.
struct BlockShape<'a> {
    number: Option<usize>,
    names: &'a [u8],
    count: usize,
    /// Which field is the primary key; `count` where none is.
    key_field: usize,
}

impl<'a> BlockShape<'a> {
    fn read_all(block: &'a Block, reader: &mut Reader<'a>) -> Result<Vec<Self>, Malformed> {
        let before = reader.clone();
        let mut shapes: Vec<Self> = Vec::new();
        let mut seen = HashSet::new();
        for_each_shape(reader, |names, count| {
            if !seen.insert(names) {
                return Err(before.malformed("shapes that differ"));
            }
            let number = block.numbers.as_ref().and_then(|numbers| numbers.get(shapes.len()).copied().flatten());
            let key_field = row::position(names, block.table.definition().primary_key())?.unwrap_or(count);
            shapes.push(BlockShape { number, names, count, key_field });
            Ok(())
        })?;
        if shapes.is_empty() { Err(before.malformed("at least one shape in a block")) } else { Ok(shapes) }
    }

    /// Reads the values of a row and checks them; gives its key and them.
    fn admit(&self, table: &TableState, reader: &mut Reader<'a>) -> Result<(Key, &'a [u8]), Mismatch> {
        let mut before = reader.clone();
        let found = row::values(reader, self.count, self.key_field)?;
        let values = before.take(before.remaining().saturating_sub(reader.remaining()))?;
        let begin = reader.pos().saturating_sub(values.len());
        if self.names.len().saturating_add(values.len()) > ROW_BYTES_MAX {
            return Err(Malformed { at: begin, expected: "a row of at most 256 MiB" }.into());
        }
        let row = match self.number.and_then(|number| table.shapes().get(number)) {
            Some(shape) => RowRef::Shaped { shape, values },
            None => RowRef::Split { names: self.names, values },
        };
        let key = table.admit_key(row, &found, None).map_err(|m| Mismatch { at: begin, ..m })?;
        Ok((key, values))
    }
}

/// Checks the rows of one block, and that they are in order.
fn decode(block: &Block) -> Result<(Run, usize), Refused> {
    let malformed = |m: Malformed| (m.at, m.expected.to_owned());
    let mut reader = Reader::new(block.rows()?);
    let shapes = BlockShape::read_all(block, &mut reader).map_err(malformed)?;
    let count = reader.count(1).map_err(malformed)?;
    if count == 0 {
        return Err((reader.pos(), "at least one row in a block".to_owned()));
    }
    let mut run = RunWriter::new(&block.table);
    let (mut first_at, mut used) = (None, 0_usize);
    let mut growth = Growth::to(reader.pos().saturating_add(reader.remaining()));
    for _ in 0..count {
        let before = reader.clone();
        let index = if shapes.len() > 1 { reader.u64().map_err(malformed)? } else { 0 };
        let index = usize::try_from(index).unwrap_or(usize::MAX);
        let shape = shapes.get(index).filter(|_| index <= used);
        let shape = shape.ok_or_else(|| {
            malformed(before.malformed("one of the shapes, each used for the first time in their order"))
        })?;
        used = used.max(index.saturating_add(1));
        let at = reader.pos();
        growth.reach(at);
        let (key, values) = shape.admit(&block.table, &mut reader).map_err(|m| (m.at, m.expected))?;
        if run.last().is_some_and(|last| *last >= key) {
            return Err((at, not_behind(&key)));
        }
        run.push(key, Parts { number: shape.number, names: shape.names, values });
        first_at = first_at.or(Some(at));
    }
    reader.finish().map_err(malformed)?;
    if used < shapes.len() {
        return Err((0, "no shape that no row has".to_owned()));
    }
    Ok((run.finish(), first_at.unwrap_or_default()))
}

/// Gathers the rows of a block, and writes them with their names once each.
#[derive(Default)]
pub(crate) struct BlockWriter {
    /// The names of the block's shapes, in the order of their first use, and how many those are.
    names: Vec<u8>,
    shapes: usize,
    /// Which of them a shape of the table is, and which the names of a row of its own are.
    by_number: HashMap<usize, usize>,
    by_names: HashMap<Box<[u8]>, usize>,
    last: Option<(usize, usize)>,
    /// The shape of each row, and the bytes of its values.
    rows: Vec<(usize, usize)>,
    values: Vec<u8>,
}

impl BlockWriter {
    /// Takes in a row that comes after the last one.
    pub(crate) fn push(&mut self, row: Parts<'_>) {
        let known = match (row.number, self.last) {
            (Some(number), Some((last, shape))) if number == last => Some(shape),
            (Some(number), _) => self.by_number.get(&number).copied(),
            (None, _) => self.by_names.get(row.names).copied(),
        };
        let shape = known.unwrap_or_else(|| self.take_up(row));
        self.last = row.number.map(|number| (number, shape));
        self.rows.push((shape, row.values.len()));
        self.values.extend_from_slice(row.values);
    }

    #[cold]
    fn take_up(&mut self, row: Parts<'_>) -> usize {
        let shape = self.shapes;
        self.names.extend_from_slice(row.names);
        self.shapes = self.shapes.saturating_add(1);
        match row.number {
            Some(number) => _ = self.by_number.insert(number, shape),
            None => _ = self.by_names.insert(row.names.into(), shape),
        }
        shape
    }

    /// Bytes of names and values gathered so far.
    pub(crate) fn bytes(&self) -> usize {
        self.names.len().saturating_add(self.values.len())
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Appends the payload of the frame, and begins anew.
    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        wire::put_u64(out, self.shapes as u64);
        out.extend_from_slice(&self.names);
        wire::put_u64(out, self.rows.len() as u64);
        if self.shapes > 1 {
            let mut rest = self.values.as_slice();
            for (shape, len) in &self.rows {
                let (values, others) = rest.split_at_checked(*len).unwrap_or_default();
                wire::put_u64(out, *shape as u64);
                out.extend_from_slice(values);
                rest = others;
            }
        } else {
            out.extend_from_slice(&self.values);
        }
        self.names.clear();
        self.shapes = 0;
        self.by_number.clear();
        self.by_names.clear();
        self.last = None;
        self.rows.clear();
        self.values.clear();
    }
}

fn not_behind(key: &Key) -> String {
    format!("a row whose key comes after the one before it, not {key}")
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;
    use crate::definition::TableDefinition;
    use crate::pipeline::with_threads;
    use crate::record;

    const BLOCK_AT: u64 = 1_000;

    fn payload(keys: Range<i64>) -> Vec<u8> {
        let mut table = TableState::new("t", TableDefinition::new("id"));
        for id in keys {
            let mut bytes = Vec::new();
            row::encode_record(&record! { "id": id, "text": "x".repeat(50) }, &mut bytes).unwrap();
            table.put(Key::Int(id), &bytes);
        }
        let mut block = BlockWriter::default();
        table.rows().iter().for_each(|(_, row)| block.push(table.shapes().parts(row)));
        let mut payload = Vec::new();
        block.finish(&mut payload);
        payload
    }

    /// Block `n` lies at `n` times [`BLOCK_AT`]. Gives what is told after each of them.
    fn load(threads: usize, payloads: &[Vec<u8>]) -> (TableState, Vec<(u64, u64)>, Result<()>) {
        load_each(threads, payloads.iter().map(|payload| (FrameKind::Rows, payload)))
    }

    fn load_each<'a>(
        threads: usize,
        payloads: impl Iterator<Item = (FrameKind, &'a Vec<u8>)>,
    ) -> (TableState, Vec<(u64, u64)>, Result<()>) {
        let mut table = TableState::new("t", TableDefinition::new("id"));
        let (mut told, mut last) = (Vec::new(), None);
        let outcome = with_threads(threads, Block::decode, |blocks| {
            for (n, (kind, payload)) in payloads.enumerate() {
                let at = n as u64 * BLOCK_AT;
                let block = Block::new(&mut table, kind, payload.clone(), at, at + payload.len() as u64);
                blocks.give(block.bytes(), block);
            }
            while let Some(decoded) = blocks.next() {
                let (count, end, _) = decoded.append_to(Path::new("f"), &mut table, &mut last)?;
                told.push((count, end));
            }
            Ok(())
        });
        (table, told, outcome)
    }

    #[test]
    fn however_many_threads_decode_them_the_rows_come_in_the_order_of_the_file() {
        let payloads: Vec<_> = (0..20).map(|n| payload(n * 100..n * 100 + 100 - n)).collect();
        let (one, told, outcome) = load(1, &payloads);
        outcome.unwrap();
        assert_eq!((one.rows().len(), told.len()), (payloads.len() * 100 - 190, payloads.len()));
        for threads in 2..6 {
            let (many, told_too, outcome) = load(threads, &payloads);
            outcome.unwrap();
            assert_eq!(told_too, told);
            assert!(many.rows().iter().eq(one.rows().iter()));
            assert_eq!((many.next_key(), many.row_bytes()), (one.next_key(), one.row_bytes()));
        }
    }

    #[test]
    fn the_first_mistake_in_the_order_of_the_file_is_told_and_nothing_behind_it_is_taken() {
        for threads in 1..5 {
            let mut payloads: Vec<_> = (0..12).map(|n| payload(n * 10..n * 10 + 10)).collect();
            payloads[9].clear();
            payloads[5].truncate(40);
            let (table, _, outcome) = load(threads, &payloads);
            let error = outcome.unwrap_err();
            let in_block_5 = 5 * BLOCK_AT..6 * BLOCK_AT;
            assert!(matches!(error, Error::Corrupt { offset, .. } if in_block_5.contains(&offset)), "{error}");
            assert_eq!(table.rows().len(), 50);
        }
    }

    #[test]
    fn a_block_that_does_not_begin_behind_the_end_of_the_one_before_it_is_refused_at_its_first_row() {
        let payloads = [payload(0..10), payload(9..20), payload(20..30)];
        let (_, _, outcome) = load(3, &payloads);
        let error = outcome.unwrap_err();
        assert!(matches!(error, Error::Corrupt { offset, .. } if offset == BLOCK_AT + 11), "{error}");
        assert!(error.to_string().contains("comes after"), "{error}");
    }

    fn compressed(payload: &[u8]) -> Vec<u8> {
        let mut bytes = payload.to_vec();
        assert!(compression::Compressor::new().compress(&mut bytes, 0));
        bytes
    }

    #[test]
    fn compressed_blocks_among_others_give_the_same_rows_whoever_decompresses_them() {
        let payloads: Vec<_> = (0..20).map(|n| payload(n * 100..n * 100 + 100 - n)).collect();
        let (plain, ..) = load(1, &payloads);
        let mixed: Vec<_> = (payloads.iter().enumerate())
            .map(|(n, payload)| match n % 3 {
                0 => (FrameKind::Rows, payload.clone()),
                _ => (FrameKind::CompressedRows, compressed(payload)),
            })
            .collect();
        for threads in 1..6 {
            let (table, told, outcome) = load_each(threads, mixed.iter().map(|(kind, payload)| (*kind, payload)));
            outcome.unwrap();
            assert_eq!(told.len(), payloads.len());
            assert!(table.rows().iter().eq(plain.rows().iter()));
            assert_eq!((table.next_key(), table.row_bytes()), (plain.next_key(), plain.row_bytes()));
        }
    }

    #[test]
    fn of_compressed_blocks_too_the_first_mistake_in_the_order_of_the_file_is_told() {
        let sound: Vec<_> = (0..12).map(|n| payload(n * 10..n * 10 + 10)).collect();
        let in_the_rows = compressed(&[&sound[5][..], b"behind the rows"].concat());
        let in_the_lz4 = {
            let mut bytes = compressed(&sound[5]);
            bytes.pop();
            bytes
        };
        let length = sound[5].len();
        for (damaged, offset, expected) in [
            (in_the_rows, 0, format!("at byte {length} of what the compressed block holds")),
            (in_the_lz4, 2, "an LZ4 block of as many bytes as are stated before it".to_owned()),
            (sound[5].clone(), 0, "more bytes than the compressed block has".to_owned()),
        ] {
            let mut payloads: Vec<_> = sound.iter().map(|payload| compressed(payload)).collect();
            payloads[5] = damaged;
            payloads[9].clear();
            for threads in 1..5 {
                let blocks = payloads.iter().map(|payload| (FrameKind::CompressedRows, payload));
                let (table, _, outcome) = load_each(threads, blocks);
                let error = outcome.unwrap_err();
                assert!(matches!(error, Error::Corrupt { offset: o, .. } if o == 5 * BLOCK_AT + offset), "{error}");
                assert!(error.to_string().contains(&expected), "{error}");
                assert_eq!(table.rows().len(), 50);
            }
        }
    }
}
