//! Merging of profiles.

use super::{Folder, Profile};

/// One profile of several, folded: a file is placed by its earliest access in any of them.
pub fn merge(profiles: Vec<Profile>) -> Profile {
    let mut profiles = profiles.into_iter();
    let Some(mut merged) = profiles.next() else { return Profile::default() };
    let mut folder = Folder::new();
    merged.accesses.iter().for_each(|access| folder.access(access));
    for profile in profiles {
        profile.accesses.iter().for_each(|access| folder.access(access));
        merged.recordings.extend(profile.recordings);
    }
    merged.accesses = folder.finish().accesses;
    merged
}
