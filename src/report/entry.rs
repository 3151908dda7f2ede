//! One line of a log taken apart: what container runtimes, journals and loggers put before a message, and the message.
//! Must not know what messages mean.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

use super::clock::{Wall, dated, month, rfc3339, yearless};

/// A line without what was put before its message.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Entry {
    /// When a runtime or a journal received the line, or when a daemon says that it wrote it.
    pub(super) outer: Option<Wall>,
    /// When the engine says that it wrote it.
    pub(super) header: Option<Wall>,
    /// The process that wrote it, without its id: `EngineCore_DP0`, `TP1`; empty where none is named.
    pub(super) process: String,
    pub(super) message: String,
    /// Fields beside the message of a structured log that a start needs.
    pub(super) fields: Fields,
}

/// Members of stargz-snapshotter's log that tell something about a start.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// `remote-snapshot-prepared`: whether a layer was mounted lazily.
    pub(super) prepared: Option<String>,
    /// `operation` of a metric.
    pub(super) operation: Option<String>,
}

/// Letters of a line among which an engine's header is looked for.
const HEADER_WITHIN: usize = 600;

type Pattern = LazyLock<Option<Regex>>;

macro_rules! pattern {
    ($text:expr) => {
        LazyLock::new(|| Regex::new($text).ok())
    };
}

/// `2026-11-21T10:00:00.123Z stdout F …` (CRI), `2026-11-21T10:00:00.123Z …` (kubectl logs --timestamps).
static RUNTIME: Pattern = pattern!(
    r"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)) (?:(?:stdout|stderr) [FP](?: |$))?"
);
/// `[pod/name/container] …` (kubectl logs --prefix), `name-1  | …` (docker compose).
static SOURCE: Pattern = pattern!(r"^(?:\[pod/[^\]\s]+\] |[\w.-]+\s*\| )");
/// `Aug 23 22:59:15 host unit[863334]: …`
static JOURNAL: Pattern =
    pattern!(r"^([A-Z][a-z]{2}) {1,2}(\d{1,2}) (\d\d:\d\d:\d\d(?:\.\d+)?) \S+ [^\s:\[]+(?:\[\d+\])?: ");
/// `I0115 05:38:15.784715    9938 event.go:278] …`
static KLOG: Pattern = pattern!(r"^[IWEF](\d\d)(\d\d) (\d\d:\d\d:\d\d\.\d+)\s+\d+ [\w./-]+:\d+\] ");
/// `(EngineCore_DP0 pid=79) INFO 11-21 10:00:00 [core.py:58] …`, and up to 0.6 `INFO 11-21 10:00:00 core.py:58] …`.
static VLLM: Pattern = pattern!(
    r"(?:^|[ )\]])(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) (\d\d)-(\d\d) (\d\d:\d\d:\d\d(?:[.,]\d+)?) (?:\[[^\]\s]+:\d+\]|[\w./-]+:\d+\]) ?"
);
/// `[2026-11-21 10:00:00 DP0 TP0] …`
static SGLANG: Pattern = pattern!(
    r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)?)((?: [A-Z]{2,4}\d+)*)\] (?:(?:DEBUG|INFO|WARNING|ERROR) )?"
);
/// `(EngineCore_DP0 pid=79) `, `(VllmWorker rank=0 pid=79) `
static PROCESS: Pattern = pattern!(r"\(([A-Za-z][\w.-]*(?: rank=\d+)?) pid=\d+\) ?$");
static PROCESS_FIRST: Pattern = pattern!(r"^\(([A-Za-z][\w.-]*(?: rank=\d+)?) pid=\d+\) ?");
/// `time="2026-11-21T10:00:00Z" level=info msg="…"`
static LOGFMT: Pattern =
    pattern!(r#"\btime="?([^"\s]{10,40})"? level=\w+ msg=(?:"((?:[^"\\]|\\.)*)"|(\S*))"#);
/// A row of `kubectl get events` or `kubectl describe`, or kubelet's own line, of an event about a container.
static EVENT: Pattern = pattern!(
    r"(?:\bNormal\s+(?:Pulling|Pulled|Started)\s.*?\s|reason: '(?:Pulling|Pulled|Started)' )((?:Pulling image|Successfully pulled image|Container image|Started container|Container started)\b.*)$"
);

fn found<'t>(pattern: &Pattern, text: &'t str) -> Option<Captures<'t>> {
    pattern.as_ref()?.captures(text)
}

