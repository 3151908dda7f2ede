//! Code lengths of least total cost under a limit.
//!
//! Source: L. L. Larmore and D. S. Hirschberg, "A fast algorithm for optimal length-limited Huffman codes", Journal
//! of the ACM 37(3), 1990 ("package-merge"). The result is optimal for the limit, not a heuristic's.

/// Lengths in bits, at most `limit`, of a prefix code for symbols that occur `counts` times, with the least possible
/// sum of count times length. A symbol that does not occur gets length 0, and so does every symbol when fewer than
/// two occur. More than `2^limit` symbols cannot have such a code; callers have at most 286, and limits of 7 and
/// more.
pub(super) fn code_lengths<const SYMBOLS: usize>(counts: &[u32; SYMBOLS], limit: u8) -> [u8; SYMBOLS] {
    let mut lengths = [0_u8; SYMBOLS];
    let mut leaves: Vec<(u64, usize)> = (counts.iter().enumerate())
        .filter(|(_, count)| **count > 0)
        .map(|(symbol, count)| (u64::from(*count), symbol))
        .collect();
    if leaves.len() < 2 {
        return lengths;
    }
    leaves.sort_unstable();

    // One row for each bit, the deepest first: leaves, and pairs of the row below, in the order of their weight.
    let mut rows: Vec<Vec<Item>> = Vec::with_capacity(usize::from(limit));
    for _ in 0..limit {
        let packages = rows.last().map_or(Vec::new(), |row| packages(row));
        rows.push(merge(&leaves, &packages));
    }
    // A code of n symbols takes the 2n − 2 lightest items of the top row. A package stands for two items below it.
    // Each time that a leaf is taken its symbol's code is one bit longer.
    let mut taken = 2 * leaves.len() - 2;
    for row in rows.iter().rev() {
        let leaves_taken = row.iter().take(taken).filter(|item| item.leaf).count();
        for (_, symbol) in leaves.iter().take(leaves_taken) {
            lengths[*symbol] += 1;
        }
        taken = 2 * (taken - leaves_taken);
    }
    lengths
}

/// A leaf or a package in a row.
#[derive(Clone, Copy)]
struct Item {
    weight: u64,
    leaf: bool,
}

/// The items of `row`, two by two. One that is left over is in no package.
fn packages(row: &[Item]) -> Vec<u64> {
    row.chunks_exact(2).map(|pair| pair.iter().map(|item| item.weight).sum()).collect()
}

/// Leaves and packages, each in order, in one order. Of equal weights leaves come first.
fn merge(leaves: &[(u64, usize)], packages: &[u64]) -> Vec<Item> {
    let mut row = Vec::with_capacity(leaves.len() + packages.len());
    let mut packages = packages.iter().copied().peekable();
    for (leaf, _) in leaves {
        while let Some(weight) = packages.next_if(|package| package < leaf) {
            row.push(Item { weight, leaf: false });
        }
        row.push(Item { weight: *leaf, leaf: true });
    }
    row.extend(packages.map(|weight| Item { weight, leaf: false }));
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kraft(lengths: &[u8]) -> f64 {
        lengths.iter().filter(|length| **length > 0).map(|length| 0.5_f64.powi(i32::from(*length))).sum()
    }

    #[test]
    fn without_a_limit_that_binds_it_is_huffmans_code() {
        assert_eq!(code_lengths(&[1, 1, 2, 4], 15), [3, 3, 2, 1]);
        assert_eq!(code_lengths(&[5, 0, 5], 15), [1, 0, 1]);
        assert_eq!(code_lengths(&[7; 256], 15), [8; 256]);
        assert_eq!(code_lengths(&[0, 9, 0], 15), [0, 0, 0]);
    }

    #[test]
    fn a_limit_that_binds_is_kept_and_the_code_stays_complete() {
        let mut fibonacci = [1_u32; 40];
        for at in 2..40 {
            fibonacci[at] = fibonacci[at - 1] + fibonacci[at - 2];
        }
        for limit in [6, 7, 13, 15] {
            let lengths = code_lengths(&fibonacci, limit);
            assert_eq!(*lengths.iter().max().unwrap(), limit);
            assert!((kraft(&lengths) - 1.0).abs() < 1e-12, "limit {limit}");
        }
        // Huffman's would be 4, 4, 3, 2, 1. Of those of at most three bits 3, 3, 2, 2, 2 costs 32 bits.
        assert_eq!(code_lengths(&[1, 1, 2, 3, 8], 3), [3, 3, 3, 3, 1]);
    }
}
