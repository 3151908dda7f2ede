//! An image that several workers make: the same as one machine's, whatever the options, and a clear word where the parts
//! are not those of one image.

#![allow(clippy::unwrap_used, missing_docs)]

mod harness;
mod refusals;
mod strangers;
#[path = "../support/mod.rs"]
mod support;
mod told;
mod whole;
