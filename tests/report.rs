//! `starcar report` as people and pipelines meet it. The numbers were read from the logs by hand.

#![allow(clippy::unwrap_used, missing_docs)]

mod support;

use std::{fs, io::Read as _};

use proptest::prelude::*;
use serde_json::Value;
use starcar::report::{PhaseName, ReportOptions, Run, report_of_texts};
use support::command::{Run as Command, starcar};

fn data(name: &str) -> String {
    format!("tests/data/report/{name}")
}

fn report(arguments: &[&str]) -> Command {
    starcar(&[&["report"], arguments].concat())
}

fn json(arguments: &[&str]) -> Value {
    let run = report(&[arguments, &["--format=json"]].concat());
    assert_eq!(run.code, 0, "{}", run.stderr);
    serde_json::from_str(&run.stdout).unwrap()
}

/// Seconds of each phase that the log has, in the order of a start.
fn seconds(run: &Value) -> Vec<(String, f64)> {
    let phases = run["phases"].as_array().unwrap();
    assert_eq!(phases.len(), 13, "every phase is listed");
    let told = phases.iter().filter(|phase| !phase["seconds"].is_null());
    told.map(|phase| (phase["phase"].as_str().unwrap().to_owned(), phase["seconds"].as_f64().unwrap()))
        .collect()
}

/// What is counted makes the total.
fn assert_counted_once(run: &Value) {
    let phases = run["phases"].as_array().unwrap();
    let counted: f64 = phases.iter().filter_map(|phase| phase["counted"].as_f64()).sum();
    let total = run["total"].as_f64().unwrap();
    assert!((counted + run["unaccounted"].as_f64().unwrap() - total).abs() < 1e-3, "{run}");
}

fn named(phases: &[(&str, f64)]) -> Vec<(String, f64)> {
    phases.iter().map(|(name, seconds)| ((*name).to_owned(), *seconds)).collect()
}

#[test]
fn a_cold_start_with_ahead_of_time_compilation() {
    let report = json(&[&data("startup-cold-aot.log.gz")]);
    let run = &report["runs"][0];
    let expected = [
        ("engineStart", 16.0), // 02:10:02 to 02:10:18
        ("workers", 6.879_99), // 02:10:18 to 02:10:25, less 0.12001 that initialising the model took
        ("weights", 0.01),
        ("model", 0.12001),
        ("compile", 37.0), // 02:10:26 to 02:11:03
        ("profile", 0.08),
        ("engineInit", 37.78),
        ("firstToken", 0.0), // both 02:11:04
    ];
    assert_eq!(seconds(run), named(&expected));
    assert_eq!(run["total"], 62.0); // 02:10:02 to 02:11:04
    assert_eq!(run["facts"]["version"], "0.32.0");
    assert_eq!(run["facts"]["model"], "/srv/tiny");
    assert_eq!(run["facts"]["compileCache"], "miss");
    assert_eq!(run["facts"]["kvCacheTokens"], 524_288);
    assert_counted_once(run);
    let init = run["phases"].as_array().unwrap().iter().find(|phase| phase["phase"] == "engineInit").unwrap();
    assert_eq!(init["from"][0]["line"], 45);
    assert_eq!(init["measured"], "engine");
}

#[test]
fn with_a_cache_the_compile_phase_vanishes() {
    let report = json(&[&data("startup-cold-inductor.log.gz"), &data("startup-warm-inductor.log.gz")]);
    let (cold, warm) = (&report["runs"][0], &report["runs"][1]);
    let expected = [
        ("engineStart", 19.0), // 02:16:55 to 02:17:14
        ("workers", 7.838_703),
        ("weights", 0.02),
        ("model", 0.161_297),
        ("compile", 33.0), // 02:17:23 to 02:17:56
        ("profile", 1.0),  // 02:17:22 to 02:17:56, less the compile
        ("engineInit", 33.6),
        ("firstToken", 1.0), // 02:17:56 to 02:17:57
    ];
    assert_eq!(seconds(cold), named(&expected));
    assert_eq!(cold["total"], 61.0); // 02:16:55 to 02:17:56
    let expected = [
        ("engineStart", 6.0), // 02:13:48 to 02:13:54
        ("workers", 6.892_946),
        ("weights", 0.01),
        ("model", 0.107_054),
        ("compile", 5.0), // 02:14:02 to 02:14:07
        ("profile", 1.0),
        ("engineInit", 5.48),
        ("firstToken", 0.0),
    ];
    assert_eq!(seconds(warm), named(&expected));
    assert_eq!(warm["total"], 20.0); // 02:13:48 to 02:14:08
    assert_counted_once(cold);
    assert_counted_once(warm);
    let changes = report["changes"].as_array().unwrap();
    let compile = changes.iter().find(|change| change["phase"] == "compile").unwrap();
    assert_eq!(compile["text"], "compile: 33 s -> 5 s, all but gone, 28 s less, 6.6 times as fast");
    assert_eq!(compile["difference"], -28.0);
}

