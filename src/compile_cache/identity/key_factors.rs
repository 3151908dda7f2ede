//! `cache_key_factors.json`, in which vLLM notes what a key was made from. Must not know what follows from a factor.
//!
//! Source: `vllm/compilation/backends.py` of vLLM 0.33; the variables are in `compile_factors` of `vllm/envs.py`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::{Attribute, Evidence, settle::Sightings};

/// Name of the file.
pub(super) const NAME: &str = "cache_key_factors.json";
/// Largest file that is read, in bytes; real ones have 8 KB.
pub(super) const SIZE_MAX: u64 = 1 << 20;

/// Variables that are shown. The file may hold secrets: up to vLLM 0.12 the API key was among them.
const SHOWN: [&str; 8] = [
    "VLLM_TARGET_DEVICE",
    "VLLM_MAIN_CUDA_VERSION",
    "VLLM_USE_AOT_COMPILE",
    "VLLM_USE_MEGA_AOT_ARTIFACT",
    "VLLM_USE_STANDALONE_COMPILE",
    "VLLM_COMPILE_CACHE_SAVE_FORMAT",
    "VLLM_DP_SIZE",
    "VLLM_PP_LAYER_PARTITION",
];

#[derive(Deserialize)]
struct Factors {
    config_hash: Option<String>,
    code_hash: Option<String>,
    compiler_hash: Option<String>,
    #[serde(default)]
    env: BTreeMap<String, Value>,
}

/// Notes the factors in a file's text; nothing where it is not what vLLM writes.
pub(super) fn note(text: &[u8], path: &str, sightings: &mut Sightings) {
    let Ok(factors) = serde_json::from_slice::<Factors>(text) else { return };
    let mut add = |attribute, value: String, found: String| {
        sightings.add(attribute, value, Evidence { path: path.to_owned(), found, offset: None });
    };
    for (name, hash) in [
        ("config_hash", &factors.config_hash),
        ("code_hash", &factors.code_hash),
        ("compiler_hash", &factors.compiler_hash),
    ] {
        let hash = hash.as_deref().filter(|hash| is_hash(hash));
        if let Some(hash) = hash {
            add(Attribute::KeyFactor, format!("{name}={hash}"), format!("\"{name}\": \"{hash}\""));
        }
    }
    for name in SHOWN {
        let value = match factors.env.get(name) {
            Some(Value::String(text)) => super::excerpt::excerpt(text.as_bytes()),
            Some(value @ (Value::Bool(_) | Value::Number(_))) => value.to_string(),
            _ => continue,
        };
        add(Attribute::KeyFactor, format!("{name}={value}"), format!("env: {name} = {value}"));
        // 1 is what it is where the size was given by an option, which leaves the variable alone.
        if name == "VLLM_DP_SIZE" && value.parse::<u32>().is_ok_and(|size| size > 1) {
            add(Attribute::DataParallel, value.clone(), format!("env: {name} = {value}"));
        }
    }
}

fn is_hash(text: &str) -> bool {
    (8..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile_cache::identity::{Identity, settle::settle};

    fn noted(text: &str) -> Identity {
        let mut sightings = Sightings::default();
        note(text.as_bytes(), "f.json", &mut sightings);
        settle(sightings)
    }

    #[test]
    fn hashes_and_chosen_variables_are_noted() {
        let identity = noted(
            r#"{"config_hash": "2a3882727d", "code_hash": "no hash", "env": {"VLLM_DP_SIZE": 4,
            "VLLM_API_KEY": "secret", "VLLM_TARGET_DEVICE": "cu\u001bda", "VLLM_USE_AOT_COMPILE": false}}"#,
        );
        let factors: Vec<_> =
            identity.facts(Attribute::KeyFactor).iter().map(|fact| fact.value.as_str()).collect();
        assert_eq!(
            factors,
            [
                "config_hash=2a3882727d",
                "VLLM_TARGET_DEVICE=cu?da",
                "VLLM_USE_AOT_COMPILE=false",
                "VLLM_DP_SIZE=4"
            ]
        );
        assert_eq!(identity.only(Attribute::DataParallel), Some("4"));
        // It names a device that vLLM was set to, and that is the default.
        assert_eq!(identity.facts(Attribute::Backend), []);
    }

    #[test]
    fn anything_else_says_nothing() {
        let nested = format!("{{\"env\":{}", "[".repeat(500_000));
        let one = r#"{"env": {"VLLM_DP_SIZE": 1}}"#;
        for text in ["", "[]", "null", "{\"env\": 3}", "{\"config_hash\": 4}", &nested] {
            assert_eq!(noted(text).iter().count(), 0, "{}", &text[..text.len().min(40)]);
        }
        assert_eq!(noted(one).facts(Attribute::DataParallel), []);
    }
}
