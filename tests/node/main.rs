//! `starcar node`: settings that are printed and written, and a node with one thing wrong at a time.

// Each case is one call, in braces where its line is long.
#![allow(clippy::semicolon_if_nothing_returned, clippy::unwrap_used, missing_docs)]

mod config;
mod containerd;
mod harness;
mod images;
mod imports;
mod looks;
mod snapshotter;
#[path = "../support/mod.rs"]
mod support;
