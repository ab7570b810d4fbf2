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
    offset: Rc<Cell<u64>>,
    fault: Rc<RefCell<Option<Error>>>,
}

impl Context {
    /// Bytes read so far: at most one beyond the value just parsed.
    pub(crate) fn offset(&self) -> u64 {
        self.offset.get()
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

/// Parses the whole of a file with the seed that `visit` makes; whatever follows the document is refused.
pub(crate) fn parse<'de, S: DeserializeSeed<'de>>(
    mut source: Source,
    visit: impl FnOnce(Rc<Context>) -> S,
) -> Result<S::Value> {
    source.seek(0)?;
    let context = Rc::new(Context {
        file: source.path().to_owned(),
        offset: Rc::new(Cell::new(0)),
        fault: Rc::new(RefCell::new(None)),
    });
    let reader = Counted {
        source,
        buffer: vec![0; BUFFER_BYTES],
        at: 0,
        end: 0,
        offset: context.offset.clone(),
        fault: context.fault.clone(),
    };
    let mut json = serde_json::Deserializer::from_reader(reader);
    let parsed = visit(context.clone()).deserialize(&mut json).and_then(|value| json.end().map(|()| value));
    parsed.map_err(|error| {
        let fault = context.fault.borrow_mut().take();
        fault.unwrap_or_else(|| Error::corrupt(&context.file, context.offset(), format!("a JSON backup ({error})")))
    })
}

struct Counted {
    source: Source,
    buffer: Vec<u8>,
    at: usize,
    end: usize,
    offset: Rc<Cell<u64>>,
    fault: Rc<RefCell<Option<Error>>>,
}

impl Read for Counted {
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
