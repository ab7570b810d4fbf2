//! Streaming JSON with byte offsets: serde_json over a counting reader, and a place for our own errors.

use std::cell::{Cell, RefCell};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::de::DeserializeSeed;

use crate::error::{Error, Result};
use crate::file::source::Source;

const BUFFER_BYTES: usize = 64 << 10;

/// What visitors know about where they are, and where they leave an error that says more than serde_json's.
pub(crate) struct Context {
    file: PathBuf,
    /// Whether DictDB 1.11 wrote it, which gives it no checksum.
    is_foreign: bool,
    offset: Rc<Cell<u64>>,
    fault: Rc<RefCell<Option<Error>>>,
}

impl Context {
    /// Bytes read so far: at most one beyond the value just parsed.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.get()
    }

    /// Valid JSON that no record here holds. Where a checksum says that it was written so, no record was ever like that.
    pub(crate) fn not_held<E: serde::de::Error>(&self, offset: u64, expected: String) -> E {
        let file = self.file.clone();
        self.fail(match self.is_foreign {
            true => Error::UnsupportedValue { file, offset, expected },
            false => Error::Corrupt { file, offset, expected },
        })
    }

    /// Whether DictDB 1.11 wrote it.
    pub(crate) fn is_foreign(&self) -> bool {
        self.is_foreign
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// Leaves `error` for [`parse`] to return and makes serde_json stop.
    pub(crate) fn fail<E: serde::de::Error>(&self, error: Error) -> E {
        self.fault.borrow_mut().get_or_insert(error);
        E::custom("stopped")
    }

    /// The bytes just parsed are not what the format wants.
    pub(crate) fn expected<E: serde::de::Error>(&self, expected: impl Into<String>) -> E {
        self.fail(Error::corrupt(&self.file, self.offset(), expected))
    }
}

/// Parses the whole of a file with the seed that `visit` makes; whatever follows the document is refused. Of one that
/// `is_foreign`, what Python writes and JSON does not know is told from damage.
pub(crate) fn parse<'de, S: DeserializeSeed<'de>>(
    mut source: Source,
    is_foreign: bool,
    visit: impl FnOnce(Rc<Context>) -> S,
) -> Result<S::Value> {
    source.seek(0)?;
    let context = Rc::new(Context {
        file: source.path().to_owned(),
        is_foreign,
        offset: Rc::new(Cell::new(0)),
        fault: Rc::new(RefCell::new(None)),
    });
    let reader = Counted {
        source: &mut source,
        buffer: vec![0; BUFFER_BYTES],
        at: 0,
        end: 0,
        offset: context.offset.clone(),
        fault: context.fault.clone(),
    };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let parsed = visit(context.clone()).deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    drop(json);
    parsed.or_else(|error| {
        if let Some(fault) = context.fault.borrow_mut().take() {
            return Err(fault);
        }
        let (file, offset) = (context.file.clone(), context.offset());
        if is_foreign && is_half_of_a_pair(&error) {
            let expected = "text without half of a surrogate pair".to_owned();
            return Err(Error::UnsupportedValue { file, offset, expected });
        }
        if is_foreign && let Some(token) = python_number(&mut source, offset)? {
            let expected = format!("a number that JSON can hold, not {token}");
            return Err(Error::UnsupportedValue { file, offset, expected });
        }
        Err(Error::Corrupt { file, offset, expected: format!("a JSON backup ({error})") })
    })
}

/// Whether this is what serde_json says of a surrogate without the other half, which Python's text may hold.
fn is_half_of_a_pair(error: &serde_json::Error) -> bool {
    let said = error.to_string();
    ["lone leading surrogate in hex escape", "unexpected end of hex escape"].iter().any(|it| said.starts_with(it))
}

/// What Python's `json` writes for a float that JSON cannot, where one of them stands at most two bytes before the place
/// up to which was read.
fn python_number(source: &mut Source, offset: u64) -> Result<Option<&'static str>> {
    source.seek(offset.saturating_sub(2))?;
    let mut bytes = [0; 9];
    let mut len = 0_usize;
    while let Some(rest) = bytes.get_mut(len..).filter(|rest| !rest.is_empty()) {
        match source.read_some(rest)? {
            0 => break,
            read => len = len.saturating_add(read),
        }
    }
    let stands = |token: &&str| (0..2).any(|at| bytes.get(at..).is_some_and(|rest| rest.starts_with(token.as_bytes())));
    Ok(["NaN", "Infinity"].into_iter().find(stands))
}

struct Counted<'s> {
    source: &'s mut Source,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    offset: Rc<Cell<u64>>,
    fault: Rc<RefCell<Option<Error>>>,
}

impl Read for Counted<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            self.at = 0;
            self.end = self.source.read_some(&mut self.buffer).map_err(|error| {
                self.fault.borrow_mut().get_or_insert(error);
                io::Error::other("stopped")
            })?;
        }
        let ready = self.buffer.get(self.at..self.end).unwrap_or_default();
        let count = ready.len().min(out.len());
        if let (Some(out), Some(ready)) = (out.get_mut(..count), ready.get(..count)) {
            out.copy_from_slice(ready);
        }
        self.at = self.at.saturating_add(count);
        self.offset.set(self.offset.get().saturating_add(count as u64));
        Ok(count)
    }
}
