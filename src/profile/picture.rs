//! A profile as a picture: a row for each file, time from left to right, bars where it is read. One SVG without
//! scripts, and a page around it. Must not know where it is written.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
};

use super::{AccessKind, FileSummary, Profile, Seconds, Summary, Target, Tree};

/// Rows that are drawn; what follows is counted.
const ROWS_MAX: usize = 300;
/// Rows that are drawn tall, so that the place in the file can be seen.
const TALL_MAX: usize = 40;
const WIDTH: f64 = 1280.0;
/// Where the time axis begins and ends.
const LEFT: f64 = 330.0;
const RIGHT: f64 = 1150.0;
const TOP: f64 = 112.0;
const ROW: f64 = 20.0;
const ROW_TALL: f64 = 60.0;
/// Narrowest and lowest bar.
const BAR_MIN: f64 = 2.0;
/// A time without accesses that is pointed out: this part of the whole.
const PAUSE: f64 = 0.08;
/// Letters of a name.
const NAME_MAX: usize = 40;
/// Colours of trees: the model and then caches, by name.
const TREES: usize = 4;

const STYLE: &str = "\
svg{font:12px system-ui,'DejaVu Sans',sans-serif;background:#fff}\
text{fill:#1f2328}.dim{fill:#59636e}.title{font-size:16px;font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}\
.row{fill:#f6f8fa}.grid{stroke:#d1d9e0}.track{fill:#d8dee4;opacity:.6}.pause{fill:#fbf1d3;opacity:.7}\
.t0{fill:#0969da}.t1{fill:#bc4c00}.t2{fill:#8250df}.t3{fill:#1a7f37}.open{stroke:#1f2328;stroke-width:1.5}\
.no{stroke:#cf222e;stroke-width:1.5}\
@media (prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3}.dim{fill:#9198a1}.row{fill:#151b23}\
.grid{stroke:#3d444d}.track{fill:#30363d}.pause{fill:#33290f}.t0{fill:#4493f8}.t1{fill:#f0883e}.t2{fill:#ab7df8}\
.t3{fill:#3fb950}.open{stroke:#e6edf3}.no{stroke:#f85149}}";

