//! The `starcar` command.

fn main() {}
