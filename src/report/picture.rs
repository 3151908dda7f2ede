//! A report as a picture: a bar for each run, its phases side by side in the order of time. One SVG without scripts, and a
//! page with the picture and a table. Must not know where it is written.

use std::fmt::Write as _;

use super::{PhaseName, Report, Run, compare::shown};
use crate::profile::picture::{escaped, rectangle, shortened, step, text};

const WIDTH: f64 = 1280.0;
/// Where the time axis begins and ends.
const LEFT: f64 = 250.0;
const RIGHT: f64 = 1160.0;
const ROW: f64 = 58.0;
const BAR: f64 = 30.0;
/// Runs that are drawn; what follows is counted.
const ROWS_MAX: usize = 50;
/// Letters of a run's name.
const NAME_MAX: usize = 30;
/// Narrowest bar that has its seconds written into it.
const ROOM: f64 = 46.0;
/// Entries of the key in one line.
const KEYS: usize = 7;

const STYLE: &str = "\
svg{font:12px system-ui,'DejaVu Sans',sans-serif;background:#fff}\
text{fill:#1f2328}.dim{fill:#59636e}.title{font-size:16px;font-weight:600}.end{text-anchor:end}.mid{text-anchor:middle}\
.grid{stroke:#d1d9e0}.track{fill:#d8dee4}.in{fill:#fff;text-anchor:middle}\
.p0{fill:#0550ae}.p1{fill:#54aeff}.p2{fill:#6e7781}.p3{fill:#9198a1}.p4{fill:#1b7c83}.p5{fill:#1a7f37}.p6{fill:#7a9a01}\
.p7{fill:#cf222e}.p8{fill:#bf8700}.p9{fill:#8250df}.p10{fill:#bc4c00}.p11{fill:#bf3989}.p12{fill:#1f2328}\
@media (prefers-color-scheme:dark){svg{background:#0d1117}text{fill:#e6edf3}.dim{fill:#9198a1}.grid{stroke:#3d444d}\
.track{fill:#30363d}.in{fill:#fff}.p1{fill:#388bfd}.p12{fill:#e6edf3}}";

/// The picture of a report. `title` says what it is.
pub fn svg(title: &str, report: &Report) -> String {
    let runs = report.runs.get(..report.runs.len().min(ROWS_MAX)).unwrap_or_default();
    let bars: Vec<Vec<Bar>> = runs.iter().map(bars).collect();
    let ends = bars.iter().flatten().map(|bar| bar.until).chain(runs.iter().filter_map(|run| run.total));
    let span = ends.fold(0.001, f64::max);
    let used: Vec<(usize, PhaseName)> = PhaseName::ALL
        .into_iter()
        .enumerate()
        .filter(|(index, _)| bars.iter().flatten().any(|bar| bar.phase == *index))
        .collect();
    let mut body = String::new();
    text(&mut body, "title", 12.0, 26.0, &shortened(title, 120));
    let top = key(&mut body, &used);
    let bottom = top + rows(runs.len()) * ROW;
    axis(&mut body, span, (top, bottom));
    for (index, (run, bars)) in runs.iter().zip(&bars).enumerate() {
        row(&mut body, run, bars, span, top + rows(index) * ROW);
    }
    let mut end = bottom + 40.0;
    if report.runs.len() > runs.len() {
        text(&mut body, "", 12.0, end, &format!("and {} more runs", report.runs.len() - runs.len()));
        end += 18.0;
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {end:.0}\" width=\"{WIDTH}\" \
         height=\"{end:.0}\" role=\"img\" aria-labelledby=\"t d\">\n<title id=\"t\">{}</title><desc id=\"d\">{}</desc>\
         <style>{STYLE}</style>\n{body}</svg>\n",
        escaped(title),
        escaped(&description(runs)),
    )
}

fn rows(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(0))
}

/// The picture in words, for who does not see it.
fn description(runs: &[Run]) -> String {
    let mut words = String::new();
    for run in runs {
        let _ = write!(words, "{}: ", run.name);
        match run.total {
            Some(total) => drop(write!(words, "{total:.1} seconds in all")),
            None => words.push_str("no total"),
        }
        for phase in &run.phases {
            if let Some(seconds) = phase.seconds {
                let _ =
                    write!(words, ", {} {}", phase.label, shown(seconds, phase.resolution.unwrap_or(1.0)));
            }
        }
        words.push_str(".\n");
    }
    words
}

struct Bar {
    /// The phase's place in [`PhaseName::ALL`].
    phase: usize,
    from: f64,
    until: f64,
}

/// Where a run's phases lie. Without times of day they are put one behind another.
fn bars(run: &Run) -> Vec<Bar> {
    let mut bars = Vec::new();
    let mut at = 0.0;
    for (index, name) in PhaseName::ALL.into_iter().enumerate() {
        let Some(phase) = run.phase(name) else { continue };
        if run.total.is_some() {
            bars.extend(phase.spans.iter().map(|[from, until]| Bar {
                phase: index,
                from: *from,
                until: *until,
            }));
        } else if let Some(seconds) = phase.seconds {
            // Engine init has the others in it.
            if !matches!(name, PhaseName::EngineInit | PhaseName::Model) {
                bars.push(Bar { phase: index, from: at, until: at + seconds });
                at += seconds;
            }
        }
    }
    bars
}

