//! A replay as a picture: a row for each layer, time from left to right, a bar for each request where its bytes lie in the
//! layer. One SVG without scripts. Must not know where it is written.

use std::{collections::HashSet, fmt::Write as _};

use super::{Cause, Replay};
use crate::profile::picture::{escaped, part, rectangle, shortened, size, step, text};

/// Rows that are drawn; what follows is counted.
const ROWS_MAX: usize = 150;
const WIDTH: f64 = 1280.0;
/// Where the time axis begins and ends.
const LEFT: f64 = 330.0;
const RIGHT: f64 = 1150.0;
const TOP: f64 = 112.0;
const ROW: f64 = 52.0;
/// Height of the line below a row's bars that shows when reads waited for the layer.
const WAIT: f64 = 5.0;
const MARGIN: f64 = 2.0;
/// Narrowest and lowest bar.
const BAR_MIN: f64 = 1.5;
/// Letters of a name.
const NAME_MAX: usize = 40;

const STYLE: &str = "\
svg{font:12px system-ui,'DejaVu Sans',sans-serif;background:#fff}\
text{fill:#1f2328}.dim{fill:#59636e}.title{font-size:16px;font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}\
.grid{stroke:#d1d9e0}.track{fill:#d8dee4;opacity:.6}.mark{stroke:#1f2328;stroke-width:1.5;stroke-dasharray:5 3}\
.c0{fill:#8250df}.c1{fill:#0969da}.c2{fill:#cf222e}.c3{fill:#1a7f37}.c4{fill:#bc4c00}.wait{fill:#cf222e;opacity:.55}\
@media (prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3}.dim{fill:#9198a1}.grid{stroke:#3d444d}\
.track{fill:#30363d}.mark{stroke:#e6edf3}.c0{fill:#ab7df8}.c1{fill:#4493f8}.c2{fill:#f85149}.c3{fill:#3fb950}\
.c4{fill:#f0883e}.wait{fill:#f85149}}";

/// The picture of a replay. `title` says what it is.
pub fn timeline(title: &str, replay: &Replay) -> String {
    let picture = Picture { replay, span: replay.seconds.last_read.max(0.001) };
    let mut body = String::new();
    picture.head(&mut body, title);
    picture.axis(&mut body);
    for index in 0..picture.rows() {
        picture.row(&mut body, index);
    }
    picture.bars(&mut body);
    picture.marks(&mut body);
    let hidden = replay.layers.len() - picture.rows();
    let mut bottom = picture.bottom() + 56.0;
    if hidden > 0 {
        text(&mut body, "", 12.0, bottom, &format!("and {hidden} more layers"));
        bottom += 18.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {bottom:.0}\" width=\"{WIDTH}\" \
         height=\"{bottom:.0}\" role=\"img\">\n<title>{}</title><style>{STYLE}</style>\n{body}</svg>\n",
        escaped(title)
    )
}

struct Picture<'a> {
    replay: &'a Replay,
    /// Seconds that the axis is long.
    span: f64,
}

/// What a cause is called.
fn words(cause: Cause) -> &'static str {
    match cause {
        Cause::Mount => "mount",
        Cause::Prefetch => "prefetch",
        Cause::Read => "missed by a read",
        Cause::Background => "background fetch",
        Cause::Whole => "pulled whole",
    }
}