fn group<'t>(captures: &Captures<'t>, index: usize) -> &'t str {
    captures.get(index).map_or("", |group| group.as_str())
}

fn behind<'t>(text: &'t str, captures: &Captures<'_>) -> &'t str {
    captures.get(0).and_then(|whole| text.get(whole.end()..)).unwrap_or_default()
}

/// Takes a line apart. What is of no known form is its message.
pub(super) fn entry(line: &str) -> Entry {
    let mut entry = Entry::default();
    let mut text = line.trim_end();
    let held: String;
    // kubectl's prefix stands before its time, docker compose's before what the container wrote.
    for _ in 0..2 {
        if let Some(captures) = found(&SOURCE, text) {
            text = behind(text, &captures);
        }
        if let Some(captures) = found(&RUNTIME, text) {
            entry.outer = rfc3339(group(&captures, 1));
            text = behind(text, &captures);
        }
    }
    if text.starts_with('{') {
        match json(text, &mut entry) {
            Some(message) => held = message,
            None => return Entry { message: text.to_owned(), ..entry },
        }
        text = held.trim_end();
    }
    if let Some(captures) = found(&JOURNAL, text) {
        let day = group(&captures, 2).parse().ok();
        let wall = month(group(&captures, 1))
            .zip(day)
            .and_then(|(month, day)| yearless(month, day, group(&captures, 3)));
        if wall.is_some() {
            entry.outer = entry.outer.or(wall);
            text = behind(text, &captures);
        }
    } else if let Some(captures) = found(&KLOG, text) {
        entry.outer = entry.outer.or(day_of(&captures));
        text = behind(text, &captures);
    }
    finish(text, entry)
}

fn day_of(captures: &Captures<'_>) -> Option<Wall> {
    yearless(group(captures, 1).parse().ok()?, group(captures, 2).parse().ok()?, group(captures, 3))
}

/// The message of a JSON line: docker's `json-file`, or a daemon that logs JSON.
fn json(text: &str, entry: &mut Entry) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    let member = |name: &str| value.get(name).and_then(Value::as_str);
    if let Some(time) = member("time").and_then(rfc3339) {
        entry.outer = Some(time);
    }
    let message = member("log").or_else(|| member("msg")).or_else(|| member("message"))?.to_owned();
    entry.fields.prepared = member("remote-snapshot-prepared").map(str::to_owned);
    entry.fields.operation = member("operation").map(str::to_owned);
    Some(message)
}

