//! Records of PAX extended headers, read by their stated lengths: values may hold line feeds (extended
//! attributes are binary), which the tar crate's reader does not take.
//!
//! Source: POSIX.1-2017, `pax`, "pax Extended Header".

use std::collections::BTreeMap;

/// The records in the content of an extended header, by key. A key that comes twice has its last value.
/// `None` when the content is malformed.
pub(super) fn records(mut content: &[u8]) -> Option<BTreeMap<String, Vec<u8>>> {
    let mut records = BTreeMap::new();
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&content[..space]).ok()?.parse().ok()?;
        let record = content.get(space + 1..length)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|byte| *byte == b'=')?;
        let key = std::str::from_utf8(&record[..equals]).ok()?;
        records.insert(key.to_owned(), record[equals + 1..].to_vec());
        content = &content[length..];
    }
    Some(records)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn values_may_hold_anything() {
        let read = records(b"9 a=b\nc=\n12 path=x/y\n").unwrap();
        assert_eq!(read["a"], b"b\nc=");
        assert_eq!(read["path"], b"x/y");
    }

    #[test]
    fn malformed_records_are_refused() {
        for content in [&b"x"[..], b"5 a=b", b"99 a=b\n", b"0 a=b\n", b"2 a=b\n", b"6 ab\n\n"] {
            assert_eq!(records(content), None, "{content:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(content in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = records(&content);
        }
    }
}
