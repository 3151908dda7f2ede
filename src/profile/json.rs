//! JSON objects and arrays whose values are kept as text, so that no value costs more memory than its text.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::value::RawValue;

/// Members of one object; more are an error.
const MEMBERS_MAX: usize = 1000;

/// The members of an object.
pub(super) struct Members<'a>(pub(super) BTreeMap<String, &'a RawValue>);

impl<'a> Deserialize<'a> for Members<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'a> Visitor<'a> for MembersVisitor {
    type Value = Members<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut members = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            if members.len() == MEMBERS_MAX {
                return Err(M::Error::custom(format!("an object has more than {MEMBERS_MAX} members")));
            }
            let value = map.next_value::<&RawValue>()?;
            if members.insert(name, value).is_some() {
                return Err(M::Error::custom("an object has a member twice"));
            }
        }
        Ok(Members(members))
    }
}

/// Why an array was not read.
pub(super) enum ItemsError {
    /// It has more items than are allowed.
    TooMany,
    /// It is no array.
    Json(String),
}

impl fmt::Display for ItemsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooMany => f.write_str("there are too many items"),
            Self::Json(reason) => f.write_str(reason),
        }
    }
}

/// Reads arrays of at most so many items.
pub(super) struct Items(usize);

impl Items {
    /// The items of the array that `text` is, `limit` at most.
    pub(super) fn parse(text: &str, limit: usize) -> Result<Vec<&RawValue>, ItemsError> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        match Items(limit).deserialize(&mut deserializer) {
            Ok(Some(items)) => Ok(items),
            Ok(None) => Err(ItemsError::TooMany),
            // The text was read once before: all that can be wrong is its type.
            Err(_) => Err(ItemsError::Json("it is no array".to_owned())),
        }
    }
}

impl<'a> DeserializeSeed<'a> for Items {
    type Value = Option<Vec<&'a RawValue>>;

    fn deserialize<D: Deserializer<'a>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'a> Visitor<'a> for Items {
    type Value = Option<Vec<&'a RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'a>>(self, mut sequence: S) -> Result<Self::Value, S::Error> {
        let mut items = Vec::new();
        let mut excess = false;
        // What follows is skipped, not kept: the end of the array must be reached.
        while let Some(item) = sequence.next_element::<&RawValue>()? {
            if items.len() == self.0 {
                excess = true;
            } else {
                items.push(item);
            }
        }
        Ok((!excess).then_some(items))
    }
}
