//! What changed from the first run to each other, in numbers and in words. Must not know how it is printed.

use super::{CacheUse, Change, Phase, PhaseName, Run};

/// A phase that is this part of what it was, or less, is all but gone.
const GONE: f64 = 0.2;
/// Differences of less than this part are none.
const SAME: f64 = 0.02;

/// The changes of all runs but the first.
pub(super) fn changes(runs: &[Run]) -> Vec<Change> {
    let Some((first, others)) = runs.split_first() else { return Vec::new() };
    let mut changes = Vec::new();
    for (index, run) in others.iter().enumerate() {
        for name in PhaseName::ALL {
            let (before, after) = (first.phase(name), run.phase(name));
            changes.extend(change(index + 1, name, before, after, run));
        }
        if let (Some(before), Some(after)) = (first.total, run.total) {
            let exact = [first.resolution, run.resolution].map(|exact| exact.unwrap_or(1.0));
            let words = words(before, after, exact.into_iter().fold(0.0, f64::max));
            let [one, other] = exact;
            let text = format!("total: {} -> {}, {words}", shown(before, one), shown(after, other));
            changes.push(of(index + 1, None, Some(before), Some(after), text));
        }
    }
    changes
}

fn of(run: usize, phase: Option<PhaseName>, before: Option<f64>, after: Option<f64>, text: String) -> Change {
    let both = before.zip(after);
    Change {
        run,
        phase,
        difference: both.map(|(before, after)| rounded(after - before)),
        ratio: both.filter(|(before, _)| *before > 0.0).map(|(before, after)| rounded(after / before)),
        text,
    }
}

fn rounded(number: f64) -> f64 {
    (number * 1e6).round() / 1e6
}

fn change(
    run: usize,
    name: PhaseName,
    before: Option<&Phase>,
    after: Option<&Phase>,
    of_run: &Run,
) -> Option<Change> {
    let told = |phase: Option<&Phase>| {
        phase.and_then(|phase| Some((phase.seconds?, phase.resolution.unwrap_or(1.0))))
    };
    let (one, other) = (told(before), told(after));
    let hit = name == PhaseName::Compile && of_run.facts.compile_cache == Some(CacheUse::Hit);
    let because = if hit { " (loaded from the cache)" } else { "" };
    let note = after.and_then(|phase| phase.note.as_deref());
    let label = name.label();
    let text = match (one, other) {
        (None, None) => return None,
        (Some((before, exact)), None) => {
            let why = if hit {
                "gone (loaded from the cache)".to_owned()
            } else {
                note.map_or_else(|| "not in this log".to_owned(), |note| format!("not in this log ({note})"))
            };
            format!("{label}: {} -> {why}", shown(before, exact))
        }
        (None, Some((after, exact))) => format!("{label}: not in the first log -> {}", shown(after, exact)),
        (Some((before, one)), Some((after, other))) => {
            let exact = one.max(other);
            let gone = name == PhaseName::Compile && after <= before * GONE && before - after > exact;
            let words = words(before, after, exact);
            let words =
                if gone { format!("all but gone{because}, {words}") } else { format!("{words}{because}") };
            format!("{label}: {} -> {}, {words}", shown(before, one), shown(after, other))
        }
    };
    Some(of(run, Some(name), one.map(|told| told.0), other.map(|told| told.0), text))
}

/// How two times relate, which are exact to `exact`.
fn words(before: f64, after: f64, exact: f64) -> String {
    let difference = after - before;
    if difference.abs() <= before.abs() * SAME || difference.abs() < exact {
        return "the same".to_owned();
    }
    let more = if difference < 0.0 { "less" } else { "more" };
    // A factor of something that may be nothing tells nothing.
    let factor = (before > exact && after > exact).then(|| {
        let (large, small) = if difference < 0.0 { (before, after) } else { (after, before) };
        let speed = if difference < 0.0 { "as fast" } else { "as long" };
        format!(", {:.1} times {speed}", large / small)
    });
    format!("{} {more}{}", shown(difference.abs(), exact), factor.unwrap_or_default())
}

/// Seconds for people, with the digits that they are exact to.
pub fn shown(seconds: f64, resolution: f64) -> String {
    if resolution >= 1.0 {
        if seconds < 1.0 { "<1 s".to_owned() } else { format!("{seconds:.0} s") }
    } else {
        format!("{seconds:.2} s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_words() {
        assert_eq!(words(24.1, 2.2, 0.01), "21.90 s less, 11.0 times as fast");
        assert_eq!(words(2.0, 4.0, 1.0), "2 s more, 2.0 times as long");
        assert_eq!(words(0.0, 4.0, 1.0), "4 s more");
        assert_eq!(words(3.0, 3.4, 1.0), "the same");
        assert_eq!(shown(0.0, 1.0), "<1 s");
        assert_eq!(shown(0.0, 0.01), "0.00 s");
        assert_eq!(shown(37.0, 1.0), "37 s");
    }
}
