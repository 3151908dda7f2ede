//! How much of a cache is read. Must not know what is looked for.

/// Most bytes that are read of one file.
pub(super) const FILE_MAX: u64 = 256 << 20;
/// Most bytes that are read of one cache.
pub(super) const CACHE_MAX: u64 = 2 << 30;

/// Most bytes to read of each file so that a cache with files of these sizes in bytes stays within its budget. Small
/// files are read whole for as long as there is room: in them stands what large ones do not say.
pub(super) fn allowance(sizes: &(impl Iterator<Item = u64> + Clone)) -> u64 {
    let mut allowance = FILE_MAX;
    while allowance > 1 {
        let total = sizes.clone().map(|size| size.min(allowance)).fold(0, u64::saturating_add);
        if total <= CACHE_MAX {
            break;
        }
        allowance /= 2;
    }
    allowance
}

/// The parts of a file of `size` bytes to read within an allowance, as starts and ends: all of it, or its head and
/// its tail.
pub(super) fn parts(size: u64, allowance: u64) -> Vec<(u64, u64)> {
    if size <= allowance {
        return vec![(0, size)];
    }
    let half = (allowance / 2).max(1);
    vec![(0, half), (size.saturating_sub(half).max(half), size)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_usual_cache_is_read_whole() {
        assert_eq!(allowance(&[35 << 20, 100].into_iter()), FILE_MAX);
        assert_eq!(parts(100, FILE_MAX), [(0, 100)]);
        assert_eq!(parts(0, FILE_MAX), [(0, 0)]);
    }

    #[test]
    fn whatever_the_sizes_the_budget_holds() {
        for sizes in [vec![u64::MAX; 3], vec![FILE_MAX; 100], vec![1 << 20; 200_000], vec![5 << 30]] {
            let allowance = allowance(&sizes.iter().copied());
            let total: u64 =
                sizes.iter().flat_map(|&size| parts(size, allowance)).map(|(start, end)| end - start).sum();
            assert!(total <= CACHE_MAX, "{total} of {} files", sizes.len());
            assert!(total > 0);
        }
    }

    #[test]
    fn head_and_tail_are_apart() {
        assert_eq!(parts(11, 10), [(0, 5), (6, 11)]);
        assert_eq!(parts(1000, 10), [(0, 5), (995, 1000)]);
    }
}
