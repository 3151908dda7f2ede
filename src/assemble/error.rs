//! Why parts do not make an image.

use crate::{
    digest::Digest,
    oci::OciError,
    pack::{PackError, Part},
};

/// Why an image was not assembled.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// Something cannot be read, written or sent.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// The image cannot be brought to where it goes.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// The parts are not what they should be.
    #[error("{problem}")]
    Parts {
        /// What is wrong.
        #[source]
        problem: PartsError,
        /// Whether they lie in a registry.
        remote: bool,
    },
}

/// What is wrong with parts.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// There is none.
    #[error("{place} has no part of an image")]
    None {
        /// Where they were looked for.
        place: String,
        /// How a part is made that would be found there.
        make: String,
    },
    /// Some are not there.
    #[error("{} missing in {place}", listed(missing, *of))]
    Missing {
        /// Those that are missing, counted from 1.
        missing: Vec<u16>,
        /// How many there should be.
        of: u16,
        /// Where they were looked for.
        place: String,
        /// How the first that is missing is made.
        make: String,
    },
    /// The parts are of images that were split differently.
    #[error("{place} has parts of images that were split into {}", counts(found))]
    Counts {
        /// Where they lie.
        place: String,
        /// The numbers of parts.
        found: Vec<u16>,
    },
    /// The parts in a layout are those of several images.
    #[error("{place} has parts of several images: {}", names.join(", "))]
    Names {
        /// The layout.
        place: String,
        /// Tags of the images.
        names: Vec<String>,
    },
    /// Something that was named is no part.
    #[error("{name} is no part of an image: {reason}")]
    NotAPart {
        /// The name.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A part was made by another version.
    #[error(
        "part {part} at {name} was made by starcar {found}, and this is {own}, which may write other documents"
    )]
    Version {
        /// The part.
        part: Part,
        /// Where it lies.
        name: String,
        /// The version that made it.
        found: String,
        /// This version.
        own: &'static str,
    },
    /// A part is of another plan than the others.
    #[error("part {part} at {name} is of another plan than part {other}:{}", lines(differences))]
    OtherPlan {
        /// The part.
        part: Part,
        /// Where it lies.
        name: String,
        /// The part that it is compared with.
        other: Part,
        /// What differs.
        differences: Vec<String>,
    },
    /// A part is there twice, of one plan and with other layers.
    #[error(
        "part {part} is there twice with other layers, at {first} and at {second}: a file changed in between"
    )]
    Twice {
        /// The part.
        part: Part,
        /// Where one lies.
        first: String,
        /// Where the other lies.
        second: String,
    },
    /// Two workers had other files.
    #[error(
        "{path} should be {first} by what the worker of part {first_part} knew, and {second} by what that of part \
         {second_part} knew"
    )]
    OtherFile {
        /// The file's path in the image.
        path: String,
        /// What the one knew.
        first: String,
        /// Its part.
        first_part: Part,
        /// What the other knew.
        second: String,
        /// Its part.
        second_part: Part,
    },
    /// A part does not tell what it was made of.
    #[error(
        "part {part} at {name} does not tell all files that it was made of, as --provenance and --sbom need"
    )]
    Untold {
        /// The part.
        part: Part,
        /// Where it lies.
        name: String,
    },
    /// Two workers were asked in other words for the same image: one machine is asked once.
    #[error(
        "part {part} at {name} was asked for in other words than part {other}, and --provenance and --sbom tell of one:{}",
        lines(differences)
    )]
    OtherGiven {
        /// The part.
        part: Part,
        /// Where it lies.
        name: String,
        /// The part that it is compared with.
        other: Part,
        /// What differs.
        differences: Vec<String>,
    },
    /// The parts do not have each layer once.
    #[error("the layer of {title} is in {} of the parts", if *times == 0 { "none".to_owned() } else { times.to_string() })]
    Layer {
        /// What the layer holds.
        title: String,
        /// How many parts have it.
        times: usize,
    },
    /// What the images say would take more memory than images are worth.
    #[error("documents of the images would have {size} bytes, more than {max}")]
    Documents {
        /// About how many bytes they would have.
        size: u64,
        /// How many they may have.
        max: u64,
    },
    /// A part's manifest does not list the layers that its config tells of.
    #[error("part {part} at {name} is damaged: its manifest lists other layers than its config")]
    OtherLayers {
        /// The part.
        part: Part,
        /// Where it lies.
        name: String,
    },
    /// A part's digest of its plan is not that of its plan.
    #[error("part {part} at {name} is damaged: its plan has digest {actual}, and it says {expected}")]
    Damaged {
        /// The part.
        part: Part,
        /// Where it lies.
        name: String,
        /// What the part says.
        expected: Digest,
        /// What is so.
        actual: Digest,
    },
}

/// A line for each.
fn lines(differences: &[String]) -> String {
    differences.iter().fold(String::new(), |text, difference| text + "\n  " + difference)
}

fn listed(missing: &[u16], of: u16) -> String {
    /// More than these are only counted.
    const SHOWN: usize = 20;

    let shown: Vec<String> = missing.iter().take(SHOWN).map(ToString::to_string).collect();
    match shown.as_slice() {
        [only] => format!("part {only} of {of} is"),
        all if missing.len() > SHOWN => {
            format!("parts {} and {} more of {of} are", all.join(", "), missing.len() - SHOWN)
        }
        [first @ .., last] => format!("parts {} and {last} of {of} are", first.join(", ")),
        [] => format!("none of {of} parts is"),
    }
}

fn counts(found: &[u16]) -> String {
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    found.join(" and into ")
}
