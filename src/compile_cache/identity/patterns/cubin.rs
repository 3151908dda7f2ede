//! Headers of machine code for NVIDIA's GPUs. Must not know where they come from.
//!
//! Source: what ptxas 12.9 and 13.3 write for `sm_75` to `sm_120`; `EF_CUDA_*` in `llvm/BinaryFormat/ELF.h`. Up to
//! Hopper ptxas 12 writes ABI 7, whose flags have the architecture in their lowest byte; later ones write ABI 8, which
//! has it in the second.

use super::{Attribute, Cursor, Sight, value};

/// Reads what follows `\x7fELF`. Letters (`sm_90a`) are left out: not every ptxas sets the flag for them.
pub(super) fn read(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    // 64 bits, little-endian, version 1, of an executable or a part of one.
    let identity: [u8; 12] = cursor.bytes(12)?.try_into().ok()?;
    let header: [u8; 48] = cursor.bytes(48)?.try_into().ok()?;
    let half = |at: usize| u16::from_le_bytes([header[at], header[at + 1]]);
    let (object_type, machine, header_size) = (half(0), half(2), half(36));
    // EM_CUDA; nothing else has that number and such flags.
    if !matches!(object_type, 1 | 2) || machine != 190 || header_size != 64 || identity[..3] != [2, 1, 1] {
        return None;
    }
    let architecture = match (identity[3], identity[4]) {
        (0x33, 7) => header[32],
        (0x41, 8) => header[33],
        _ => return None,
    };
    (50..=150).contains(&architecture).then(|| {
        vec![value(Attribute::Backend, "cuda"), value(Attribute::Architecture, format!("sm_{architecture}"))]
    })
}
