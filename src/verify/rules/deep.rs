//! Rules about the bytes of layers.

use super::Rule;

/// The rules of this table.
pub(super) const DEEP_RULES: &[&Rule] = &[];