#[test]
fn tables() {
    let (cold, warm) = (data("vllm-gpu-cold.log"), data("vllm-gpu-warm.log"));
    insta::assert_snapshot!("one_run", report(&[&cold]).stdout);
    insta::assert_snapshot!("two_runs", report(&[&cold, &warm]).stdout);
    insta::assert_snapshot!("markdown", report(&[&cold, &warm, "--format=markdown"]).stdout);
    insta::assert_snapshot!("json", report(&[&warm, "--format=json"]).stdout);
}

#[test]
fn logs_of_one_run_are_joined() {
    let logs = format!("lazy={},{},{}", data("sglang.log"), data("containerd.log"), data("snapshotter.log"));
    let report = json(&["--run", &logs]);
    let run = &report["runs"][0];
    assert_eq!(run["name"], "lazy");
    let expected = [
        ("pull", 92.34),       // 12.34 s and 1m20s, one after the other
        ("container", 3.5),    // 09:59:33 to 09:59:36.5
        ("engineStart", 32.5), // to 10:00:09
        ("workers", 2.0),
        ("weights", 7.0), // TP1
        ("profile", 1.0),
        ("graphs", 11.39), // TP0
        ("engineInit", 13.0),
        ("server", 2.0),
        ("firstToken", 8.0),
    ];
    assert_eq!(seconds(run), named(&expected));
    assert_eq!(run["total"], 153.0); // 09:58:00 to 10:00:33
    assert_eq!(run["facts"]["lazyLayers"], 2);
    assert_eq!(run["facts"]["wholeLayers"], 1);
    assert_eq!(run["facts"]["prefetch"], 0.8125);
    assert_eq!(run["facts"]["tensorParallel"], 2);
    assert_counted_once(run);
    let one = json(&["--run", &logs, "--image", "models/"]);
    assert_eq!(seconds(&one["runs"][0])[0], ("pull".to_owned(), 12.34));
}

#[test]
fn a_runtime_of_another_day_does_not_count() {
    let logs =
        format!("cold={},{},{}", data("vllm-gpu-cold.log"), data("containerd.log"), data("snapshotter.log"));
    let (joined, alone) = (json(&["--run", &logs]), json(&[&data("vllm-gpu-cold.log")]));
    let (joined, alone) = (&joined["runs"][0], &alone["runs"][0]);
    assert_eq!(joined["total"], 74.0); // 23:59:20 to 00:00:34
    assert_eq!(joined["total"], alone["total"]);
    assert_eq!(seconds(joined), seconds(alone));
    for fact in ["images", "lazyLayers", "wholeLayers", "prefetch"] {
        assert_eq!(joined["facts"][fact], alone["facts"][fact], "{fact}");
    }
    let notes = joined["notes"].to_string();
    for log in ["containerd.log", "snapshotter.log"] {
        assert!(notes.contains(&format!("{log}: its lines of a runtime are of another time")), "{notes}");
    }
}

#[test]
fn the_compile_time_that_vllm_tells_is_a_sum() {
    let line = |seconds: &str| {
        format!("INFO 11-21 10:00:10 [monitor.py:34] torch.compile takes {seconds} s in total\n")
    };
    let text = format!("{}{}", line("10.00"), line("13.00"));
    let report = report_of_texts(&[("a", text.as_bytes())], &ReportOptions::default()).unwrap();
    assert_eq!(report.runs[0].seconds(PhaseName::Compile), Some(13.0));
}

