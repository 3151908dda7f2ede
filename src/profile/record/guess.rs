//! What a command line tells of the engine. Nothing is guessed that it does not say.

use std::{ffi::OsString, path::Path};

/// Programs and Python modules, by the beginning of their names, and what they are.
const ENGINES: [(&str, &str); 6] = [
    ("vllm", "vllm"),
    ("sglang", "sglang"),
    ("lmdeploy", "lmdeploy"),
    ("trtllm", "tensorrt-llm"),
    ("tensorrt_llm", "tensorrt-llm"),
    ("text-generation-launcher", "text-generation-inference"),
];

/// The engine that a command runs, as far as its words tell: its program, a script that an interpreter runs, or a
/// module (`python -m`).
pub fn guess_engine(command: &[OsString]) -> Option<&'static str> {
    let words: Vec<&str> = command.iter().map_while(|word| word.to_str()).collect();
    let name = |word: &str| Path::new(word).file_name()?.to_str().map(str::to_owned);
    let program = name(words.first()?)?;
    let subject = if program.starts_with("python") {
        match words.iter().position(|word| *word == "-m") {
            Some(flag) => (*words.get(flag + 1)?).to_owned(),
            None => name(words.iter().skip(1).find(|word| !word.starts_with('-'))?)?,
        }
    } else {
        program
    };
    let is = |engine: &str| {
        subject.strip_prefix(engine).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '-']))
    };
    ENGINES.iter().find(|(begin, _)| is(begin)).map(|(_, engine)| *engine)
}

/// How the engine loads weights, where the command says so with `--load-format`.
pub fn guess_loader(command: &[OsString]) -> Option<String> {
    let mut words = command.iter().filter_map(|word| word.to_str());
    while let Some(word) = words.next() {
        if word == "--load-format" {
            return words.next().map(str::to_owned);
        }
        if let Some(loader) = word.strip_prefix("--load-format=") {
            return Some(loader.to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_the_words_say() {
        for (line, engine) in [
            ("vllm serve {model}", Some("vllm")),
            ("/opt/venv/bin/vllm serve x", Some("vllm")),
            ("python3 -m vllm.entrypoints.openai.api_server", Some("vllm")),
            ("python /opt/venv/bin/vllm serve x", Some("vllm")),
            ("python -u -m sglang.launch_server", Some("sglang")),
            ("trtllm-serve x", Some("tensorrt-llm")),
            ("text-generation-launcher", Some("text-generation-inference")),
            ("python load.py vllm", None),
            ("vllmish", None),
            ("sh -c vllm", None),
        ] {
            assert_eq!(guess_engine(&words(line)), engine, "{line}");
        }
        assert_eq!(
            guess_loader(&words("vllm serve --load-format runai_streamer")).unwrap(),
            "runai_streamer"
        );
        assert_eq!(guess_loader(&words("vllm serve --load-format=dummy x")).unwrap(), "dummy");
        assert_eq!(guess_loader(&words("vllm serve")), None);
    }
}
