//! What registries do to pushes and pulls, and what becomes of it. Every test here is a row of
//! `docs/faults.md` of the same name.
#![allow(clippy::unwrap_used)] // also in helpers, which clippy does not take for tests

mod answers;
mod connections;
mod harness;
mod locations;
mod logins;
mod memory;
mod pieces;
mod pulls;
#[path = "../support/mod.rs"]
mod support;
mod tls;

#[test]
fn the_table_has_a_row_for_each_test() {
    let sources = [
        include_str!("answers.rs"),
        include_str!("connections.rs"),
        include_str!("locations.rs"),
        include_str!("logins.rs"),
        include_str!("memory.rs"),
        include_str!("pieces.rs"),
        include_str!("pulls.rs"),
        include_str!("tls.rs"),
    ];
    let mut tests: Vec<&str> = sources
        .iter()
        .flat_map(|source| source.split("#[test]\nfn ").skip(1))
        .filter_map(|test| test.split('(').next())
        .collect();
    let mut rows: Vec<&str> = include_str!("../../docs/faults.md")
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    tests.sort_unstable();
    rows.sort_unstable();
    assert_eq!(tests, rows);
}