#[test]
fn each_start_has_the_pulls_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let (engine, runtime) = (directory.path().join("engine.log"), directory.path().join("runtime.log"));
    let (mut engines, mut pulls) = (String::new(), String::new());
    for (hour, seconds) in [("10", "1"), ("11", "2"), ("12", "3")] {
        let engine = format!(
            "[2026-11-21 {hour}:00:20] server_args=ServerArgs(model_path='m')\n\
             [2026-11-21 {hour}:00:22] Load weight begin. a\n\
             [2026-11-21 {hour}:00:25] The server is fired up and ready to roll!\n"
        );
        engines.push_str(&engine);
        let pull = format!(
            "time=\"2026-11-21T{hour}:00:10Z\" level=info msg=\"Pulled image \\\"a:1\\\" with image id \\\"b\\\" in {seconds}s\"\n"
        );
        pulls.push_str(&pull);
    }
    fs::write(&engine, engines).unwrap();
    fs::write(&runtime, pulls).unwrap();
    let logs = format!("a={},{}", engine.display(), runtime.display());
    let report = json(&["--run", &logs, "--start=all"]);
    let pulled: Vec<(String, f64)> =
        report["runs"].as_array().unwrap().iter().map(|run| seconds(run).remove(0)).collect();
    assert_eq!(pulled, named(&[("pull", 1.0), ("pull", 2.0), ("pull", 3.0)]));
}

#[test]
fn restarts_in_one_log() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("twice.log");
    let text = fs::read_to_string(data("vllm-gpu-cold.log")).unwrap();
    fs::write(
        &path,
        format!("{text}{}", text.replace("took 4.20", "took 1.20").replace("took 3.10", "took 1.10")),
    )
    .unwrap();
    let path = path.to_str().unwrap();
    let weights = |arguments: &[&str]| -> Vec<f64> {
        let report = json(arguments);
        let runs = report["runs"].as_array().unwrap();
        runs.iter().map(|run| seconds(run).iter().find(|phase| phase.0 == "weights").unwrap().1).collect()
    };
    assert_eq!(weights(&[path]), [1.2]);
    assert_eq!(weights(&[path, "--start", "1"]), [4.2]);
    assert_eq!(weights(&[path, "--start", "all"]), [4.2, 1.2]);
    assert!(report(&[path]).stdout.contains("has 2 starts; this is the last one"));
    let none = report(&[path, "--start", "3"]);
    assert_eq!(none.code, 1);
    assert!(none.stderr.contains("has no start 3: it has 2"), "{}", none.stderr);
}

#[test]
fn pictures_are_sound_and_nothing_gets_out_of_them() {
    let directory = tempfile::tempdir().unwrap();
    let evil = directory.path().join("<script>alert(1)</script>'\"&.log");
    fs::create_dir_all(evil.parent().unwrap()).unwrap();
    let text = fs::read_to_string(data("vllm-gpu-cold.log")).unwrap();
    fs::write(&evil, text.replace("org/m", "<img src=x onerror=alert(1)>")).unwrap();
    let evil = evil.to_str().unwrap();
    for format in ["svg", "html"] {
        let out = directory.path().join(format);
        let run = report(&[
            evil,
            &data("vllm-gpu-warm.log"),
            "--format",
            format,
            "--output",
            out.to_str().unwrap(),
        ]);
        assert_eq!((run.code, run.stdout.as_str()), (0, ""), "{}", run.stderr);
        let picture = fs::read_to_string(out).unwrap();
        for wanted in [
            "<title id=\"t\">",
            "<desc id=\"d\">",
            "prefers-color-scheme:dark",
            "class=\"p7\"",
            "role=\"img\"",
        ] {
            assert!(picture.contains(wanted), "{wanted}");
        }
        for bad in ["<script", "<img", "onerror=alert(1)>", "http://"] {
            let plain = picture.replace("http://www.w3.org/2000/svg", "").replace("http://0.0.0.0:8000", "");
            assert!(!plain.contains(bad), "{format}: {bad}");
        }
    }
    let markdown = report(&[evil, "--format=markdown"]).stdout;
    assert!(!markdown.contains("<script") && !markdown.contains("<img"), "{markdown}");
}

#[test]
fn limits_are_a_gate() {
    let (cold, warm) = (data("vllm-gpu-cold.log"), data("vllm-gpu-warm.log"));
    let run = report(&[&warm, "--max-seconds", "compile=3s", "--max-seconds", "total=41"]);
    assert_eq!(run.code, 0, "{}", run.stderr);
    let run = report(&[&cold, "--max-seconds", "compile=3s"]);
    assert_eq!(run.code, 11);
    assert!(run.stderr.contains("compile took 21.50 s"), "{}", run.stderr);
    assert!(run.stdout.contains("graph capture"), "the report is printed all the same");
    let run = report(&[&cold, "--max-seconds", "pull=3s"]);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("tested nothing"), "{}", run.stderr);
}

