//! Rules about the snapshot that an image was packed from.

use super::Rule;

/// The rules of this table.
pub(super) const SOURCE_RULES: &[&Rule] = &[];
