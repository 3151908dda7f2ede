//! Downloading from a hub that runs here: what is asked for, what lies in the cache afterwards, and what is said when
//! something goes wrong.
#![allow(clippy::unwrap_used)] // also in helpers, which clippy does not take for tests

mod cache;
mod command;
mod faults;
mod harness;
mod parts;
mod refusals;
#[path = "../support/mod.rs"]
mod support;
