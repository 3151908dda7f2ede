//! Arguments that a user gives an engine, where starcar sets the same: which of the two counts, and which are refused
//! because something else in the manifest has to say it as well. Must not know objects.

use super::{
    DeployError,
    options::{EngineKind, Load, ObjectKind, Options},
};

/// Names of one argument; the first is the one that messages use. Those that load weights are one: who sets one of them
/// decides how weights are read.
const MODEL: &[&str] = &["--model", "--model-path"];
const PORT: &[&str] = &["--port"];
const SERVED: &[&str] = &["--served-model-name"];
const LOAD: &[&str] = &["--load-format", "--safetensors-load-strategy"];
const TENSOR: &[&str] = &["--tensor-parallel-size", "-tp", "--tp-size", "--tp"];
const PIPELINE: &[&str] = &["--pipeline-parallel-size", "-pp", "--pp-size", "--pp"];
const DATA: &[&str] = &["--data-parallel-size", "-dp", "--dp-size", "--dp"];
const CERTIFICATE: &[&str] = &["--ssl-certfile"];
const GROUPS: [&[&str]; 8] = [MODEL, PORT, SERVED, LOAD, TENSOR, PIPELINE, DATA, CERTIFICATE];

/// Arguments of which some ranks are elsewhere, or are counted otherwise.
const OTHER_RANKS: &[&str] =
    &["--enable-dp-attention", "--data-parallel-size-local", "--nnodes", "--headless", "--dist-init-addr"];

/// A file of arguments.
const CONFIG: &str = "--config";

/// The user's arguments, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Given {
    words: Vec<(String, Option<String>)>,
}

impl Given {
    /// Reads `words`: `--name=value`, `--name value`, and `--name_of` as vLLM takes it; names may be cut short.
    fn of(words: &[String]) -> Self {
        let mut found = Vec::new();
        for (index, word) in words.iter().enumerate() {
            if !word.starts_with('-') {
                continue;
            }
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.as_str(), words.get(index + 1).map(String::as_str)),
            };
            found.push((whole(&name.replace('_', "-")).to_owned(), value.map(str::to_owned)));
        }
        Self { words: found }
    }

    /// The last argument that has one of `names`, which is the one that counts, and its value.
    fn last(&self, names: &[&str]) -> Option<&(String, Option<String>)> {
        self.words.iter().rev().find(|(name, _)| names.contains(&name.as_str()))
    }

    /// Whether the user decides what starcar's argument `name` would.
    pub(super) fn has(&self, name: &str) -> bool {
        let alone = [name];
        let group = GROUPS.into_iter().find(|group| group.contains(&name)).unwrap_or(&alone);
        self.last(group).is_some()
    }

    /// Whether the user decides how many ranks of which kind there are.
    pub(super) fn has_ranks(&self) -> bool {
        let is_other = self.last(OTHER_RANKS).is_some();
        self.has("--tensor-parallel-size")
            || (!is_other && (self.last(PIPELINE).is_some() || self.last(DATA).is_some()))
    }

    /// Processes that the arguments make, where they tell it.
    fn ranks(&self) -> Option<u64> {
        if !self.has_ranks() || self.last(OTHER_RANKS).is_some() {
            return None;
        }
        [TENSOR, PIPELINE, DATA].into_iter().try_fold(1_u64, |product, names| match self.last(names) {
            None => Some(product),
            Some((_, value)) => product.checked_mul(value.as_ref()?.parse().ok().filter(|count| *count > 0)?),
        })
    }
}

/// The argument that `name` is the beginning of, or itself: Python's argparse takes what fits one argument alone. Shorter ones
/// than these fit several of the engines' arguments.
fn whole(name: &str) -> &str {
    let known = || GROUPS.into_iter().flatten().chain(OTHER_RANKS).copied();
    if name.len() < "--load".len() || known().any(|each| each == name) {
        return name;
    }
    known().find(|each| each.starts_with(name)).unwrap_or(name)
}

