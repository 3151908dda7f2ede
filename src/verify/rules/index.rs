//! Rules about indexes: images for several platforms under one name.

use super::{Depth, EVERY, NONE, Rule, Severity};

/// The rules of this table.
pub(super) const INDEX_RULES: &[&Rule] =
    &[&INDEX_EMPTY, &INDEX_ENTRY_MISSING, &INDEX_ENTRY_DAMAGED, &INDEX_PLATFORM_MISSING, &INDEX_ENTRY_UNREAD];

/// An index that lists no image.
pub static INDEX_EMPTY: Rule = Rule {
    code: "index-empty",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "an index that lists no image",
    consequence: "Nothing can pull the image",
    remedy: "pack the image again",
};

/// An index that lists a manifest that is not where it is.
pub static INDEX_ENTRY_MISSING: Rule = Rule {
    code: "index-entry-missing",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "an index that lists a manifest that is not there",
    consequence: "Nodes of that platform cannot pull the image, and copies of the index fail",
    remedy: "push or copy all of the index again",
};

/// An index that lists a manifest of other bytes, or of another length, than the entry says.
pub static INDEX_ENTRY_DAMAGED: Rule = Rule {
    code: "index-entry-damaged",
    severity: Severity::Error,
    depth: Depth::Quick,
    breaks: EVERY,
    description: "an index that lists a manifest of other bytes, or of another length, than the entry says",
    consequence: "Nodes of that platform refuse the image",
    remedy: "push or copy all of the index again",
};

/// An index that states no platform for an image.
pub static INDEX_PLATFORM_MISSING: Rule = Rule {
    code: "index-platform-missing",
    severity: Severity::Warning,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an index that states no platform for an image",
    consequence: "Some clients take the image for one of any platform, others for one of none",
    remedy: "pack the image again with --platform",
};

/// An entry of an index that is no image's manifest.
pub static INDEX_ENTRY_UNREAD: Rule = Rule {
    code: "index-entry-unread",
    severity: Severity::Note,
    depth: Depth::Quick,
    breaks: NONE,
    description: "an entry of an index that is no image's manifest, such as another index",
    consequence: "What it holds is not known, so nothing is said of it",
    remedy: "verify it by its digest",
};
