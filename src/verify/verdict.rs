//! For each use of an image, whether it works, and what stands in the way.

use serde::Serialize;

use super::{
    finding::{Finding, Use},
    layer::{Format, LayerView, formats},
    media_type::Compression,
};

/// Whether an image can be used in a way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Works {
    /// Nothing stands in the way.
    Yes,
    /// Some of the layers are mounted lazily, the rest are pulled.
    Partly,
    /// It does not work.
    No,
    /// Too little was read to tell.
    Unknown,
}

impl Works {
    /// The name that outputs use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::Partly => "partly",
            Self::No => "no",
            Self::Unknown => "unknown",
        }
    }
}

/// Whether an image can be used in one way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// The way.
    #[serde(rename = "use")]
    pub way: Use,
    /// Whether it works.
    pub works: Works,
    /// Whether the image was verified for it: other ways are told of, and what breaks them alone is a note.
    pub wanted: bool,
    /// Why not, or what is not known; empty where it works.
    pub reasons: Vec<String>,
}

/// Judges all ways.
pub(super) fn judge(
    layers: &[LayerView],
    is_incomplete: bool,
    findings: &[Finding],
    wanted: &[Use],
) -> Vec<Verdict> {
    Use::ALL
        .into_iter()
        .map(|way| {
            let mut reasons: Vec<String> = Vec::new();
            for finding in findings.iter().filter(|finding| finding.rule.breaks.contains(&way)) {
                let reason = format!("{} ({})", finding.message, finding.rule.code);
                if !reasons.contains(&reason) {
                    reasons.push(reason);
                }
            }
            let mut works = if reasons.is_empty() { Works::Yes } else { Works::No };
            match way {
                Use::Lazy => {
                    let lazy =
                        layers.iter().take_while(|layer| matches!(layer.format, Format::Lazy(_))).count();
                    if reasons.is_empty() && lazy < layers.len() {
                        works = Works::No;
                        reasons.push(format!("the layers are {}", formats(layers)));
                    }
                    if works == Works::No && (1..layers.len()).contains(&lazy) {
                        works = Works::Partly;
                    }
                }
                Use::Fetch => {
                    if let Some(reason) = not_fetched(layers) {
                        works = Works::No;
                        reasons.insert(0, reason);
                    }
                }
                Use::Modelcar | Use::Native => {}
            }
            if works == Works::Yes && is_incomplete && way != Use::Lazy {
                works = Works::Unknown;
                reasons.push("some layers were not looked into; --deep reads them".to_owned());
            }
            Verdict { way, works, wanted: wanted.contains(&way), reasons }
        })
        .collect()
}

/// Why `KServe`'s downloader cannot unpack the layers, if it cannot.
pub(super) fn not_fetched(layers: &[LayerView]) -> Option<String> {
    let stops = |layer: &LayerView| {
        matches!(layer.format, Format::Lazy(_) | Format::Unnamed(_) | Format::Broken) || layer.members > 1
    };
    let zstd = |layer: &LayerView| matches!(layer.format, Format::Plain(Compression::Zstd));
    if layers.iter().any(stops) {
        Some(format!(
            "its downloader stops at the end of a layer's first gzip member, and the layers are {}",
            formats(layers)
        ))
    } else if layers.iter().any(zstd) {
        Some(format!("its downloader does not know zstd, and the layers are {}", formats(layers)))
    } else {
        None
    }
}