/// Reads the user's arguments, and refuses those that would make the manifest contradict itself. `gpus` are the pod's.
pub(super) fn given(options: &Options, gpus: u64, warnings: &mut Vec<String>) -> Result<Given, DeployError> {
    let all = Given::of(&options.engine_arguments);
    // What a custom engine's arguments mean is known to the user alone.
    if options.engine == EngineKind::Custom {
        return Ok(Given { words: Vec::new() });
    }
    let refused = |names: &[&str], instead: &str| match all
        .words
        .iter()
        .find(|(name, _)| names.contains(&name.as_str()))
    {
        Some((name, _)) => {
            Err(DeployError::Usage(format!("the engine's argument {name} is starcar's to set: {instead}")))
        }
        None => Ok(()),
    };
    if all.last(&[CONFIG]).is_some() {
        warnings.push(format!(
            "the engine reads more arguments from its {CONFIG} file, which is not read here: see that it sets no model, port, \
             load format or ranks"
        ));
    }
    refused(MODEL, "the model is at /mnt/models, where the pod has it; leave it out")?;
    // A cluster's runtime has a port and names of its own.
    if options.runtime.is_none() {
        refused(PORT, "the probes and the Service ask that port as well; say --set port=PORT")?;
        if options.kind == ObjectKind::LlmInferenceService {
            refused(SERVED, "KServe's object has the name as well; say --set served-model-name=NAME")?;
        }
        if options.load != Load::Auto && all.has("--load-format") {
            return Err(DeployError::Usage(
                "--load and the engine's own argument both say how weights are read; leave out one of them"
                    .to_owned(),
            ));
        }
    }
    match all.ranks() {
        Some(ranks) if gpus > 0 && ranks > gpus => {
            return Err(DeployError::Usage(format!(
                "the engine's arguments make {ranks} ranks, and the pod has {gpus} GPU{}: say --gpus {ranks}",
                if gpus == 1 { "" } else { "s" }
            )));
        }
        Some(ranks) if ranks < gpus => warnings.push(format!(
            "the pod asks for {gpus} GPUs, and the engine's arguments make {ranks} rank{}: the others stay idle",
            if ranks == 1 { "" } else { "s" }
        )),
        _ => {}
    }
    Ok(all)
}

/// A word that reaches a container as it is: Kubernetes makes one of two dollars, and replaces `$(NAME)`. Where KServe
/// takes the object for a template (`is_template`), `{{` is what Go's templates print as `{{`.
///
/// Source: KServe's `ReplaceVariables` (`LLMInferenceService`) and `ReplacePlaceholders` (a runtime's container); both
/// read the object's JSON as a template, and JSON leaves backquotes alone.
pub(super) fn verbatim(word: &str, is_template: bool) -> String {
    let word = word.replace('$', "$$");
    if is_template { templated(&word) } else { word }
}

/// A text as KServe's templates print it.
pub(super) fn templated(text: &str) -> String {
    text.replace("{{", "{{`{{`}}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Given {
        Given::of(&words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn arguments_are_known_in_every_spelling() {
        for words in [
            &["--tensor-parallel-size=2"][..],
            &["--tensor-parallel-size", "2"],
            &["--tensor_parallel_size=2"],
            &["--seed", "1", "-tp", "2"],
            &["-tp=2"],
            &["--tp-size", "2"],
            &["--tp", "8", "--tp", "2"],
            &["--tensor-p", "2"],
            &["--tensor_parallel=2"],
        ] {
            assert!(of(words).has("--tensor-parallel-size"), "{words:?}");
            assert_eq!(of(words).ranks(), Some(2), "{words:?}");
        }
        assert!(!of(&["--portable", "port", "--tensor-parallel"]).has("--port"));
        // Too short to be one of an engine's, or none of these.
        assert!(!of(&["--pip", "2", "--po", "1"]).has_ranks());
        assert!(of(&["--load-format", "dummy"]).has("--safetensors-load-strategy"));
    }

    #[test]
    fn ranks_are_counted_where_they_are_told() {
        assert_eq!(of(&["-tp", "2", "-pp", "2", "--data-parallel-size=2"]).ranks(), Some(8));
        assert_eq!(of(&["--pipeline-parallel-size", "4"]).ranks(), Some(4));
        for untold in [
            &["--seed", "1"][..],
            &["-tp"],
            &["-tp", "many"],
            &["-tp", "0"],
            &["-tp", "18446744073709551615", "-pp", "2"],
            &["--tp", "8", "--dp-size", "8", "--enable-dp-attention"],
        ] {
            assert_eq!(of(untold).ranks(), None, "{untold:?}");
        }
        assert!(!of(&["--dp-size", "8", "--enable-dp-attention"]).has_ranks());
    }

    #[test]
    fn words_reach_the_engine_through_kubernetes_and_templates() {
        assert_eq!(verbatim("$(HOME) {{ x }}", false), "$$(HOME) {{ x }}");
        assert_eq!(verbatim("{{ .Name }}{{{", true), "{{`{{`}} .Name }}{{`{{`}}{");
    }
}