impl Picture<'_> {
    fn rows(&self) -> usize {
        self.replay.layers.len().min(ROWS_MAX)
    }

    fn top(index: usize) -> f64 {
        TOP + f64::from(u32::try_from(index).unwrap_or(0)) * ROW
    }

    fn bottom(&self) -> f64 {
        Self::top(self.rows())
    }

    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.span).clamp(0.0, 1.0) * (RIGHT - LEFT)
    }

    fn head(&self, body: &mut String, title: &str) {
        let Replay { seconds, total, .. } = self.replay;
        text(body, "title", 12.0, 26.0, &shortened(title, 120));
        let line = format!(
            "the container could run after {:.1} s, the last read was answered after {:.1} s; {} in {} requests until then",
            seconds.running,
            seconds.last_read,
            size(total.bytes),
            total.requests
        );
        text(body, "dim", 12.0, 46.0, &line);
        let mut x = 12.0;
        let mut entry = |body: &mut String, class: &str, words: &str| {
            rectangle(body, class, (x, 58.0), (12.0, 12.0), None);
            text(body, "", x + 18.0, 68.0, words);
            // Letters of the usual fonts are not wider than this.
            x += 34.0 + 7.0 * f64::from(u32::try_from(words.chars().count()).unwrap_or(0));
        };
        for cause in Cause::ALL {
            if self.replay.by_cause(cause).requests > 0 {
                entry(body, &format!("c{}", cause.index()), words(cause));
            }
        }
        entry(body, "wait", "a read waits");
        entry(body, "track", "the height is the layer: its first byte at the top, its last at the bottom");
    }

    fn axis(&self, body: &mut String) {
        let step = step(self.span);
        let mut tick = 0.0;
        while tick <= self.span * 1.0001 {
            let x = self.x(tick);
            let label = if step < 1.0 { format!("{tick:.2} s") } else { format!("{tick:.0} s") };
            let (top, bottom) = (TOP - 4.0, self.bottom() + 24.0);
            let _ = writeln!(body, "<path class=\"grid\" d=\"M{x:.1} {top:.0}V{bottom:.0}\"/>");
            text(body, "dim mid", x, TOP - 22.0, &label);
            text(body, "dim mid", x, bottom + 14.0, &label);
            tick += step;
        }
        text(body, "dim end", WIDTH - 12.0, TOP - 22.0, "fetched");
    }

    fn row(&self, body: &mut String, index: usize) {
        let Some(layer) = self.replay.layers.get(index) else { return };
        let top = Self::top(index);
        let name = layer.title.clone().unwrap_or_else(|| layer.digest.to_string());
        let _ = write!(body, "<g><title>layer {}: {}", index + 1, escaped(&name));
        for (cause, fetched) in &layer.causes {
            let _ =
                write!(body, "\n{}: {} in {} requests", words(*cause), size(fetched.bytes), fetched.requests);
        }
        body.push_str("</title>");
        let height = ROW - WAIT - 2.0 * MARGIN;
        rectangle(body, "track", (LEFT, top + MARGIN), (RIGHT - LEFT, height), None);
        text(body, "end", LEFT - 10.0, top + ROW / 2.0 + 4.0, &shortened(&name, NAME_MAX));
        let fetched = format!("{} of {}", size(layer.total.bytes), size(layer.size));
        text(body, "dim end", WIDTH - 12.0, top + ROW / 2.0 + 4.0, &fetched);
        body.push_str("</g>\n");
    }

    fn bars(&self, body: &mut String) {
        // What falls onto the same spot is drawn once, so that a picture has no more bars than a screen shows.
        let mut drawn = HashSet::new();
        let mut bar = |body: &mut String, class: &str, at: (f64, f64), extent: (f64, f64)| {
            if drawn.insert([at.0, at.1, extent.0, extent.1].map(|part| format!("{part:.0}"))) {
                rectangle(body, class, at, extent, None);
            }
        };
        for request in &self.replay.requests {
            let Some(layer) = self.replay.layers.get(request.layer).filter(|_| request.layer < ROWS_MAX)
            else {
                continue;
            };
            let (from, until) = request.seconds;
            if from > self.span {
                continue;
            }
            let height = ROW - WAIT - 2.0 * MARGIN;
            let (x, extent) = (self.x(from), layer.size.max(1));
            let width = (self.x(until) - x).max(BAR_MIN);
            let high = (part(request.bytes.min(extent), extent) * height).max(BAR_MIN);
            let y = (part(request.offset.min(extent), extent) * height).min(height - high).max(0.0);
            let class = format!("c{}", request.cause.index());
            bar(body, &class, (x, Self::top(request.layer) + MARGIN + y), (width, high));
        }
        for (layer, from, until) in &self.replay.waits {
            if *layer < ROWS_MAX {
                let (x, y) = (self.x(*from), Self::top(*layer) + ROW - WAIT - MARGIN);
                bar(body, "wait", (x, y), ((self.x(*until) - x).max(BAR_MIN), WAIT));
            }
        }
    }

    fn marks(&self, body: &mut String) {
        let seconds = self.replay.seconds;
        let milestone = |name: &str| {
            let found = self.replay.milestones.iter().find(|milestone| milestone.name == name);
            found.map(|milestone| milestone.seconds)
        };
        let marks = [(Some(seconds.running), "could run"), (milestone("firstWeight"), "first weight")];
        for (seconds, words) in marks {
            let Some(x) = seconds.map(|seconds| self.x(seconds)) else { continue };
            let (top, bottom) = (TOP - 4.0, self.bottom());
            let _ = writeln!(body, "<path class=\"mark\" d=\"M{x:.1} {top:.0}V{bottom:.0}\"/>");
            text(body, "mid", x, TOP - 8.0, words);
        }
    }
}