/// A page with the picture of a profile. `title` says what it is.
pub fn html(title: &str, profile: &Profile, summary: &Summary) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n\
         <style>:root{{color-scheme:light dark}}body{{margin:16px;background:#fff}}svg{{max-width:100%;height:auto}}\
         @media (prefers-color-scheme:dark){{body{{background:#0d1117}}}}</style></head>\n<body>\n{}</body></html>\n",
        escaped(title),
        svg(title, profile, summary)
    )
}

/// The picture of a profile. `title` says what it is; `summary` is that of the profile.
pub fn svg(title: &str, profile: &Profile, summary: &Summary) -> String {
    let picture = Picture::new(profile, summary);
    let mut body = String::new();
    picture.head(&mut body, title);
    picture.pauses(&mut body);
    picture.axis(&mut body);
    for (row, file) in picture.rows.iter().zip(&summary.files) {
        picture.row(&mut body, row, file);
    }
    let bottom = picture.foot(&mut body);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {bottom:.0}\" width=\"{WIDTH}\" \
         height=\"{bottom:.0}\" role=\"img\">\n<title>{}</title><style>{STYLE}</style>\n{body}</svg>\n",
        escaped(title)
    )
}

struct Picture<'a> {
    profile: &'a Profile,
    summary: &'a Summary,
    rows: Vec<Row<'a>>,
    /// The caches' names, for colours.
    caches: Vec<&'a str>,
    /// Seconds that the axis is long.
    span: f64,
    /// Below the last row.
    bottom: f64,
}

struct Row<'a> {
    top: f64,
    height: f64,
    /// Bytes that the height stands for; `None` where bars are as high as the row.
    extent: Option<u64>,
    /// Positions of the row's accesses in the profile.
    accesses: Vec<usize>,
    file: &'a FileSummary,
}

impl<'a> Picture<'a> {
    fn new(profile: &'a Profile, summary: &'a Summary) -> Self {
        let mut tall: Vec<(u64, usize)> = summary
            .files
            .iter()
            .take(ROWS_MAX)
            .enumerate()
            .filter_map(|(index, file)| Some((file.bytes?, index)))
            .filter(|(bytes, _)| {
                *bytes > 1 << 16 && (*bytes > 64 << 20 || bytes.saturating_mul(25) > summary.bytes)
            })
            .collect();
        tall.sort_unstable_by(|a, b| b.cmp(a));
        let tall: HashSet<usize> = tall.into_iter().take(TALL_MAX).map(|(_, index)| index).collect();
        let mut bottom = TOP;
        let mut rows = Vec::new();
        let mut known = HashMap::new();
        for (index, file) in summary.files.iter().take(ROWS_MAX).enumerate() {
            let is_tall = tall.contains(&index);
            let height = if is_tall { ROW_TALL } else { ROW };
            let end = file.covered.iter().last().map_or(0, super::ByteRange::end);
            let extent = is_tall.then_some(file.size.unwrap_or(end).max(end)).filter(|extent| *extent > 0);
            known.insert((&file.tree, &file.target), index);
            rows.push(Row { top: bottom, height, extent, accesses: Vec::new(), file });
            bottom += height;
        }
        for (position, access) in profile.accesses.iter().enumerate() {
            if access.kind != AccessKind::Missing
                && let Some(&index) = known.get(&(&access.tree, &access.target))
            {
                rows[index].accesses.push(position);
            }
        }
        let mut caches: Vec<&str> = summary
            .files
            .iter()
            .filter_map(|file| if let Tree::Cache(name) = &file.tree { Some(name.as_str()) } else { None })
            .collect();
        caches.sort_unstable();
        caches.dedup();
        Self { profile, summary, rows, caches, span: summary.end.get().max(0.001), bottom }
    }

    fn x(&self, at: Seconds) -> f64 {
        LEFT + at.get() / self.span * (RIGHT - LEFT)
    }

    fn colour(&self, tree: &Tree) -> usize {
        match tree {
            Tree::Model => 0,
            Tree::Cache(name) => {
                1 + self.caches.iter().position(|known| known == name).unwrap_or(0) % (TREES - 1)
            }
        }
    }

    fn head(&self, body: &mut String, title: &str) {
        text(body, "title", 12.0, 26.0, &shortened(title, 120));
        let Summary { files, missing, bytes, end } = self.summary;
        let line = format!(
            "{} files in the order of their first accesses, {} read within {:.1} s; {} more were looked for and not \
             there",
            files.len(),
            size(*bytes),
            end.get(),
            missing.len()
        );
        text(body, "dim", 12.0, 46.0, &line);
        let mut x = 12.0;
        let mut entry = |body: &mut String, mark: &str, words: &str| {
            let _ = write!(body, "<g transform=\"translate({x:.0} 58)\">{mark}</g>");
            text(body, "", x + 18.0, 68.0, words);
            // Letters of the usual fonts are not wider than this.
            x += 34.0 + 7.0 * f64::from(u32::try_from(words.chars().count()).unwrap_or(0));
        };
        entry(body, "<rect class=\"t0\" width=\"12\" height=\"12\"/>", "model read");
        for name in self.caches.iter().take(TREES - 1) {
            let class = self.colour(&Tree::Cache((*name).to_owned()));
            let mark = format!("<rect class=\"t{class}\" width=\"12\" height=\"12\"/>");
            entry(body, &mark, &format!("cache {} read", shortened(name, 20)));
        }
        entry(body, "<path class=\"open\" d=\"M6 0V12\"/>", "opened");
        if self.rows.iter().any(|row| row.extent.is_some()) {
            let mark = "<rect class=\"track\" width=\"12\" height=\"12\"/><rect class=\"t0\" y=\"3\" width=\"12\" height=\"3\"/>";
            entry(
                body,
                mark,
                "in a tall row the height is the file: its first byte at the top, its last at the bottom",
            );
        }
    }

    /// Long times without any access.
    fn pauses(&self, body: &mut String) {
        let mut position = Seconds::ZERO;
        for access in &self.profile.accesses {
            let pause = access.at.since(position).get();
            if pause > self.span * PAUSE {
                // A gap at both ends keeps two pauses apart that only a moment parts.
                let (from, to) = (self.x(position) + 1.5, self.x(access.at) - 1.5);
                let _ = writeln!(
                    body,
                    "<rect class=\"pause\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"/>",
                    TOP - 4.0,
                    to - from,
                    self.bottom + 4.0 - TOP
                );
                let words = if to - from > 90.0 { "nothing read for " } else { "" };
                text(body, "dim mid", f64::midpoint(from, to), TOP - 8.0, &format!("{words}{pause:.1} s"));
            }
            position = position.max(access.until.unwrap_or(access.at));
        }
    }

    fn axis(&self, body: &mut String) {
        let step = step(self.span);
        let mut tick = 0.0;
        while tick <= self.span * 1.0001 {
            let x = LEFT + tick / self.span * (RIGHT - LEFT);
            let label = if step < 0.01 {
                format!("{tick:.3} s")
            } else if step < 1.0 {
                format!("{tick:.2} s")
            } else {
                format!("{tick:.0} s")
            };
            let _ = writeln!(
                body,
                "<path class=\"grid\" d=\"M{x:.1} {:.0}V{:.0}\"/>",
                TOP - 4.0,
                self.bottom + 24.0
            );
            text(body, "dim mid", x, TOP - 22.0, &label);
            text(body, "dim mid", x, self.bottom + 38.0, &label);
            tick += step;
        }
        text(body, "dim end", WIDTH - 12.0, TOP - 22.0, "bytes read");
    }

    fn row(&self, body: &mut String, row: &Row<'_>, file: &FileSummary) {
        let name = file.name();
        let middle = row.top + row.height / 2.0 + 4.0;
        let read = read_text(file);
        let _ = write!(body, "<g><title>{}", escaped(&name));
        let _ = write!(
            body,
            "\nplace {}, first access at {} s, last at {} s\n{read}{}</title>",
            file.place + 1,
            file.first,
            file.last,
            match file.ranges {
                ranges if file.whole || ranges < 2 => String::new(),
                ranges => format!(" in {ranges} ranges"),
            }
        );
        let margin = 2.0;
        if row.extent.is_some() {
            rectangle(
                body,
                "track",
                (LEFT, row.top + margin),
                (RIGHT - LEFT, row.height - 2.0 * margin),
                None,
            );
        }
        let _ = write!(
            body,
            "<path class=\"grid\" d=\"M12 {:.1}H{:.0}\" opacity=\".5\"/>",
            row.top + row.height,
            WIDTH - 12.0
        );
        text(body, "end", LEFT - 10.0, middle, &shortened(&name, NAME_MAX));
        text(body, "dim end", WIDTH - 12.0, middle, &read);
        body.push_str("</g>\n");
        self.bars(body, row, margin);
    }

    fn bars(&self, body: &mut String, row: &Row<'_>, margin: f64) {
        let class = format!("t{}", self.colour(&row.file.tree));
        let (top, height) = (row.top + margin, row.height - 2.0 * margin);
        // What falls onto the same spot is drawn once, so that a picture has no more bars than a screen shows.
        let mut drawn = HashSet::new();
        for access in row.accesses.iter().filter_map(|position| self.profile.accesses.get(*position)) {
            let from = self.x(access.at);
            let until = access.until.unwrap_or(access.at);
            if access.kind == AccessKind::Open {
                let _ = write!(
                    body,
                    "<path class=\"open\" d=\"M{from:.1} {top:.1}v{height:.1}\"><title>opened at {} s</title></path>",
                    access.at
                );
                continue;
            }
            let width = (self.x(until) - from).max(BAR_MIN);
            let mut bar = |y: f64, high: f64, what: &str| {
                let spot = [from * 2.0, width * 2.0, y * 2.0, high * 2.0].map(|part| format!("{part:.0}"));
                if drawn.insert(spot) {
                    let title = format!("{what}, {} s to {until} s", access.at);
                    rectangle(body, &class, (from, y), (width, high), Some(&title));
                }
            };
            if access.ranges.is_empty() {
                bar(top, height, "all of it");
            }
            if row.extent.is_none() && access.ranges.len() > 1 {
                let total = access.ranges.iter().fold(0, |sum: u64, range| sum.saturating_add(range.length));
                bar(top, height, &format!("{} in {} ranges", size(total), access.ranges.len()));
                continue;
            }
            for range in &access.ranges {
                let what = format!("{} at byte {}", size(range.length), range.offset);
                match row.extent {
                    None => bar(top, height, &what),
                    Some(extent) => {
                        let high = (part(range.length, extent) * height).max(BAR_MIN);
                        let y = (part(range.offset, extent) * height).min(height - high);
                        bar(top + y.max(0.0), high, &what);
                    }
                }
            }
        }
        body.push('\n');
    }

    /// What has no row, and what was not there. Returns the height of the picture.
    fn foot(&self, body: &mut String) -> f64 {
        let mut y = self.bottom;
        if !self.summary.missing.is_empty() {
            text(
                body,
                "dim end",
                LEFT - 10.0,
                y + 16.0,
                &match self.summary.missing.len() {
                    1 => "not there (1 name)".to_owned(),
                    names => format!("not there ({names} names)"),
                },
            );
            let mut drawn = HashSet::new();
            for file in &self.summary.missing {
                let x = self.x(file.first);
                if drawn.insert(format!("{x:.0}")) {
                    let _ = writeln!(
                        body,
                        "<path class=\"no\" d=\"M{:.1} {:.1}l8 8m0 -8l-8 8\"><title>{} not found at {} s</title></path>",
                        x - 4.0,
                        y + 8.0,
                        escaped(&file.name()),
                        file.first
                    );
                }
            }
        }
        y += 56.0;
        let hidden = &self.summary.files[self.rows.len()..];
        if !hidden.is_empty() {
            let bytes: u64 = hidden.iter().filter_map(|file| file.bytes).sum();
            text(body, "", 12.0, y, &format!("and {} more files, {} read", hidden.len(), size(bytes)));
            y += 18.0;
        }
        y
    }
}

/// `12.3 MiB`, `all`, `8 B of *.safetensors`.
fn read_text(file: &FileSummary) -> String {
    match (file.bytes, file.size) {
        (None, _) => "all".to_owned(),
        (Some(bytes), Some(size_of_file)) if size_of_file > 0 => {
            format!("{} ({:.0} %)", size(bytes), part(bytes, size_of_file) * 100.0)
        }
        (Some(bytes), _) if matches!(file.target, Target::Glob(_)) => format!("{} each", size(bytes)),
        (Some(bytes), _) => size(bytes),
    }
}

pub(crate) fn rectangle(
    body: &mut String,
    class: &str,
    at: (f64, f64),
    size: (f64, f64),
    title: Option<&str>,
) {
    let _ = write!(
        body,
        "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"",
        at.0, at.1, size.0, size.1
    );
    let _ = match title {
        Some(title) => write!(body, "><title>{}</title></rect>", escaped(title)),
        None => write!(body, "/>"),
    };
}

pub(crate) fn text(body: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let _ = writeln!(body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(words));
}

/// `bytes` as a part of `whole`, which is not zero.
pub(crate) fn part(bytes: u64, whole: u64) -> f64 {
    // Pixels and percent are all that is shown.
    #[expect(clippy::cast_precision_loss)]
    let part = bytes as f64 / whole as f64;
    part
}

/// Seconds between two ticks: 1, 2 or 5 times a power of ten, about ten of them.
pub(crate) fn step(span: f64) -> f64 {
    let rough = span / 10.0;
    let power = 10_f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= rough).unwrap_or(10.0);
    factor * power
}

/// A text without its middle, if it is too long: ends tell files apart.
pub(crate) fn shortened(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let (head, tail) = (most / 3, most - most / 3 - 1);
    let head: String = text.chars().take(head).collect();
    let tail: String = text.chars().skip(length - tail).collect();
    format!("{head}…{tail}")
}

/// A size for people, rounded down.
pub(crate) fn size(bytes: u64) -> String {
    let Some((shift, unit)) = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes >> shift > 0)
    else {
        return format!("{bytes} B");
    };
    let tenths = (u128::from(bytes) * 10) >> shift;
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// A text that is a text in XML and HTML, whatever is in it.
pub(crate) fn escaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '"' => plain.push_str("&quot;"),
            '\'' => plain.push_str("&#39;"),
            '\n' => plain.push('\n'),
            // XML has no way to write most of them; marks of direction would turn what follows around.
            letter
                if letter.is_control()
                    || matches!(letter, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{fffe}' | '\u{ffff}') =>
            {
                plain.push('\u{fffd}');
            }
            letter => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests;
