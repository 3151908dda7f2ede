//! Whether an image is right, before a node finds out: read from where it is, and held against the formats' rules,
//! against what `KServe` and stargz-snapshotter do with it, and against its own words. Must not know how it is printed.

pub mod finding;
pub mod rules;

pub use self::finding::{Depth, Finding, Findings, Place, Rule, Severity, Use};
