//! Whatever is read as a table of contents can be written and read again, and the files that it lists lie in the
//! layer without a gap. The first four bytes say where the table begins in the layer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use starcar::{
    digest::Digest,
    estargz::{EstargzReader, File, Files, toc::Toc},
    members::MemberKind,
};

fn assert_sound(file: &File, toc_offset: u64) {
    let mut end = 0;
    for chunk in &file.chunks {
        assert_eq!(chunk.offset, end);
        assert!(chunk.length > 0);
        assert!(chunk.member < chunk.member_end && chunk.member_end <= toc_offset);
        end = chunk.offset.checked_add(chunk.length).expect("a chunk ends within its file");
    }
    assert_eq!(end, file.size);
}

fuzz_target!(|bytes: &[u8]| {
    let Some((offset, json)) = bytes.split_first_chunk() else { return };
    let toc_offset = u64::from(u32::from_le_bytes(*offset));
    let Ok(toc) = serde_json::from_slice::<Toc>(json) else { return };
    let written = serde_json::to_vec(&toc).expect("what is read is written");
    assert_eq!(serde_json::from_slice::<Toc>(&written).expect("what is written is read"), toc);

    let listed = toc.entries.len();
    let reader = EstargzReader {
        kind: MemberKind::Gzip,
        toc,
        toc_digest: Digest::of(json),
        toc_offset,
        is_legacy: false,
        trailing: 0,
        table: None,
    };
    let Ok(files) = Files::of(&reader) else { return };
    assert!(files.iter().map(|(_, file)| file.chunks.len()).sum::<usize>() <= listed);
    for (path, file) in files.iter() {
        assert_sound(file, toc_offset);
        assert_eq!(files.get(path), Some(file));
    }
});
