//! Which architecture a GPU has: names as drivers print them and as people write them, to the names that
//! compilers use. A table; must not know caches, and asks no driver.

/// The architecture of a GPU, as compilers name it: `sm_90`, `gfx942`. Takes the name that `nvidia-smi` prints
/// (`NVIDIA H100 80GB HBM3`), a short one (`H100`), a compute capability (`9.0`, `90`) or the architecture itself
/// (`sm_90a` and `gfx942:sramecc+` are `sm_90` and `gfx942`: a suffix is a property of code, not of a GPU).
/// `None` for one that is not in the table.
pub fn architecture_of(name: &str) -> Option<&'static str> {
    architecture_named(name).or_else(|| {
        let words = words(name);
        NAMES
            .iter()
            .filter(|(pattern, _)| contains(&words, pattern))
            // `RTX 6000 Ada` says more than `RTX`.
            .max_by_key(|(pattern, _)| (pattern.split(' ').count(), pattern.len()))
            .map(|(_, architecture)| *architecture)
    })
}

/// The architecture that `text` names itself: `sm_90`, `sm90`, `90`, `9.0` or `gfx942`.
fn architecture_named(text: &str) -> Option<&'static str> {
    let text = text.trim().to_ascii_lowercase();
    if text.starts_with("gfx") {
        let name = text.split(':').next()?;
        return ARCHITECTURES.iter().find(|known| **known == name).copied();
    }
    let digits = match text.split_once('.') {
        // One digit: 1.20 is no 12.0.
        Some((major, minor)) if minor.len() == 1 => format!("{major}{minor}"),
        Some(_) => return None,
        None => {
            let rest = text.strip_prefix("sm_").or_else(|| text.strip_prefix("sm")).unwrap_or(&text);
            rest.trim_end_matches(['a', 'f']).to_owned()
        }
    };
    ARCHITECTURES.iter().find(|known| known.strip_prefix("sm_") == Some(digits.as_str())).copied()
}

/// Whether `text` names an architecture and not a GPU.
pub(super) fn is_architecture(text: &str) -> bool {
    architecture_named(text).is_some()
}

/// The words of a name that tell GPUs apart, in lower case.
pub(super) fn words(name: &str) -> Vec<String> {
    name.split(|letter: char| !letter.is_ascii_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_ascii_lowercase)
        .filter(|word| !VENDORS.contains(&word.as_str()))
        .collect()
}

/// Whether the words of `pattern` follow each other in `words`, there perhaps written as one: `rtx4090`.
fn contains(words: &[String], pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split(' ').collect();
    let joined = parts.concat();
    words.contains(&joined) || words.windows(parts.len()).any(|window| window == parts)
}

/// Words that say who made a GPU and not which it is.
const VENDORS: [&str; 8] = ["nvidia", "tesla", "geforce", "amd", "instinct", "radeon", "graphics", "oam"];

/// The architectures that are known.
const ARCHITECTURES: &[&str] = &[
    "sm_50", "sm_52", "sm_53", "sm_60", "sm_61", "sm_62", "sm_70", "sm_72", "sm_75", "sm_80", "sm_86",
    "sm_87", "sm_88", "sm_89", "sm_90", "sm_100", "sm_101", "sm_103", "sm_110", "sm_120", "sm_121", "gfx900",
    "gfx906", "gfx908", "gfx90a", "gfx942", "gfx950", "gfx1010", "gfx1030", "gfx1031", "gfx1032", "gfx1100",
    "gfx1101", "gfx1102", "gfx1103", "gfx1150", "gfx1151", "gfx1200", "gfx1201",
];

