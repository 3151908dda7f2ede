//! Whatever is imported, as whichever format, is a profile that can be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use starcar::profile::{
    Profile,
    import::{ImportFormat, ImportOptions, import},
};

fuzz_target!(|bytes: &[u8]| {
    for format in [None, Some(ImportFormat::Strace), Some(ImportFormat::CtrRemote)] {
        let options = ImportOptions { format, ..ImportOptions::default() };
        if let Ok(imported) = import("fuzz", bytes, &options) {
            let text = imported.profile.to_json();
            assert_eq!(
                Profile::parse("fuzz", text.as_bytes()).expect("what is imported is read"),
                imported.profile
            );
        }
    }
});
