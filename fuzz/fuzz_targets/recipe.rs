//! Whatever is read as a recipe of the digest cache is written as it was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use starcar::digest_cache::Recipe;

fuzz_target!(|bytes: &[u8]| {
    if let Some(recipe) = Recipe::decode(bytes) {
        // Annotations that are given twice, or not in order, are the only bytes with a second form.
        let again = recipe.encode();
        assert_eq!(Recipe::decode(&again).as_ref(), Some(&recipe));
    }
});
