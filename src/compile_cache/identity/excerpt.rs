//! Text of a cache for people's eyes and terminals: short and without control characters. Must not know what it says.

/// Longest excerpt in bytes.
pub(super) const EXCERPT_MAX: usize = 120;

/// The beginning of a piece of a file. What is not printable ASCII becomes a space or `?`, as no such text that is
/// looked for has any, and a terminal obeys some.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().min(EXCERPT_MAX));
    for &byte in bytes.iter().take(EXCERPT_MAX) {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            b'\n' | b'\r' | b'\t' => text.push(' '),
            _ => text.push('?'),
        }
    }
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_is_short_and_tame() {
        assert_eq!(excerpt(b".version 8.7\n.target sm_75\n"), ".version 8.7 .target sm_75");
        assert_eq!(excerpt(b"\x1b[31mred\x00"), "?[31mred?");
        assert_eq!(excerpt("a\u{202e}b".as_bytes()), "a???b");
        assert_eq!(excerpt(&[b'x'; 1000]).len(), EXCERPT_MAX);
    }
}
