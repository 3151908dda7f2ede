//! What several integration tests need. Each test program includes this folder, so not all of it is used
//! in each.
#![allow(dead_code, unused_imports, unreachable_pub, clippy::unwrap_used)]

pub mod command;
pub mod hub;
pub mod noise;
pub mod registry;
pub mod words;