#[test]
fn what_cannot_be_read_or_understood() {
    let run = report(&["/nowhere/engine.log"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("/nowhere/engine.log") && run.stderr.contains("No such file"),
        "{}",
        run.stderr
    );
    let run = report(&["Cargo.toml"]);
    assert_eq!(run.code, 1);
    assert!(
        run.stderr.contains("Cargo.toml") && run.stderr.contains("vLLM") && run.stderr.contains("SGLang"),
        "{}",
        run.stderr
    );
    assert_eq!(report(&[]).code, 2);
    assert_eq!(report(&["-", "-"]).code, 2);
    let directory = tempfile::tempdir().unwrap();
    let kept = directory.path().join("kept");
    fs::write(&kept, "kept").unwrap();
    assert_eq!(report(&["Cargo.toml", "--output", kept.to_str().unwrap()]).code, 1);
    assert_eq!(fs::read_to_string(kept).unwrap(), "kept");
}

#[test]
fn without_times_of_day_there_is_no_total() {
    let text = b"Loading weights took 3.00 seconds\ninit engine (profile, create kv cache, warmup model) took 9.50 seconds\n";
    let report = report_of_texts(&[("a", text)], &ReportOptions::default()).unwrap();
    let run = &report.runs[0];
    assert_eq!(run.total, None);
    assert_eq!(run.seconds(PhaseName::Weights), Some(3.0));
    assert_eq!(run.seconds(PhaseName::EngineInit), Some(9.5));
    assert_eq!(run.seconds(PhaseName::Compile), None);
}

fn fixture() -> Vec<u8> {
    let mut text = Vec::new();
    let file = fs::File::open(data("startup-cold-aot.log.gz")).unwrap();
    flate2::read::MultiGzDecoder::new(file).read_to_end(&mut text).unwrap();
    text
}

fn told(text: &[u8]) -> Option<Run> {
    report_of_texts(&[("a", text)], &ReportOptions::default()).ok().map(|mut report| report.runs.remove(0))
}

/// A phase, its seconds, and what of them counts.
type Outcome = (PhaseName, Option<f64>, Option<f64>);

/// What a run says without where it says so.
fn outcome(run: &Run) -> (Option<f64>, Vec<Outcome>) {
    (run.total, run.phases.iter().map(|phase| (phase.phase, phase.seconds, phase.counted)).collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn unknown_lines_do_no_harm(
        strange in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..8),
        places in prop::collection::vec(any::<prop::sample::Index>(), 8),
        words in prop::collection::vec("[ -~]{0,80}", 1..8),
    ) {
        let text = fixture();
        let mut lines: Vec<Vec<u8>> = text.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
        let before = outcome(&told(&text).unwrap());
        let known = ["2026-01-01T00:00:00Z warm-up took 5 s", "{\"time\":\"2020-01-01T00:00:00Z\",\"msg\":\"x\"}", "real\t1m16s"];
        let all = strange.into_iter().chain(words.into_iter().map(String::into_bytes)).chain(known.map(|line| line.as_bytes().to_vec()));
        for (line, place) in all.zip(places.iter().cycle()) {
            let at = place.index(lines.len());
            lines.insert(at, line);
        }
        prop_assert_eq!(outcome(&told(&lines.join(&b'\n')).unwrap()), before);
    }

    #[test]
    fn a_log_may_end_anywhere(place in any::<prop::sample::Index>()) {
        let text = fixture();
        let cut = &text[..place.index(text.len())];
        if let Some(run) = told(cut) {
            let counted: f64 = run.phases.iter().filter_map(|phase| phase.counted).sum();
            prop_assert!(run.total.is_none_or(|total| counted <= total + 1e-3));
            prop_assert!(run.phases.iter().all(|phase| phase.seconds.is_none_or(|seconds| seconds >= 0.0)));
        }
    }

    #[test]
    fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        told(&bytes);
        let gzip = [&[0x1f, 0x8b][..], &bytes].concat();
        told(&gzip);
    }
}
