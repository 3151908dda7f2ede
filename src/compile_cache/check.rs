//! Whether a cache fits a host: what is known of the one beside what is known of the other, and what follows from a
//! difference. Pure; must not read a file or ask a program.

mod compare;
mod consequence;

use std::num::NonZeroUsize;

use serde::Serialize;

pub use self::consequence::Consequence;
use self::{
    compare::{compare, most_exact},
    consequence::{attributes, consequence, release, remedy},
};
use super::{
    Kind,
    host::{HostFact, HostFacts},
    identity::{Attribute, Identity, VALUES_MAX},
};

/// Most ranks that a text names.
const RANKS_NAMED: usize = 8;

/// Whether a cache fits a host, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// The result.
    pub fit: Fit,
    /// Everything that decides it, in the order in which it should be read.
    pub rows: Vec<Row>,
}

/// Whether a cache fits a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fit {
    /// Everything that decides is known and the same.
    Fits,
    /// Nothing that is known differs.
    FitsAsFarAsKnown,
    /// Something differs that decides.
    DoesNotFit,
}

impl Fit {
    /// The result, in words.
    pub fn text(self) -> &'static str {
        match self {
            Self::Fits => "fits",
            Self::FitsAsFarAsKnown => "fits as far as is known",
            Self::DoesNotFit => "does not fit",
        }
    }
}

/// One attribute of a cache beside the host's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// The attribute.
    pub attribute: Attribute,
    /// The cache's values; none where nothing tells.
    pub cache: Vec<String>,
    /// The host's value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<HostFact>,
    /// How they compare.
    pub result: Comparison,
    /// What follows where they differ.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consequence: Option<Consequence>,
    /// What happens then, or what cannot be told, in words; empty where all is well.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What to do; empty where nothing need be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

/// How two values compare, the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Comparison {
    /// They are the same.
    Same,
    /// One is known more exactly than the other: `3.12` and `3.12.4`.
    SameAsFarAsKnown,
    /// One is not known.
    Unknown,
    /// They differ.
    Differs,
}

/// What of a cache decides which attributes matter.
#[derive(Debug, Clone, Copy)]
struct Cache {
    kind: Kind,
    /// Whether it holds code for processors only.
    processor: bool,
    /// Whether it holds, or may hold, what vLLM compiled ahead of time.
    aot: bool,
}

/// Compares what is known of a cache of `kind` with a host.
pub fn check(identity: &Identity, kind: Kind, host: &HostFacts) -> Verdict {
    let backends = values(identity, Attribute::Backend);
    let formats = values(identity, Attribute::Format);
    let architectures = values(identity, Attribute::Architecture);
    let cache = Cache {
        kind,
        // Where the backend is not known, the architecture tells.
        processor: backends == ["cpu"]
            || backends.is_empty()
                && !architectures.is_empty()
                && !architectures.iter().any(|name| is_gpu(name)),
        aot: kind == Kind::Vllm && (formats.is_empty() || formats.contains(&"aot")),
    };
    let rows: Vec<Row> =
        attributes(cache).iter().filter_map(|attribute| row(identity, cache, *attribute, host)).collect();
    let decides = |row: &&Row| row.consequence.is_none_or(|consequence| consequence > Consequence::Harmless);
    let worst = rows.iter().filter(decides).map(|row| row.result).max();
    let fit = match worst {
        Some(Comparison::Same) => Fit::Fits,
        Some(Comparison::SameAsFarAsKnown | Comparison::Unknown) | None => Fit::FitsAsFarAsKnown,
        Some(Comparison::Differs) => Fit::DoesNotFit,
    };
    Verdict { fit, rows }
}

fn values(identity: &Identity, attribute: Attribute) -> Vec<&str> {
    let values: Vec<&str> = identity.facts(attribute).iter().map(|fact| fact.value.as_str()).collect();
    most_exact(attribute, &values)
}

