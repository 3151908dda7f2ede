//! One way to write JSON: keys sorted, no white space. The bytes that are hashed are the bytes that are
//! stored and pushed.

use serde::Serialize;
use serde_json::Value;

/// Serialises `document` with the keys of every object in order, so that the same document always has the
/// same bytes: oci-spec keeps annotations and labels in hash maps, whose order differs from run to run.
///
/// # Errors
/// When `document` cannot be JSON at all (a map whose keys are no strings).
pub fn canonical_json(document: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let mut value = serde_json::to_value(document)?;
    // Sorted in so many words: another crate may switch serde_json to keeping the order of insertion.
    value.sort_all_objects();
    serde_json::to_vec::<Value>(&value)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn the_order_of_a_hash_map_does_not_show() {
        let keys = ["d", "a", "c", "b"];
        let bytes = || {
            let map: HashMap<&str, u8> = keys.into_iter().zip(1..).collect();
            canonical_json(&map).unwrap()
        };
        assert_eq!(bytes(), br#"{"a":2,"b":4,"c":3,"d":1}"#);
        assert_eq!(bytes(), bytes());
    }
}
