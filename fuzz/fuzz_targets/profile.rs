//! Whatever is read as a profile can be written, read again, merged and shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use starcar::profile::{Merge, Profile, summary, svg};

fuzz_target!(|bytes: &[u8]| {
    let Ok(profile) = Profile::parse("fuzz", bytes) else { return };
    let again = Profile::parse("fuzz", profile.to_json().as_bytes()).expect("what is written is read");
    assert_eq!(profile, again);
    svg("fuzz", &profile, &summary(&profile, &|_| None));
    let mut merge = Merge::new();
    if merge.add("fuzz", profile).is_ok()
        && let Ok(merged) = merge.finish()
    {
        assert_eq!(
            Profile::parse("fuzz", merged.to_json().as_bytes()).expect("what is merged is read"),
            merged
        );
    }
});