/// The values that decide: a cache for GPUs has wrappers for the processor too.
fn deciding(identity: &Identity, cache: Cache, attribute: Attribute) -> Vec<String> {
    let mut found = values(identity, attribute);
    let of_gpu = |value: &&str| match attribute {
        Attribute::Backend => *value != "cpu",
        Attribute::Architecture => is_gpu(value),
        _ => true,
    };
    if !cache.processor && found.iter().any(of_gpu) {
        found.retain(of_gpu);
    }
    found.into_iter().map(str::to_owned).collect()
}

fn row(identity: &Identity, cache: Cache, attribute: Attribute, host: &HostFacts) -> Option<Row> {
    let found = deciding(identity, cache, attribute);
    let given = match attribute {
        Attribute::Rank => return ranks(identity, cache, found, host),
        Attribute::Architecture if cache.processor => host.processor.as_ref(),
        _ => host.get(attribute),
    };
    let mut row = Row {
        attribute,
        cache: found,
        host: given.cloned(),
        result: Comparison::Unknown,
        consequence: None,
        reason: String::new(),
        remedy: String::new(),
    };
    let (first, fact) = match (row.cache.first(), given) {
        (Some(first), Some(fact)) => (first.clone(), fact),
        (None, Some(_)) => {
            "the cache does not tell".clone_into(&mut row.reason);
            // Only one of the two toolkits is there; the other says nothing.
            return (!matches!(attribute, Attribute::Cuda | Attribute::Rocm)
                || is_toolkit(identity, attribute))
            .then_some(row);
        }
        (Some(_), None) => {
            "the host's is not known".clone_into(&mut row.reason);
            return Some(row);
        }
        (None, None) => {
            "neither is known".clone_into(&mut row.reason);
            return expected(identity, cache, attribute).then_some(row);
        }
    };
    let compared = |value: &String| match compare(attribute, value, &fact.value) {
        // Torch keeps only the release of Triton where it compiles ahead of time.
        Comparison::SameAsFarAsKnown
            if attribute == Attribute::Triton && cache.aot && release(value) == release(&fact.value) =>
        {
            Comparison::Same
        }
        result => result,
    };
    let results: Vec<Comparison> = row.cache.iter().map(compared).collect();
    row.result = results.iter().min().copied().unwrap_or(Comparison::Unknown);
    match row.result {
        Comparison::Differs => {
            let values: Vec<&str> = row.cache.iter().map(String::as_str).collect();
            let follows = consequence(cache, attribute, &values, &fact.value);
            row.consequence = Some(follows);
            follows.text(cache).clone_into(&mut row.reason);
            if follows > Consequence::Harmless {
                row.remedy = remedy(cache, attribute, &fact.value);
            }
        }
        Comparison::SameAsFarAsKnown if attribute == Attribute::GpuName => {
            row.reason = format!(
                "torch compares the whole name: `{first}` is refused on a GPU whose driver gives another"
            );
        }
        Comparison::SameAsFarAsKnown => {
            "one of the two is not known exactly".clone_into(&mut row.reason);
        }
        Comparison::Same if results.contains(&Comparison::Differs) => {
            "the cache holds others too, which are of no use here".clone_into(&mut row.reason);
        }
        Comparison::Same | Comparison::Unknown => {}
    }
    Some(row)
}

/// Whether an architecture is a GPU's.
fn is_gpu(architecture: &str) -> bool {
    architecture.starts_with("sm_") || architecture.starts_with("gfx")
}

/// Whether a cache of this backend has this toolkit's version.
fn is_toolkit(identity: &Identity, attribute: Attribute) -> bool {
    let backends = values(identity, Attribute::Backend);
    let other = if attribute == Attribute::Cuda { "rocm" } else { "cuda" };
    !backends.contains(&other)
}

/// Whether it must be said that nothing is known of an attribute: what is left out does not keep a cache from
/// fitting.
fn expected(identity: &Identity, cache: Cache, attribute: Attribute) -> bool {
    match attribute {
        // Only one of the two toolkits is there, and torch's version names it, too; there is one data-parallel rank
        // where nobody says otherwise.
        Attribute::Cuda | Attribute::Rocm | Attribute::DataParallel => false,
        // Where ranks are known, their row says it.
        Attribute::TensorParallel => identity.facts(Attribute::Rank).is_empty(),
        Attribute::InstructionSet => cache.processor,
        _ => true,
    }
}

