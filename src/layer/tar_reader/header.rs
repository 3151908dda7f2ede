//! The fields of one header block.

use tar::{EntryType, Header};

use super::{
    Block, TarEntry, TarError,
    extension::{self, Extension},
};

/// Where the checksum lies in a header.
const CHECKSUM: std::ops::Range<usize> = 148..156;
/// Where a header of GNU's sparse files says that a list of holes goes on in the next block, and where that block says so.
const MORE_HOLES_FOLLOW: usize = 482;
const MORE_HOLES: usize = 504;

/// Whether the checksum is the sum of the block's bytes, its own field taken as spaces. Old writers summed signed bytes.
pub(super) fn checksum_is_right(block: &Block) -> bool {
    let Some(stated) = block.get(CHECKSUM).and_then(parse) else { return false };
    let bytes =
        || block.iter().enumerate().map(|(index, byte)| if CHECKSUM.contains(&index) { b' ' } else { *byte });
    let unsigned: i64 = bytes().map(i64::from).sum();
    let signed: i64 = bytes().map(|byte| i64::from(byte.cast_signed())).sum();
    stated == unsigned || stated == signed
}

/// Whether a sparse file's header says that its list of holes goes on.
pub(super) fn more_holes_follow(block: &Block) -> bool {
    block.get(MORE_HOLES_FOLLOW).is_some_and(|flag| *flag != 0)
}

/// Whether a block of a list of holes says that the list goes on.
pub(super) fn more_holes(block: &Block) -> bool {
    block.get(MORE_HOLES).is_some_and(|flag| *flag != 0)
}

/// The number in a field of a header that begins at byte `at`.
pub(super) fn number(field: &[u8], name: &'static str, at: u64, entry: &[u8]) -> Result<i64, TarError> {
    parse(field).ok_or_else(|| no(field, name, at, entry, "number"))
}

fn no(value: &[u8], field: &'static str, at: u64, name: &[u8], wanted: &'static str) -> TarError {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    TarError::Field { at, name: text(name), field, value: text(value), wanted }
}

/// A number in octal digits or, when the first bit is set, in binary (GNU). Nothing at all is 0, as Go has it.
fn parse(field: &[u8]) -> Option<i64> {
    let first = *field.first()?;
    if first & 0x80 != 0 {
        // Two's complement, the first bit being the mark.
        let mut value: i128 = if first & 0x40 == 0 { 0 } else { -1 };
        for (index, byte) in field.iter().take(16).enumerate() {
            let byte = if index == 0 && value == 0 { byte & 0x7f } else { *byte };
            value = value.checked_mul(256)?.checked_add(i128::from(byte))?;
        }
        return i64::try_from(value).ok();
    }
    let text = field.split(|byte| *byte == 0).find(|part| !part.is_empty()).unwrap_or_default();
    let digits = text.trim_ascii();
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    digits.iter().try_fold(0_i64, |value, digit| value.checked_mul(8)?.checked_add(i64::from(digit - b'0')))
}

/// The entry that a header and the extended headers before it describe; its first header begins at byte `at`.
/// Where its payload begins is left to the caller.
pub(super) fn entry(header: &Header, extension: Extension, at: u64) -> Result<TarEntry, TarError> {
    let old = header.as_old();
    let owned =
        |key: &str, field: &dyn Fn() -> Vec<u8>| extension.get(key).map_or_else(field, <[u8]>::to_vec);
    let name = owned("path", &|| header.path_bytes().into_owned());
    let unsigned = |key: &'static str, field: &[u8]| match extension.get(key) {
        Some(value) => std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| no(value, key, at, &name, "number")),
        None => u64::try_from(number(field, key, at, &name)?)
            .map_err(|_| no(field, key, at, &name, "number of this kind")),
    };
    let mut kind = header.entry_type();
    // From before directories had a type of their own.
    if old.linkflag == [0] && name.ends_with(b"/") {
        kind = EntryType::Directory;
    }
    let (modified, modified_nanos) = match extension.get("mtime") {
        Some(value) => extension::time(value).ok_or_else(|| no(value, "mtime", at, &name, "time"))?,
        None => (number(&old.mtime, "mtime", at, &name)?, 0),
    };
    let has_no_payload = kind.is_hard_link()
        || kind.is_symlink()
        || kind.is_character_special()
        || kind.is_block_special()
        || kind.is_dir()
        || kind.is_fifo();
    let size = unsigned("size", &old.size)?;
    let device = |ustar: fn(&tar::UstarHeader) -> &[u8; 8], gnu: fn(&tar::GnuHeader) -> &[u8; 8], key| {
        if !(kind.is_character_special() || kind.is_block_special()) {
            return Ok(0);
        }
        let field = header.as_ustar().map(ustar).or_else(|| header.as_gnu().map(gnu));
        field.map_or(Ok(0), |field| unsigned(key, field))
    };
    let is_link = kind.is_hard_link() || kind.is_symlink();
    Ok(TarEntry {
        size: if has_no_payload { 0 } else { size },
        mode: unsigned("mode", &old.mode)?,
        uid: unsigned("uid", &old.uid)?,
        gid: unsigned("gid", &old.gid)?,
        user: owned("uname", &|| header.username_bytes().unwrap_or_default().to_vec()),
        group: owned("gname", &|| header.groupname_bytes().unwrap_or_default().to_vec()),
        modified,
        modified_nanos,
        link: if is_link {
            owned("linkpath", &|| header.link_name_bytes().unwrap_or_default().into_owned())
        } else {
            Vec::new()
        },
        dev_major: device(|header| &header.dev_major, |header| &header.dev_major, "devmajor")?,
        dev_minor: device(|header| &header.dev_minor, |header| &header.dev_minor, "devminor")?,
        sparse: kind.is_gnu_sparse() || extension.is_sparse(),
        xattrs: extension.into_xattrs(),
        kind,
        header_at: at,
        payload_at: at,
        name,
    })
}
