//! A report in words: tables for a terminal, and for Markdown.

use std::fmt::Write as _;

use crate::{
    cli::output::{escaped, table},
    report::{CacheUse, Measured, Phase, PhaseName, Report, Run, shown},
};

const ABSENT: &str = "not in this log";

/// What `starcar report` prints.
pub(super) fn report_text(report: &Report) -> String {
    let mut text = String::new();
    if let [run] = report.runs.as_slice() {
        text.push_str(&table(&head(run)));
        text.push('\n');
        text.push_str(&table(&phases(run)));
    } else {
        text.push_str(&table(&side_by_side(report)));
        for (index, run) in report.runs.iter().enumerate().skip(1) {
            let changes = report.changes.iter().filter(|change| change.run == index);
            let lines: Vec<Vec<String>> = changes.map(|change| vec![format!("  {}", change.text)]).collect();
            let first = report.runs.first().map_or("", |run| run.name.as_str());
            let _ = write!(text, "\n{} -> {}\n{}", escaped(first), escaped(&run.name), table(&lines));
        }
    }
    for run in &report.runs {
        let of = if report.runs.len() > 1 { format!(" ({})", run.name) } else { String::new() };
        for note in &run.notes {
            let _ = write!(text, "{}", table(&[vec![format!("note{of}"), note.clone()]]));
        }
    }
    text
}

fn row(cells: [&str; 2]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

fn head(run: &Run) -> Vec<Vec<String>> {
    let mut rows = vec![row(["run", &run.name])];
    for log in &run.logs {
        let start = match log.start {
            Some(start) if log.starts > 1 => format!(", start {start} of {}", log.starts),
            _ => String::new(),
        };
        rows.push(row(["log", &format!("{} ({} lines{start})", log.path, log.lines)]));
    }
    rows.extend(facts(run).into_iter().map(|(name, value)| vec![name.to_owned(), value]));
    rows
}

/// What is known of the engine and the model, for people.
fn facts(run: &Run) -> Vec<(&'static str, String)> {
    let facts = &run.facts;
    let mut told: Vec<(&str, Option<String>)> = vec![
        ("engine", facts.engine.map(|engine| format!("{engine} {}", facts.version.as_deref().unwrap_or("")))),
        ("model", facts.model.clone()),
        ("load format", facts.load_format.clone()),
        ("quantization", facts.quantization.clone()),
        ("tensor parallel", facts.tensor_parallel.map(|size| size.to_string())),
        ("model memory", facts.model_memory.clone()),
        ("GPU memory", facts.gpu_memory.map(|memory| format!("{memory} GiB"))),
        ("KV cache", kv_cache(run)),
        ("compile cache", facts.compile_cache.map(|cache| cache_words(cache).to_owned())),
    ];
    told.extend(facts.compile_cache_paths.iter().map(|path| ("", Some(path.clone()))));
    told.extend(facts.images.iter().map(|image| ("image", Some(image.clone()))));
    if facts.lazy_layers.is_some() || facts.whole_layers.is_some() {
        let layers = format!(
            "{} mounted lazily, {} not",
            facts.lazy_layers.unwrap_or(0),
            facts.whole_layers.unwrap_or(0)
        );
        told.push(("layers", Some(layers)));
    }
    told.into_iter().filter_map(|(name, value)| Some((name, value?.trim_end().to_owned()))).collect()
}

fn cache_words(cache: CacheUse) -> &'static str {
    match cache {
        CacheUse::Hit => "hit",
        CacheUse::Partly => "partly hit",
        CacheUse::Miss => "miss",
    }
}