fn finish(text: &str, mut entry: Entry) -> Entry {
    if let Some(captures) = found(&LOGFMT, text) {
        entry.outer = rfc3339(group(&captures, 1)).or(entry.outer);
        let quoted = group(&captures, 2);
        entry.message =
            if quoted.is_empty() { group(&captures, 3).to_owned() } else { quoted.replace("\\\"", "\"") };
        let rest = behind(text, &captures);
        let field = |name: &str| {
            let value = rest.split_once(&format!(" {name}="))?.1;
            Some(value.split_whitespace().next()?.trim_matches('"').to_owned())
        };
        entry.fields.prepared = entry.fields.prepared.or_else(|| field("remote-snapshot-prepared"));
        entry.fields.operation = entry.fields.operation.or_else(|| field("operation"));
        return entry;
    }
    let within = text.char_indices().nth(HEADER_WITHIN).map_or(text.len(), |(at, _)| at);
    let head = text.get(..within).unwrap_or(text);
    let vllm = found(&VLLM, head);
    let (captures, wall, names) = if let Some(captures) = vllm {
        let wall = day_of(&captures);
        (captures, wall, String::new())
    } else if let Some(captures) = found(&SGLANG, head) {
        let (wall, names) = (dated(group(&captures, 1)), group(&captures, 2).trim().to_owned());
        (captures, wall, names)
    } else {
        let mut message = text;
        if let Some(captures) = found(&PROCESS_FIRST, text) {
            group(&captures, 1).clone_into(&mut entry.process);
            message = behind(text, &captures);
        }
        let event = found(&EVENT, message).map(|captures| group(&captures, 1).to_owned());
        entry.message = event.unwrap_or_else(|| message.to_owned());
        return entry;
    };
    entry.header = wall;
    entry.process = names;
    // vLLM's process stands directly before the header; the match may begin with the space between them.
    let before = captures.get(0).and_then(|whole| text.get(..whole.start())).unwrap_or_default();
    let before = if text.get(before.len()..).is_some_and(|rest| rest.starts_with(')')) {
        text.get(..=before.len()).unwrap_or(before)
    } else {
        before
    };
    if let Some(process) = found(&PROCESS, before.trim_end()) {
        group(&process, 1).clone_into(&mut entry.process);
    }
    behind(text, &captures).clone_into(&mut entry.message);
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(line: &str) -> (Option<Wall>, Option<Wall>, String, String) {
        let entry = entry(line);
        (entry.outer, entry.header, entry.process, entry.message)
    }

    #[test]
    fn engines() {
        let time = yearless(11, 21, "10:00:01");
        for (line, process) in [
            ("(EngineCore_DP0 pid=79) INFO 11-21 10:00:01 [core.py:58] hello", "EngineCore_DP0"),
            ("(VllmWorker rank=1 pid=79) INFO 11-21 10:00:01 [core.py:58] hello", "VllmWorker rank=1"),
            ("(Map(x) pid=1) (EngineCore pid=7) INFO 11-21 10:00:01 [a/core.py:58] hello", "EngineCore"),
            ("INFO 11-21 10:00:01 core.py:58] hello", ""),
            ("2026-11-21T10:00:01,870 [INFO ] W-1 MODEL_LOG - INFO 11-21 10:00:01 llm.py:2] hello", ""),
        ] {
            assert_eq!(parts(line), (None, time, process.to_owned(), "hello".to_owned()), "{line}");
        }
        let (_, header, process, message) =
            parts("2025-03-07 23:50:27,531 - x - INFO - [2025-03-07 23:50:27 DP0 TP1] Load weight begin. a");
        assert_eq!(header, dated("2025-03-07 23:50:27"));
        assert_eq!((process.as_str(), message.as_str()), ("DP0 TP1", "Load weight begin. a"));
    }

    #[test]
    fn wrappers() {
        let time = rfc3339("2026-11-21T10:00:01.5Z");
        let line = "(APIServer pid=1) INFO:     Application startup complete.";
        let json =
            format!("{{\"log\":\"{line}\\n\",\"stream\":\"stdout\",\"time\":\"2026-11-21T10:00:01.5Z\"}}");
        for text in [
            format!("2026-11-21T10:00:01.5Z stdout F {line}"),
            format!("2026-11-21T10:00:01.5Z {line}"),
            format!("[pod/llama-0/kserve-container] 2026-11-21T10:00:01.5Z {line}"),
            json,
        ] {
            let expected =
                (time, None, "APIServer".to_owned(), "INFO:     Application startup complete.".to_owned());
            assert_eq!(parts(&text), expected, "{text}");
        }
    }

    #[test]
    fn daemons() {
        let line = r#"Sep 04 18:35:49 node containerd[132]: time="2026-09-04T18:35:49.2Z" level=info msg="Pulled image \"a:1\" in 1.06s""#;
        let pulled = entry(line);
        assert_eq!(pulled.outer, rfc3339("2026-09-04T18:35:49.2Z"));
        assert_eq!(pulled.message, r#"Pulled image "a:1" in 1.06s"#);
        let line = r#"{"key":"k","level":"debug","msg":"prepared remote snapshot","remote-snapshot-prepared":"true","time":"2026-11-21T10:00:01.5Z"}"#;
        let prepared = entry(line);
        assert_eq!(prepared.fields.prepared.as_deref(), Some("true"));
        assert_eq!(prepared.message, "prepared remote snapshot");
        let row = r#"54m   Normal   Pulled   pod/x-1   Successfully pulled image "a:1" in 312ms (312ms including waiting). Image size: 64 bytes."#;
        assert!(entry(row).message.starts_with("Successfully pulled image \"a:1\" in 312ms"));
        let line = "I0529 05:42:16.850647    1939 event.go:278] Event(x): type: 'Normal' reason: 'Pulled' Successfully pulled image \"a\"";
        assert_eq!(entry(line).message, "Successfully pulled image \"a\"");
        assert_eq!(entry(line).outer, yearless(5, 29, "05:42:16.850647"));
    }

    #[test]
    fn what_is_of_no_form_is_a_message() {
        for line in [
            "",
            "{",
            "{\"a\": [",
            "[]",
            "INFO 13-41 99:00:00 [x.py:1] a",
            "time=\"",
            "(x pid=",
            "größer 模型",
        ] {
            let entry = entry(line);
            assert_eq!((entry.outer, entry.header), (None, None), "{line}");
        }
    }
}