fn key(body: &mut String, used: &[(usize, PhaseName)]) -> f64 {
    let mut y = 44.0;
    for line in used.chunks(KEYS) {
        let mut x = 12.0;
        for (index, name) in line {
            rectangle(body, &format!("p{index}"), (x, y), (12.0, 12.0), None);
            text(body, "", x + 18.0, y + 10.0, name.label());
            // Letters of the usual fonts are not wider than this.
            x += 36.0 + 7.0 * rows(name.label().chars().count());
        }
        y += 20.0;
    }
    rectangle(body, "track", (12.0, y), (12.0, 12.0), None);
    text(body, "", 30.0, y + 10.0, "no line tells");
    y + 50.0
}

fn axis(body: &mut String, span: f64, (top, bottom): (f64, f64)) {
    let step = step(span);
    let mut tick = 0.0;
    while tick <= span * 1.0001 {
        let x = LEFT + tick / span * (RIGHT - LEFT);
        let label = if step < 1.0 { format!("{tick:.2} s") } else { format!("{tick:.0} s") };
        let _ = writeln!(body, "<path class=\"grid\" d=\"M{x:.1} {:.0}V{bottom:.0}\"/>", top - 8.0);
        text(body, "dim mid", x, top - 14.0, &label);
        text(body, "dim mid", x, bottom + 14.0, &label);
        tick += step;
    }
}

fn row(body: &mut String, run: &Run, bars: &[Bar], span: f64, top: f64) {
    let x = |seconds: f64| LEFT + (seconds / span).clamp(0.0, 1.0) * (RIGHT - LEFT);
    let y = top + (ROW - BAR) / 2.0;
    text(body, "end", LEFT - 10.0, y + BAR / 2.0 + 4.0, &shortened(&run.name, NAME_MAX));
    if let Some(total) = run.total {
        let words = format!("{}: no line tells of {}", run.name, shown(run.unaccounted.unwrap_or(0.0), 0.01));
        rectangle(body, "track", (LEFT, y), (x(total) - LEFT, BAR), Some(&words));
    }
    for bar in bars {
        let Some(phase) = PhaseName::ALL.get(bar.phase).and_then(|name| run.phase(*name)) else { continue };
        let width = x(bar.until) - x(bar.from);
        let seconds = phase.seconds.unwrap_or(0.0);
        let words = format!("{}: {}", phase.label, shown(seconds, phase.resolution.unwrap_or(1.0)));
        rectangle(body, &format!("p{}", bar.phase), (x(bar.from), y), (width.max(0.5), BAR), Some(&words));
        if width >= ROOM {
            text(
                body,
                "in",
                x(bar.from) + width / 2.0,
                y + BAR / 2.0 + 4.0,
                &format!("{:.1} s", bar.until - bar.from),
            );
        }
    }
    let total = run.total.map_or("no total".to_owned(), |total| format!("{total:.1} s"));
    let end = run.total.or_else(|| bars.last().map(|bar| bar.until)).unwrap_or(0.0);
    text(body, "", x(end) + 8.0, y + BAR / 2.0 + 4.0, &total);
}

const PAGE: &str = "\
:root{color-scheme:light dark}body{margin:16px;font:14px system-ui,'DejaVu Sans',sans-serif;background:#fff;color:#1f2328}\
svg{max-width:100%;height:auto}table{border-collapse:collapse;margin:12px 0}th,td{padding:4px 10px;\
border:1px solid #d1d9e0;text-align:left;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}\
small{color:#59636e}@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th,td{border-color:#3d444d}\
small{color:#9198a1}}";

/// A page with the picture, the table `rows` (the first is its head), what changed, and notes.
pub fn html(title: &str, report: &Report, rows: &[Vec<String>]) -> String {
    let mut body = format!("<h1>{}</h1>\n{}", escaped(title), svg(title, report));
    body.push_str("<table>\n");
    for (index, row) in rows.iter().enumerate() {
        body.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = match (index, column) {
                (0, _) => write!(body, "<th scope=\"col\">{}</th>", escaped(cell)),
                (_, 0) => write!(body, "<th scope=\"row\">{}</th>", escaped(cell)),
                _ => write!(body, "<td class=\"n\">{}</td>", escaped(cell)),
            };
        }
        body.push_str("</tr>\n");
    }
    body.push_str("</table>\n");
    let mut list = |head: &str, items: &[String]| {
        if !items.is_empty() {
            let _ = writeln!(body, "<h2>{}</h2>\n<ul>", escaped(head));
            for item in items {
                let _ = writeln!(body, "<li>{}</li>", escaped(item));
            }
            body.push_str("</ul>\n");
        }
    };
    let changes: Vec<String> = report.changes.iter().map(|change| change.text.clone()).collect();
    list("What changed", &changes);
    for run in &report.runs {
        let mut lines = run.notes.clone();
        for phase in &run.phases {
            for source in &phase.from {
                lines.push(format!("{}: {}:{}: {}", phase.label, source.log, source.line, source.text));
            }
        }
        list(&run.name, &lines);
    }
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{}</title>\n<style>{PAGE}</style></head>\n\
         <body>\n{body}</body></html>\n",
        escaped(title)
    )
}
