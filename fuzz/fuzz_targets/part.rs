//! Whatever is read as the config of a part can be written and read again, and an image that it makes alone has a digest.
#![no_main]

use libfuzzer_sys::fuzz_target;
use starcar::assemble::{PartConfig, PartsError};

/// The config with the digest that its plan has: no mutation finds it.
fn with_digest(bytes: &[u8]) -> Result<PartConfig, PartsError> {
    match PartConfig::read("fuzz", bytes) {
        Err(PartsError::Damaged { actual, .. }) => {
            let mut config: serde_json::Value =
                serde_json::from_slice(bytes).expect("what was read as a config is JSON");
            config["planDigest"] = actual.to_string().into();
            PartConfig::read("fuzz", &serde_json::to_vec(&config).expect("JSON is written"))
        }
        read => read,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Ok(config) = with_digest(bytes) else { return };
    let written = config.to_json().expect("what is read is written");
    assert_eq!(PartConfig::read("fuzz", &written).expect("what is written is read"), config);
    assert!(config.part().index() <= config.part().of());
    if let Ok(Ok(Some(image))) = config.image() {
        let again = config.image().expect("and again").expect("and again").expect("and again");
        assert_eq!(again.digest, image.digest);
    }
});
