//! Weighs what was seen: which backend it is, and which values say the same. Must not know files or their formats.

use super::{Attribute, Evidence, Fact, Identity};

/// What only a cache has that a GPU had a part in.
const OF_GPUS: [Attribute; 7] = [
    Attribute::Backend,
    Attribute::Architecture,
    Attribute::GpuName,
    Attribute::Multiprocessors,
    Attribute::WarpSize,
    Attribute::Ptx,
    Attribute::DeviceIndex,
];

/// What was seen so far.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// What was seen of each attribute.
    pub(super) identity: Identity,
    /// Code for processors. A cache for GPUs has some as well, so it tells the backend only where there is no other.
    pub(super) processor_code: Vec<Evidence>,
    /// Code for a device that is neither a processor nor one that CUDA or `ROCm` drives.
    pub(super) other_device: bool,
}

impl Sightings {
    /// Notes a value.
    pub(super) fn add(&mut self, attribute: Attribute, value: impl Into<String>, evidence: Evidence) {
        self.identity.add(attribute, value, evidence);
    }

    /// Notes code for processors.
    pub(super) fn add_processor_code(&mut self, evidence: Evidence) {
        let mut fact = Fact { value: String::new(), evidence: std::mem::take(&mut self.processor_code) };
        fact.support(evidence);
        self.processor_code = fact.evidence;
    }
}

/// What follows from all sightings.
pub(super) fn settle(sightings: Sightings) -> Identity {
    let Sightings { mut identity, processor_code, other_device } = sightings;
    let mut of_gpus = OF_GPUS.into_iter().filter(|attribute| !identity.facts(*attribute).is_empty());
    let gpus = of_gpus.next().is_some() || other_device;
    if !gpus && !processor_code.is_empty() {
        for evidence in processor_code {
            identity.add(Attribute::Backend, "cpu", evidence);
        }
        // What torch was built for says nothing about a cache that no GPU had a part in.
        identity.facts.remove(&Attribute::Cuda);
        if let Some(processors) = identity.facts.get(&Attribute::Processor).cloned() {
            identity.facts.insert(Attribute::Architecture, processors);
        }
    }
    for attribute in [Attribute::Python, Attribute::Torch, Attribute::Triton, Attribute::Cuda] {
        fold(&mut identity, attribute, |less, more| {
            more.strip_prefix(less).is_some_and(|rest| rest.starts_with(['.', '+']))
        });
    }
    fold(&mut identity, Attribute::Architecture, |more, less| {
        more.strip_prefix(less).is_some_and(|rest| rest.len() == 1 && rest.starts_with(['a', 'f']))
    });
    identity
}

/// Takes out each value that another one covers; its evidence is evidence of the other.
fn fold(identity: &mut Identity, attribute: Attribute, covers: impl Fn(&str, &str) -> bool) {
    let Some(facts) = identity.facts.get_mut(&attribute) else { return };
    let mut at = 0;
    while at < facts.len() {
        let other = facts.iter().position(|other| covers(&facts[at].value, &other.value));
        let Some(other) = other else {
            at += 1;
            continue;
        };
        let folded = facts[at].evidence.clone();
        for evidence in folded {
            facts[other].support(evidence);
        }
        facts.remove(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str) -> Evidence {
        Evidence { path: path.to_owned(), found: String::new(), offset: None }
    }

    fn settled(values: &[(Attribute, &str)], processor_code: bool) -> Identity {
        let mut sightings = Sightings::default();
        for (number, (attribute, value)) in values.iter().enumerate() {
            sightings.add(*attribute, *value, at(&number.to_string()));
        }
        if processor_code {
            sightings.add_processor_code(at("code"));
            sightings.add_processor_code(at("code"));
        }
        settle(sightings)
    }

    #[test]
    fn a_vague_value_is_evidence_of_an_exact_one() {
        let identity = settled(
            &[
                (Attribute::Python, "3.12"),
                (Attribute::Python, "3.12.3"),
                (Attribute::Torch, "2.9.1+cu128"),
                (Attribute::Torch, "2.9.1"),
                (Attribute::Triton, "3.5"),
                (Attribute::Triton, "3.51.0"),
            ],
            false,
        );
        assert_eq!(identity.only(Attribute::Python), Some("3.12.3"));
        assert_eq!(identity.facts(Attribute::Python)[0].evidence.len(), 2);
        assert_eq!(identity.only(Attribute::Torch), Some("2.9.1+cu128"));
        assert_eq!(identity.facts(Attribute::Triton).len(), 2);
    }

    #[test]
    fn the_gpu_is_the_same_with_and_without_a_letter() {
        let architectures = |values: &[&str]| {
            let values: Vec<_> = values.iter().map(|value| (Attribute::Architecture, *value)).collect();
            let identity = settled(&values, false);
            identity.facts(Attribute::Architecture).iter().map(|fact| fact.value.clone()).collect::<Vec<_>>()
        };
        assert_eq!(architectures(&["sm_90a", "sm_90"]), ["sm_90"]);
        assert_eq!(architectures(&["sm_90a"]), ["sm_90a"]);
        assert_eq!(
            architectures(&["sm_10", "sm_100", "gfx90a", "gfx90c"]),
            ["sm_10", "sm_100", "gfx90a", "gfx90c"]
        );
    }

    #[test]
    fn code_for_processors_tells_the_backend_only_where_no_gpu_is() {
        let build = (Attribute::Cuda, "13.0");
        let processor = (Attribute::Processor, "x86_64");
        let identity = settled(&[build, processor], true);
        assert_eq!(identity.only(Attribute::Backend), Some("cpu"));
        assert_eq!(identity.only(Attribute::Architecture), Some("x86_64"));
        assert_eq!(identity.facts(Attribute::Cuda), []);
        assert_eq!(identity.facts(Attribute::Backend)[0].evidence.len(), 1);

        let identity = settled(&[build, processor, (Attribute::Backend, "cuda")], true);
        assert_eq!(identity.only(Attribute::Backend), Some("cuda"));
        assert_eq!(identity.only(Attribute::Cuda), Some("13.0"));
        assert_eq!(identity.facts(Attribute::Architecture), []);
        assert_eq!(settled(&[processor], false).facts(Attribute::Backend), []);
        // There was a GPU, though what kind of one is not known.
        assert_eq!(settled(&[(Attribute::DeviceIndex, "0")], true).facts(Attribute::Backend), []);
        let mut sightings = Sightings { other_device: true, ..Sightings::default() };
        sightings.add_processor_code(at("code"));
        assert_eq!(settle(sightings).facts(Attribute::Backend), []);
    }
}