/// The ranks that the host will run beside those that the cache has.
fn ranks(identity: &Identity, cache: Cache, found: Vec<String>, host: &HostFacts) -> Option<Row> {
    if found.is_empty() {
        return None;
    }
    let given = |attribute| {
        host.get(attribute).and_then(|fact| Some((fact, fact.value.parse::<NonZeroUsize>().ok()?)))
    };
    let (tensor, data) = (given(Attribute::TensorParallel), given(Attribute::DataParallel));
    let mut row = Row {
        attribute: Attribute::Rank,
        cache: found,
        host: None,
        result: Comparison::Unknown,
        consequence: None,
        reason: "how many the host runs is not known".to_owned(),
        remedy: String::new(),
    };
    let Some((fact, _)) = tensor.or(data) else { return Some(row) };
    let needed = Ranks {
        tensor: tensor.map_or(1, |(_, size)| size.get()),
        data: data.map_or(1, |(_, size)| size.get()),
    };
    // Data-parallel engines are started by an option of their own, tensor-parallel ones wherever there are GPUs:
    // without the option there may be more of these.
    let least = if tensor.is_none() { "at least " } else { "" };
    row.host = Some(HostFact {
        value: format!("{least}{}", named(needed.names(), needed.count())),
        source: fact.source.clone(),
    });
    let missing = needed.count().saturating_sub(row.cache.iter().filter(|name| needed.has(name)).count());
    if missing == 0 {
        if tensor.is_some() {
            row.result = Comparison::Same;
            row.reason.clear();
        }
    } else if identity.facts(Attribute::Rank).len() >= VALUES_MAX {
        "the cache has more ranks than were listed".clone_into(&mut row.reason);
    } else {
        let follows = Consequence::SilentRecompile;
        row.result = Comparison::Differs;
        row.consequence = Some(follows);
        let names = named(needed.names().filter(|name| !row.cache.contains(name)), missing);
        let are = if missing == 1 { ("rank", "is") } else { ("ranks", "are") };
        row.reason = format!("{} {names} {} not in the cache: {}", are.0, are.1, follows.text(cache));
        row.remedy = match (tensor, data) {
            (Some((tensor, _)), Some((data, _))) if needed.data > 1 => format!(
                "{} --data-parallel-size {}",
                remedy(cache, Attribute::TensorParallel, &tensor.value),
                data.value
            ),
            (Some((tensor, _)), _) => remedy(cache, Attribute::TensorParallel, &tensor.value),
            (None, _) => remedy(cache, Attribute::DataParallel, &fact.value),
        };
    }
    Some(row)
}

/// The ranks of an engine, which may be more than can be listed.
#[derive(Debug, Clone, Copy)]
struct Ranks {
    tensor: usize,
    data: usize,
}

impl Ranks {
    fn count(self) -> usize {
        self.tensor.saturating_mul(self.data)
    }

    fn names(self) -> impl Iterator<Item = String> {
        (0..self.data).flat_map(move |data| (0..self.tensor).map(move |tensor| format!("{tensor}_{data}")))
    }

    fn has(self, name: &str) -> bool {
        let numbers =
            name.split_once('_').and_then(|(tensor, data)| Some((tensor.parse().ok()?, data.parse().ok()?)));
        numbers.is_some_and(|(tensor, data): (usize, usize)| {
            tensor < self.tensor && data < self.data && format!("{tensor}_{data}") == name
        })
    }
}

/// The first names, and how many more of the `count` there are.
fn named(names: impl Iterator<Item = String>, count: usize) -> String {
    let names: Vec<String> = names.take(RANKS_NAMED).collect();
    let more = count.saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    names.join(", ") + &more
}

#[cfg(test)]
mod tests;
