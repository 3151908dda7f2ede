//! Lines of a log, one at a time, whatever its size and whatever is in it. Must not know what lines mean.

use std::io::{self, BufRead, BufReader, Read};

/// Bytes of a line that are looked at; the rest of it is skipped. An engine's configuration takes some thousand.
const LINE_MAX: usize = 64 << 10;
const BUFFER: usize = 256 << 10;

/// What reading a log to its end told.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Lines that there were.
    pub(super) lines: u64,
    /// Why a compressed log ended early, where it was cut off or damaged.
    pub(super) cut: Option<String>,
}

/// Calls `each` with the number (from 1) and the text of every line. Bytes that are no UTF-8 become `U+FFFD`, colours
/// of terminals are taken out, and a progress bar that redraws its line gives a line for each drawing. A gzip stream is
/// known by its first bytes.
///
/// # Errors
/// When the stream cannot be read, or is UTF-16 by its first bytes. Damage in a compressed one, after its first line, ends it instead.
pub(super) fn each_line(stream: impl Read, mut each: impl FnMut(u64, &str)) -> io::Result<Ended> {
    let mut plain = BufReader::with_capacity(BUFFER, stream);
    let packed = loop {
        match plain.fill_buf() {
            Ok(bytes) if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "it is UTF-16; make it UTF-8 first, as with iconv -f UTF-16 -t UTF-8",
                ));
            }
            Ok(bytes) => break bytes.starts_with(&[0x1f, 0x8b]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    };
    if packed {
        let unpacked = flate2::bufread::MultiGzDecoder::new(plain);
        lines_of(&mut BufReader::with_capacity(BUFFER, unpacked), true, &mut each)
    } else {
        lines_of(&mut plain, false, &mut each)
    }
}

fn lines_of(stream: &mut impl BufRead, packed: bool, each: &mut impl FnMut(u64, &str)) -> io::Result<Ended> {
    let mut ended = Ended::default();
    let mut line = Vec::new();
    let mut open = false;
    loop {
        let buffer = match stream.fill_buf() {
            Ok(buffer) => buffer,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            // What came before the damage is as good as any log that was cut off.
            Err(error) if packed && (ended.lines > 0 || open) => {
                ended.cut = Some(error.to_string());
                &[]
            }
            Err(error) => return Err(error),
        };
        if buffer.is_empty() {
            if open {
                ended.lines += 1;
                hand_over(ended.lines, &line, each);
            }
            return Ok(ended);
        }
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let part = buffer.get(..end.unwrap_or(buffer.len())).unwrap_or_default();
        let room = LINE_MAX.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        let used = end.map_or(buffer.len(), |end| end + 1);
        stream.consume(used);
        open = true;
        if end.is_some() {
            ended.lines += 1;
            hand_over(ended.lines, &line, each);
            line.clear();
            open = false;
        }
    }
}

fn hand_over(number: u64, line: &[u8], each: &mut impl FnMut(u64, &str)) {
    for drawing in line.split(|byte| *byte == b'\r').filter(|drawing| !drawing.is_empty()) {
        let text = String::from_utf8_lossy(drawing);
        if text.contains('\u{1b}') {
            each(number, &without_colours(&text));
        } else {
            each(number, &text);
        }
    }
}

/// `text` without the escape sequences of terminals (ECMA-48): `ESC [ … letter`, `ESC ] … BEL`, and `ESC` with one letter.
pub(super) fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            plain.push(letter);
            continue;
        }
        match letters.next() {
            Some('[') => {
                // Parameters and intermediates are 0x20 to 0x3f; what follows ends the sequence.
                while letters.next_if(|letter| ('\u{20}'..='\u{3f}').contains(letter)).is_some() {}
                letters.next_if(|letter| ('\u{40}'..='\u{7e}').contains(letter));
            }
            Some(']') => {
                for letter in letters.by_ref() {
                    if letter == '\u{7}' {
                        break;
                    }
                }
            }
            _ => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn all(bytes: &[u8]) -> (Vec<(u64, String)>, Ended) {
        let mut seen = Vec::new();
        let ended = each_line(bytes, |number, text| seen.push((number, text.to_owned()))).unwrap();
        (seen, ended)
    }

    #[test]
    fn lines_are_bounded_and_never_fail() {
        let long = "x".repeat(LINE_MAX + 5);
        let text = format!("a\r\n{long}\n\u{1b}[1;36m(x)\u{1b}[0m y\n\n10%\r20%\rend");
        let (seen, ended) = all(text.as_bytes());
        assert_eq!(ended.lines, 5);
        assert_eq!(seen[0], (1, "a".to_owned()));
        assert_eq!(seen[1].1.len(), LINE_MAX);
        assert_eq!(seen[2], (3, "(x) y".to_owned()));
        let last: Vec<&str> = seen[3..].iter().map(|line| line.1.as_str()).collect();
        assert_eq!(last, ["10%", "20%", "end"]);
        assert_eq!(all(b"a\xff\xfe\n").0, [(1, "a\u{fffd}\u{fffd}".to_owned())]);
        assert!(each_line(&b"\xff\xfea\0"[..], |_, _| ()).is_err());
        assert!(all(b"").0.is_empty());
    }

    #[test]
    fn compressed_logs_may_be_cut_off() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        for number in 0..5000 {
            writeln!(packed, "line {number} {}", number * 7919 % 4001).unwrap();
        }
        let packed = packed.finish().unwrap();
        assert_eq!(all(&packed).0.len(), 5000);
        let (seen, ended) = all(&packed[..packed.len() / 2]);
        assert!(!seen.is_empty() && seen.len() < 5000);
        assert!(ended.cut.is_some());
    }

    #[test]
    fn escape_sequences() {
        for (text, plain) in [
            ("\u{1b}[0;36ma\u{1b}[0m", "a"),
            ("\u{1b}]0;title\u{7}b", "b"),
            ("\u{1b}[", ""),
            ("c\u{1b}", "c"),
            ("\u{1b}(Bd", "Bd"),
        ] {
            assert_eq!(without_colours(text), plain);
        }
    }
}