fn kv_cache(run: &Run) -> Option<String> {
    let tokens = run.facts.kv_cache_tokens.map(|tokens| format!("{tokens} tokens"));
    let memory = run.facts.kv_cache_memory.map(|memory| format!("{memory} GiB"));
    let parts: Vec<String> = tokens.into_iter().chain(memory).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn exact(phase: &Phase) -> Option<String> {
    Some(shown(phase.seconds?, phase.resolution.unwrap_or(1.0)))
}

fn total_of(run: &Run) -> Option<String> {
    Some(shown(run.total?, run.resolution.unwrap_or(1.0)))
}

/// The phases of one run, with where each number comes from.
fn phases(run: &Run) -> Vec<Vec<String>> {
    let mut rows =
        vec![["phase", "seconds", "of the total", "measured by", "from"].map(str::to_owned).to_vec()];
    for phase in &run.phases {
        let Some(seconds) = exact(phase) else {
            let why = phase.note.as_ref().map_or(ABSENT.to_owned(), |note| format!("{ABSENT} ({note})"));
            rows.push(vec![phase.label.to_owned(), "-".to_owned(), "-".to_owned(), "-".to_owned(), why]);
            continue;
        };
        let counted = match phase.counted {
            Some(counted) => format!("{counted:.2} s"),
            None => "-".to_owned(),
        };
        let measured = match phase.measured {
            Some(Measured::Engine) => "the engine",
            Some(Measured::Timestamps) => "timestamps",
            None => "-",
        };
        let process = phase.process.as_ref().map_or(String::new(), |process| format!(" [{process}]"));
        for (index, source) in phase.from.iter().enumerate() {
            let from = format!("{}:{}{process} {}", source.log, source.line, source.text);
            rows.push(if index == 0 {
                vec![phase.label.to_owned(), seconds.clone(), counted.clone(), measured.to_owned(), from]
            } else {
                vec![String::new(), String::new(), String::new(), String::new(), from]
            });
        }
        let blank = || vec![String::new(); 4];
        for part in &phase.parts {
            let mut row = blank();
            row[0] = format!("  {}", part.name);
            row[1] = format!("{:.2} s", part.seconds);
            rows.push(row);
        }
        if let Some(note) = &phase.note {
            rows.push([blank(), vec![format!("({note})")]].concat());
        }
    }
    if let Some(unaccounted) = run.unaccounted {
        let cells = ["no line tells".to_owned(), "-".to_owned(), format!("{unaccounted:.2} s")];
        rows.push(cells.to_vec());
    }
    let total = total_of(run).unwrap_or("-".to_owned());
    let mut last = vec!["total".to_owned(), total.clone(), total, String::new()];
    last.extend(
        run.from.last().map(|source| format!("until {}:{} {}", source.log, source.line, source.text)),
    );
    rows.push(last);
    rows
}

/// Runs in columns, each after the first with its difference and ratio to that.
pub(super) fn side_by_side(report: &Report) -> Vec<Vec<String>> {
    let mut head = vec!["phase".to_owned()];
    for (index, run) in report.runs.iter().enumerate() {
        head.push(run.name.clone());
        if index > 0 {
            head.extend(["difference".to_owned(), "ratio".to_owned()]);
        }
    }
    let mut rows = vec![head];
    for name in PhaseName::ALL {
        let of = |run: &Run| run.phase(name).and_then(exact);
        let row = compared(report, Some(name), name.label(), of);
        rows.push(row);
    }
    rows.push(compared(report, None, "total", total_of));
    let tables: Vec<Vec<(&str, String)>> = report.runs.iter().map(facts).collect();
    for name in ["engine", "model", "load format", "tensor parallel", "KV cache", "compile cache"] {
        let values: Vec<Option<&String>> =
            tables.iter().map(|facts| facts.iter().find(|fact| fact.0 == name).map(|fact| &fact.1)).collect();
        if values.iter().all(Option::is_none) {
            continue;
        }
        let mut row = vec![name.to_owned()];
        for (index, value) in values.into_iter().enumerate() {
            row.push(value.map_or(ABSENT.to_owned(), Clone::clone));
            if index > 0 {
                row.extend([String::new(), String::new()]);
            }
        }
        rows.push(row);
    }
    rows
}

fn compared(
    report: &Report,
    phase: Option<PhaseName>,
    label: &str,
    of: impl Fn(&Run) -> Option<String>,
) -> Vec<String> {
    let mut row = vec![label.to_owned()];
    for (index, run) in report.runs.iter().enumerate() {
        row.push(of(run).unwrap_or_else(|| ABSENT.to_owned()));
        if index == 0 {
            continue;
        }
        let change = report.changes.iter().find(|change| change.run == index && change.phase == phase);
        // Nothing is neither more nor less.
        let signed = |number: f64| {
            if number.abs() < 0.005 { "0.00 s".to_owned() } else { format!("{number:+.2} s") }
        };
        let number = |number: Option<f64>| number.map_or("-".to_owned(), signed);
        row.push(number(change.and_then(|change| change.difference)));
        let ratio = change.and_then(|change| change.ratio);
        row.push(ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")));
    }
    row
}

/// The report as Markdown.
pub(super) fn markdown(title: &str, report: &Report) -> String {
    let mut text = format!("# {}\n\n", plain(title));
    for (index, row) in side_by_side(report).iter().enumerate() {
        let cells: Vec<String> = row.iter().map(|cell| plain(cell)).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
        if index == 0 {
            let _ = writeln!(text, "|{}", " --- |".repeat(row.len()));
        }
    }
    for change in &report.changes {
        let run = report.runs.get(change.run).map_or("", |run| run.name.as_str());
        let separator =
            if change.run == 1 && change.phase == report.changes.first().and_then(|change| change.phase) {
                "\n"
            } else {
                ""
            };
        let _ = writeln!(text, "{separator}- {}: {}", plain(run), plain(&change.text));
    }
    for run in &report.runs {
        let _ = write!(text, "\n## {}\n\n", plain(&run.name));
        for phase in &run.phases {
            for source in &phase.from {
                let (log, words) = (plain(&source.log), plain(&source.text));
                let _ = writeln!(text, "- {}: {log}:{} {words}", phase.label, source.line);
            }
        }
        for note in &run.notes {
            let _ = writeln!(text, "- {}", plain(note));
        }
    }
    text
}

/// A text that Markdown takes as it is.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for letter in escaped(text).chars() {
        match letter {
            '&' => plain.push_str("&amp;"),
            '<' => plain.push_str("&lt;"),
            '>' => plain.push_str("&gt;"),
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' | '!' => {
                plain.push('\\');
                plain.push(letter);
            }
            letter => plain.push(letter),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markdown_takes_nothing_as_markup() {
        assert_eq!(plain("a|b<script>[x](y)`c`_d_"), "a\\|b&lt;script&gt;\\[x\\](y)\\`c\\`\\_d\\_");
        assert_eq!(plain("a\n# b"), "a\\\\n\\# b");
    }
}
