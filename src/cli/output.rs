//! Printing: data on standard output, words on standard error.

use std::{
    borrow::Cow,
    error::Error,
    fmt::Write as _,
    io::{self, IsTerminal, Write},
};

use super::CliError;

/// Writes data to standard output.
///
/// That whoever reads it has seen enough is no failure: what is still to be done is done, and the command's own answer
/// stays its exit code.
pub(super) fn data(text: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| if text.ends_with('\n') { Ok(()) } else { stdout.write_all(b"\n") })
        .and_then(|()| stdout.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(CliError::stdout),
    }
}

/// Writes a document to standard output as JSON.
pub(super) fn json(value: &impl serde::Serialize) -> Result<(), CliError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CliError::Output { what: "the answer".to_owned(), cause: error.into() })?;
    data(&text)
}

/// Writes words to standard error, control characters but line breaks escaped.
pub(super) fn words(line: &str) {
    styled(&escaped_lines(line));
}

/// Writes words that have no control characters but those of [`style`]. Nobody can be told when that fails.
fn styled(line: &str) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// `text` with control characters escaped: names and values come from images and caches of others, and a terminal
/// would do what they say.
pub(super) fn escaped(text: &str) -> Cow<'_, str> {
    escaped_where(text, char::is_control)
}

/// As [`escaped`], of a text that may have several lines.
fn escaped_lines(text: &str) -> Cow<'_, str> {
    escaped_where(text, |letter| letter.is_control() && letter != '\n')
}

fn escaped_where(text: &str, wanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&wanted) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if wanted(letter) {
            escaped.extend(letter.escape_debug());
        } else {
            escaped.push(letter);
        }
    }
    Cow::Owned(escaped)
}

/// Writes a warning to standard error.
pub(super) fn warning(text: &str) {
    styled(&format!("{} {}", style("warning:", "33"), escaped_lines(text)));
}

/// Writes an error with its causes, and the next step if there is one, to standard error.
pub(super) fn error(error: &dyn Error, hint: Option<String>) {
    let mut last = error.to_string();
    let mut text = format!("{} {}", style("error:", "31"), escaped_lines(&last));
    let mut cause = error.source();
    while let Some(current) = cause {
        let message = current.to_string();
        // A cause that its error quotes already tells nothing new.
        if !last.contains(&message) {
            let _ = write!(text, "\n  {} {}", style("caused by:", "31"), escaped_lines(&message));
        }
        last = message;
        cause = current.source();
    }
    if let Some(hint) = hint {
        let _ = write!(text, "\n{} {}", style("hint:", "36"), escaped_lines(&hint));
    }
    styled(&text);
}

/// `text`, bold and in an ANSI colour where a person looks.
fn style(text: &str, colour: &str) -> String {
    let wanted =
        io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted { format!("\u{1b}[1;{colour}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// A size for people, in powers of 1024: `4.2 MiB`.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of a unit are all that is shown.
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

/// A number of things: `1 file`, `2 files`.
pub(super) fn count(number: usize, thing: &str) -> String {
    format!("{number} {thing}{}", if number == 1 { "" } else { "s" })
}

/// Rows with aligned columns; a column is as wide as its widest cell, the last one as it comes. Cells are
/// [`escaped`].
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<Cow<'_, str>>> =
        rows.iter().map(|row| row.iter().map(|cell| escaped(cell)).collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (4_194_647, "4.0 MiB"),
            (140 << 30, "140.0 GiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 2]| cells.map(str::to_owned).to_vec();
        assert_eq!(table(&[row(["a", "b"]), row(["longer", ""])]), "a       b\nlonger\n");
        assert_eq!(table(&[row(["a\n", "\u{1b}[2J"]), row(["b", "c"])]), "a\\n  \\u{1b}[2J\nb    c\n");
    }

    #[test]
    fn terminals_are_told_nothing() {
        for (text, one_line, lines) in [
            ("größer 模型 \\ 'x' \"y\"", "größer 模型 \\ 'x' \"y\"", "größer 模型 \\ 'x' \"y\""),
            ("\u{1b}]0;x\u{7}", "\\u{1b}]0;x\\u{7}", "\\u{1b}]0;x\\u{7}"),
            ("\u{9b}2J\u{7f}", "\\u{9b}2J\\u{7f}", "\\u{9b}2J\\u{7f}"),
            ("a\r\nb\tc\0", "a\\r\\nb\\tc\\0", "a\\r\nb\\tc\\0"),
        ] {
            assert_eq!(escaped(text), one_line);
            assert_eq!(escaped_lines(text), lines);
            assert_eq!(escaped(&escaped(text)), one_line, "twice");
        }
    }
}
