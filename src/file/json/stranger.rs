//! Whether a file without our head is one of DictDB 1.11.

use std::fmt;
use std::path::Path;
use std::rc::Rc;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::Result;
use crate::file::json::read::members;
use crate::file::json::text::{self, Context};
use crate::file::source::Source;
use crate::storage::Storage;

/// Refuses one that has members of ours, or is no JSON, reading all of it: it is one of ours whose beginning is damaged or
/// was written anew.
pub(crate) fn verify_dictdb(storage: &dyn Storage, path: &Path) -> Result<()> {
    text::parse(Source::open(storage, path)?, true, |context| Stranger { context })
}

struct Stranger {
    context: Rc<Context>,
}

impl<'de> DeserializeSeed<'de> for Stranger {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<(), D::Error> {
        json.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Stranger {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a document of DictDB")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        members(map, &self.context, |name, map| {
            map.next_value::<IgnoredAny>()?;
            Ok(!name.starts_with("dictdb"))
        })
    }
}