/// Words of names, in lower case, and the architecture; <https://developer.nvidia.com/cuda-gpus> and
/// <https://rocm.docs.amd.com/en/latest/reference/gpu-arch-specs.html>.
#[rustfmt::skip]
const NAMES: &[(&str, &str)] = &[
    ("p100", "sm_60"), ("gp100", "sm_60"), ("p40", "sm_61"), ("p4", "sm_61"), ("p6", "sm_61"),
    ("gtx 1050", "sm_61"), ("gtx 1060", "sm_61"), ("gtx 1070", "sm_61"), ("gtx 1080", "sm_61"),
    ("titan xp", "sm_61"), ("p1000", "sm_61"), ("p2000", "sm_61"), ("p4000", "sm_61"), ("p5000", "sm_61"),
    ("p6000", "sm_61"),
    ("v100", "sm_70"), ("v100s", "sm_70"), ("gv100", "sm_70"), ("titan v", "sm_70"), ("xavier", "sm_72"),
    ("gtx 1630", "sm_75"), ("gtx 1650", "sm_75"), ("gtx 1660", "sm_75"), ("t400", "sm_75"), ("t600", "sm_75"),
    ("t4", "sm_75"), ("t4g", "sm_75"), ("titan rtx", "sm_75"), ("quadro rtx", "sm_75"), ("t1000", "sm_75"),
    ("rtx 2060", "sm_75"), ("rtx 2070", "sm_75"), ("rtx 2080", "sm_75"),
    ("a100", "sm_80"), ("a100x", "sm_80"), ("a800", "sm_80"), ("a30", "sm_80"), ("a30x", "sm_80"),
    ("a10", "sm_86"), ("a10g", "sm_86"), ("a10m", "sm_86"), ("a16", "sm_86"), ("a2", "sm_86"), ("a40", "sm_86"),
    ("rtx a400", "sm_86"), ("rtx a500", "sm_86"), ("rtx a1000", "sm_86"), ("rtx a3000", "sm_86"),
    ("rtx 2050", "sm_86"), ("a2000", "sm_86"), ("a4500", "sm_86"), ("a5500", "sm_86"),
    ("rtx a2000", "sm_86"), ("rtx a4000", "sm_86"), ("rtx a4500", "sm_86"), ("rtx a5000", "sm_86"),
    ("rtx a5500", "sm_86"), ("rtx a6000", "sm_86"), ("a6000", "sm_86"), ("a5000", "sm_86"), ("a4000", "sm_86"),
    ("rtx 3050", "sm_86"), ("rtx 3060", "sm_86"), ("rtx 3070", "sm_86"), ("rtx 3080", "sm_86"),
    ("rtx 3090", "sm_86"), ("orin", "sm_87"),
    ("l4", "sm_89"), ("l40", "sm_89"), ("l40s", "sm_89"), ("l40g", "sm_89"), ("l20", "sm_89"), ("l2", "sm_89"),
    ("rtx 6000 ada", "sm_89"), ("rtx 5880 ada", "sm_89"), ("rtx 5000 ada", "sm_89"), ("rtx 4500 ada", "sm_89"),
    ("rtx 1000 ada", "sm_89"), ("rtx 3000 ada", "sm_89"), ("rtx 3500 ada", "sm_89"), ("rtx 500 ada", "sm_89"),
    ("rtx 4000 ada", "sm_89"), ("rtx 4000 sff ada", "sm_89"), ("rtx 2000 ada", "sm_89"),
    ("rtx 4050", "sm_89"), ("rtx 4060", "sm_89"), ("rtx 4070", "sm_89"), ("rtx 4080", "sm_89"),
    ("rtx 4090", "sm_89"), ("4090", "sm_89"), ("3090", "sm_86"), ("5090", "sm_120"),
    ("h100", "sm_90"), ("h200", "sm_90"), ("h800", "sm_90"), ("h20", "sm_90"), ("h20z", "sm_90"),
    ("gh200", "sm_90"),
    ("b100", "sm_100"), ("b200", "sm_100"), ("gb200", "sm_100"), ("b300", "sm_103"), ("gb300", "sm_103"),
    ("thor", "sm_110"),
    ("rtx pro", "sm_120"), ("rtx 5050", "sm_120"), ("rtx 5060", "sm_120"), ("rtx 5070", "sm_120"),
    ("rtx 5080", "sm_120"), ("rtx 5090", "sm_120"), ("gb10", "sm_121"),
    ("mi50", "gfx906"), ("mi60", "gfx906"), ("mi100", "gfx908"),
    ("mi210", "gfx90a"), ("mi250", "gfx90a"), ("mi250x", "gfx90a"),
    ("mi300a", "gfx942"), ("mi300x", "gfx942"), ("mi300", "gfx942"), ("mi308x", "gfx942"),
    ("mi325x", "gfx942"), ("mi325", "gfx942"),
    ("mi350x", "gfx950"), ("mi355x", "gfx950"), ("mi350", "gfx950"), ("mi355", "gfx950"),
    ("w6800", "gfx1030"), ("w7900", "gfx1100"), ("rx 7900", "gfx1100"), ("rx 9070", "gfx1201"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_drivers_and_of_people() {
        for (name, architecture) in [
            ("Tesla V100-SXM2-16GB", "sm_70"),
            ("Tesla T4", "sm_75"),
            ("Quadro RTX 6000", "sm_75"),
            ("NVIDIA A100-SXM4-80GB", "sm_80"),
            ("NVIDIA A100 80GB PCIe", "sm_80"),
            ("NVIDIA A100-SXM4-80GB MIG 1g.10gb", "sm_80"),
            ("NVIDIA A30", "sm_80"),
            ("NVIDIA A10", "sm_86"),
            ("NVIDIA A10G", "sm_86"),
            ("NVIDIA RTX A6000", "sm_86"),
            ("NVIDIA GeForce RTX 3090", "sm_86"),
            ("NVIDIA GeForce RTX 3090 Ti", "sm_86"),
            ("NVIDIA L4", "sm_89"),
            ("NVIDIA L40S", "sm_89"),
            ("NVIDIA RTX 6000 Ada Generation", "sm_89"),
            ("NVIDIA GeForce RTX 4090", "sm_89"),
            ("rtx4090", "sm_89"),
            ("NVIDIA H100 80GB HBM3", "sm_90"),
            ("NVIDIA H100 PCIe", "sm_90"),
            ("h100", "sm_90"),
            ("NVIDIA H200", "sm_90"),
            ("NVIDIA GH200 480GB", "sm_90"),
            ("NVIDIA B200", "sm_100"),
            ("NVIDIA GB200", "sm_100"),
            ("NVIDIA B300 SXM6 AC", "sm_103"),
            ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "sm_120"),
            ("NVIDIA GeForce RTX 5090", "sm_120"),
            ("NVIDIA GB10", "sm_121"),
            ("AMD Instinct MI300X", "gfx942"),
            ("AMD Instinct MI250X/MI250", "gfx90a"),
            ("NVIDIA GTX 1080", "sm_61"),
            ("NVIDIA GeForce GTX 1080 Ti", "sm_61"),
            ("gtx1080", "sm_61"),
            ("Tesla P100-PCIE-16GB", "sm_60"),
            ("Tesla P40", "sm_61"),
            ("NVIDIA GeForce RTX 2080 Ti", "sm_75"),
            ("NVIDIA GeForce GTX 1660 Ti", "sm_75"),
            ("NVIDIA RTX A1000", "sm_86"),
            ("NVIDIA A16", "sm_86"),
            ("NVIDIA A2", "sm_86"),
            ("NVIDIA L40", "sm_89"),
            ("NVIDIA GeForce RTX 4060 Laptop GPU", "sm_89"),
            ("NVIDIA GeForce RTX 5070 Ti", "sm_120"),
            ("NVIDIA GB300", "sm_103"),
            ("NVIDIA Thor", "sm_110"),
            ("Orin (nvgpu)", "sm_87"),
            ("AMD Instinct MI210", "gfx90a"),
            ("AMD Instinct MI325X", "gfx942"),
            ("AMD Instinct MI355X", "gfx950"),
            ("90", "sm_90"),
            ("90a", "sm_90"),
            ("sm90", "sm_90"),
            ("100", "sm_100"),
            ("8.9", "sm_89"),
            ("sm_90", "sm_90"),
            ("SM_90a", "sm_90"),
            ("sm100f", "sm_100"),
            ("9.0", "sm_90"),
            ("10.3", "sm_103"),
            ("gfx942:sramecc+:xnack-", "gfx942"),
        ] {
            assert_eq!(architecture_of(name), Some(architecture), "{name}");
        }
    }

    #[test]
    fn unknown_ones() {
        for name in [
            "", "NVIDIA", "Voodoo 2", "sm_", "sm_1000", "9", "9.", ".0", "90.", "1.20", "sm_9.0", "a", "gfx",
            "gfx42", "A1000000", "99.9", "cpu",
        ] {
            assert_eq!(architecture_of(name), None, "{name}");
        }
    }

    #[test]
    fn the_table_names_known_architectures() {
        for (name, architecture) in NAMES {
            assert!(ARCHITECTURES.contains(architecture), "{name}");
            assert_eq!(architecture_of(name), Some(*architecture), "{name}");
            assert_eq!(*name, name.to_ascii_lowercase(), "{name}");
        }
    }
}
