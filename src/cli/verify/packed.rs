//! `starcar pack --verify`: the image is verified where it was brought to.

use super::{code, text};
use crate::{
    cli::{CliError, output, verify::FailArgument},
    oci::{self, OciError, Selector, Target},
    pack::{Destination, Packed},
    progress::Unobserved,
    registry::Registry,
    verify::{VerifyOptions, verify},
};

/// Verifies the image and its variants at all destinations, by their digests, and tells on standard error what is found.
/// Returns the exit code.
pub(in crate::cli) fn verify_packed(
    destinations: &[Destination],
    packed: &Packed,
    registry: impl Fn() -> Result<Registry, OciError>,
    quiet: bool,
) -> Result<u8, CliError> {
    let mut worst = 0;
    for destination in destinations {
        let names = packed.variants.iter().map(|variant| &variant.image).chain([packed]);
        for image in names {
            let selector = Selector::Digest(image.digest);
            let target = match destination {
                Destination::Layout { path, .. } => Target::Layout { path: path.clone(), selector },
                Destination::Archive { path, .. } => Target::Archive { path: path.clone(), selector },
                Destination::Registry { reference, .. } => {
                    Target::Registry(reference.clone_with_digest(image.digest.to_string()))
                }
            };
            let source = oci::open(&target, &registry)?;
            let platform = image.platform.as_deref().map(str::parse).transpose()?;
            let options = VerifyOptions { platform, ..VerifyOptions::default() };
            let verification = verify(&*source, &options, &Unobserved)?;
            if !quiet || !verification.findings.is_empty() {
                output::words(&format!("verified {target}: {}", text::summary(&verification.findings)));
                verification
                    .findings
                    .iter()
                    .for_each(|finding| output::words(text::finding_text(finding, true).trim_end()));
            }
            worst = match (worst, code(&verification, FailArgument::Warning)) {
                (0, now) => now,
                // Errors have the smaller code.
                (before, 0) => before,
                (before, now) => before.min(now),
            };
        }
    }
    Ok(worst)
}
