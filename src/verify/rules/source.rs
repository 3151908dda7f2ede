//! Rules about the snapshot that an image was packed from.

use super::{Depth, EVERY, NONE, Rule, Severity};

/// The rules of this table.
pub(super) const SOURCE_RULES: &[&Rule] =
    &[&SOURCE_MISSING, &SOURCE_DIFFERS, &SOURCE_UNREAD, &SOURCE_EXTRA, &SOURCE_LEFT_OUT];

/// A file of the snapshot that the image does not have.
pub static SOURCE_MISSING: Rule = Rule {
    code: "source-missing",
    severity: Severity::Error,
    depth: Depth::Against,
    breaks: EVERY,
    description: "a file of the snapshot that the image does not have",
    consequence: "The model cannot be loaded, or not as it was meant",
    remedy: "pack the snapshot again",
};

/// A file that has other bytes in the image than in the snapshot.
pub static SOURCE_DIFFERS: Rule = Rule {
    code: "source-differs",
    severity: Severity::Error,
    depth: Depth::Against,
    breaks: EVERY,
    description: "a file that has other bytes in the image than in the snapshot",
    consequence: "The image holds another model than the snapshot, or a damaged one",
    remedy: "pack the snapshot again, or verify against the revision that was packed",
};

/// Files of the snapshot that could not be compared.
pub static SOURCE_UNREAD: Rule = Rule {
    code: "source-unread",
    severity: Severity::Warning,
    depth: Depth::Against,
    breaks: NONE,
    description: "files of the snapshot that could not be compared, because a layer could not be read",
    consequence: "The image may lack them, or have others",
    remedy: "mend what the findings say of the layer, and verify again",
};

/// A file below the model directory that the snapshot does not have.
pub static SOURCE_EXTRA: Rule = Rule {
    code: "source-extra",
    severity: Severity::Warning,
    depth: Depth::Against,
    breaks: NONE,
    description: "a file below the model directory that the snapshot does not have",
    consequence: "Something was added to the model after it was downloaded",
    remedy: "see whether the file belongs there; pack the snapshot again without it",
};

/// A file below the model directory that the snapshot has, and that is left out when it is packed as asked.
pub static SOURCE_LEFT_OUT: Rule = Rule {
    code: "source-left-out",
    severity: Severity::Note,
    depth: Depth::Against,
    breaks: NONE,
    description: "a file below the model directory that the snapshot has, and that is left out when it is packed as asked",
    consequence: "The image was packed with other filters",
    remedy: "verify with the --include and --exclude that the image was packed with",
};
