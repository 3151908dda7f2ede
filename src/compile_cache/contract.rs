//! What the serving side must do so that caches are used: copy them to where engines can write, and set variables.
//! An image carries a record of each of its caches, from which all of this follows. Must not know layers or OCI.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use super::{Kind, identity::Identity, relocate::is_plain_directory};

/// Where the model is for the engine: KServe mounts it there.
pub const MOUNTED_AT_DEFAULT: &str = "/mnt/models";

/// Where caches are at run time if nobody says otherwise. A read-only mount will not do: vLLM fails when it cannot
/// write what it missed, and FlashInfer always writes.
pub const AT_DEFAULT: &str = "/tmp/compile-cache";

/// A cache of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheRecord {
    /// Its name.
    pub name: String,
    /// What made it.
    pub kind: Kind,
    /// Its directory, relative to the model's.
    pub directory: String,
    /// The absolute directory that it will have at run time, and that paths in it name.
    pub at: String,
    /// Number of files.
    pub files: u64,
    /// Their bytes.
    pub size: u64,
    /// Number of entries: vLLM's keys, Triton's kernels; 0 where the kind has none.
    #[serde(default)]
    pub entries: u64,
    /// vLLM's keys.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<String>,
    /// The GPU target whose image has it: `sm90`, `gfx942`, `cpu`; `None` where all have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// For a file of torch's artifacts, its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// What it is good for.
    pub identity: Identity,
}

impl CacheRecord {
    /// Reads the records that an image carries. They end up in a shell's input, so that one with a path that is more
    /// than a path is refused.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse_all(json: &str) -> Result<Vec<Self>, String> {
        let records: Vec<Self> = serde_json::from_str(json).map_err(|error| error.to_string())?;
        for record in &records {
            let relative = [Some(&record.name), Some(&record.directory), record.file.as_ref()];
            let odd = relative.into_iter().flatten().find(|path| !is_plain_directory(&format!("/{path}")));
            if let Some(path) = odd.or((!is_plain_directory(&record.at)).then_some(&record.at)) {
                return Err(format!("`{}` is no plain path", path.escape_debug()));
            }
        }
        Ok(records)
    }
}

/// An environment variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Variable {
    /// Its name.
    pub name: &'static str,
    /// Its value.
    pub value: String,
}

/// How the caches of an image are used.
#[derive(Debug, Clone, Copy)]
pub struct Contract<'a> {
    /// The caches.
    pub records: &'a [CacheRecord],
    /// Absolute directory where the engine sees the model.
    pub mounted_at: &'a str,
    /// Absolute directory to which caches are copied instead of the one that they were packed for.
    pub at: Option<&'a str>,
}

impl Contract<'_> {
    /// The variables that point engines to the caches.
    pub fn variables(&self) -> Vec<Variable> {
        let variable = |record: &CacheRecord| {
            Some(Variable { name: record.kind.variable()?, value: self.place(record) })
        };
        self.records.iter().filter_map(variable).collect()
    }

    /// Where `record` lies for the engine before it is copied.
    pub fn source(&self, record: &CacheRecord) -> String {
        format!("{}/{}", self.mounted_at, record.directory)
    }

    /// Where `record` lies after it was copied.
    pub fn place(&self, record: &CacheRecord) -> String {
        match self.at {
            // Ninja's records name the place where a workspace was built.
            Some(at) if record.kind != Kind::FlashInfer => format!("{at}/{}", record.name),
            _ => record.at.clone(),
        }
    }

    /// A snippet for `sh`, busybox's included, that copies the caches and exports the variables; to be sourced, or
    /// put before the engine's command. `name` is the image's, for the comment.
    pub fn shell(&self, name: &str) -> String {
        let mut text = format!(
            "# Compile caches of {}: copied because engines write to them. Run this before the engine starts.\n",
            // A comment ends with its line.
            name.escape_debug()
        );
        for record in self.records {
            self.copy(record, &mut text);
        }
        let _ = writeln!(text, "# Serve with --model {}: vLLM's keys cover the path.", self.mounted_at);
        if self.records.iter().any(|record| record.kind == Kind::Vllm) {
            text.push_str(
                "# To test the caches, set VLLM_FORCE_AOT_LOAD=1: vLLM then fails where it would compile again.\n",
            );
        }
        text
    }

    fn copy(&self, record: &CacheRecord, text: &mut String) {
        let (mut from, place) = (self.source(record), self.place(record));
        let mut to = place.clone();
        // The base may be a home: its own mode and times are not the cache's to set.
        if record.kind == Kind::FlashInfer {
            from.push_str("/.cache/flashinfer");
            to.push_str("/.cache/flashinfer");
        }
        let name = &record.name;
        let mut line = |line: &str| {
            text.push_str(line);
            text.push('\n');
        };
        line(&format!("if mkdir -p {to} && [ -w {to} ]; then"));
        // -f: a second run meets the links that busybox made in the first, and cannot make them again. What cp says
        // is shown only where it fails: busybox has a line for each file whose owner it may not set.
        line(&format!("  starcar_said=$(cp -Rpf {from}/. {to}/ 2>&1) || printf '%s\\n' \\"));
        line(&format!(
            "    'starcar: the {name} cache was not copied whole to {to}; what is missing is compiled again' \\"
        ));
        line("    \"$starcar_said\" >&2");
        if place != record.at {
            for pattern in ["__grp__*.json", "vllm_compile_cache.py"] {
                let sed = format!("sed -i 's|{}/|{place}/|g' {{}} +", record.at);
                line(&format!("  find {to} -name '{pattern}' -exec {sed} || :"));
            }
        }
        if let Some(variable) = record.kind.variable() {
            line(&format!("  export {variable}={place}"));
        } else if let Some(file) = &record.file {
            line(&format!(
                "  # Python: torch.compiler.load_cache_artifacts(open('{to}/{file}', 'rb').read())"
            ));
        }
        line("else");
        line(&format!("  echo 'starcar: {to} cannot be written; the {name} cache is not used' >&2"));
        line("fi");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: Kind, at: &str) -> CacheRecord {
        CacheRecord {
            name: kind.name().to_owned(),
            kind,
            directory: format!("compile-cache/{kind}"),
            at: at.to_owned(),
            files: 1,
            size: 1,
            entries: 0,
            keys: Vec::new(),
            target: None,
            file: (kind == Kind::Artifacts).then(|| "a.bin".to_owned()),
            identity: Identity::default(),
        }
    }

    #[test]
    fn caches_are_copied_to_where_they_can_be_written() {
        let records = [
            record(Kind::Vllm, "/tmp/compile-cache/vllm"),
            record(Kind::FlashInfer, "/root"),
            record(Kind::Artifacts, "/tmp/compile-cache/artifacts"),
        ];
        let contract = Contract { records: &records, mounted_at: MOUNTED_AT_DEFAULT, at: None };
        insta::assert_snapshot!(contract.shell("models/a:v1"), @r#"
        # Compile caches of models/a:v1: copied because engines write to them. Run this before the engine starts.
        if mkdir -p /tmp/compile-cache/vllm && [ -w /tmp/compile-cache/vllm ]; then
          starcar_said=$(cp -Rpf /mnt/models/compile-cache/vllm/. /tmp/compile-cache/vllm/ 2>&1) || printf '%s\n' \
            'starcar: the vllm cache was not copied whole to /tmp/compile-cache/vllm; what is missing is compiled again' \
            "$starcar_said" >&2
          export VLLM_CACHE_ROOT=/tmp/compile-cache/vllm
        else
          echo 'starcar: /tmp/compile-cache/vllm cannot be written; the vllm cache is not used' >&2
        fi
        if mkdir -p /root/.cache/flashinfer && [ -w /root/.cache/flashinfer ]; then
          starcar_said=$(cp -Rpf /mnt/models/compile-cache/flashinfer/.cache/flashinfer/. /root/.cache/flashinfer/ 2>&1) || printf '%s\n' \
            'starcar: the flashinfer cache was not copied whole to /root/.cache/flashinfer; what is missing is compiled again' \
            "$starcar_said" >&2
          export FLASHINFER_WORKSPACE_BASE=/root
        else
          echo 'starcar: /root/.cache/flashinfer cannot be written; the flashinfer cache is not used' >&2
        fi
        if mkdir -p /tmp/compile-cache/artifacts && [ -w /tmp/compile-cache/artifacts ]; then
          starcar_said=$(cp -Rpf /mnt/models/compile-cache/artifacts/. /tmp/compile-cache/artifacts/ 2>&1) || printf '%s\n' \
            'starcar: the artifacts cache was not copied whole to /tmp/compile-cache/artifacts; what is missing is compiled again' \
            "$starcar_said" >&2
          # Python: torch.compiler.load_cache_artifacts(open('/tmp/compile-cache/artifacts/a.bin', 'rb').read())
        else
          echo 'starcar: /tmp/compile-cache/artifacts cannot be written; the artifacts cache is not used' >&2
        fi
        # Serve with --model /mnt/models: vLLM's keys cover the path.
        # To test the caches, set VLLM_FORCE_AOT_LOAD=1: vLLM then fails where it would compile again.
        "#);
    }

    #[test]
    fn records_cannot_smuggle_commands_into_a_shell() {
        let good = [record(Kind::Artifacts, "/tmp/compile-cache/artifacts")];
        assert_eq!(CacheRecord::parse_all(&serde_json::to_string(&good).unwrap()).unwrap(), good);
        let evil = "x; touch /tmp/owned";
        for change in [
            |record: &mut CacheRecord, evil: &str| record.name = evil.to_owned(),
            |record: &mut CacheRecord, evil: &str| record.directory = evil.to_owned(),
            |record: &mut CacheRecord, evil: &str| record.at = format!("/{evil}"),
            |record: &mut CacheRecord, evil: &str| record.file = Some(evil.to_owned()),
        ] {
            let mut bad = good.clone();
            change(&mut bad[0], evil);
            assert!(CacheRecord::parse_all(&serde_json::to_string(&bad).unwrap()).is_err());
        }
    }

    #[test]
    fn another_place_is_written_into_the_files() {
        let records = [record(Kind::Triton, "/tmp/compile-cache/triton"), record(Kind::FlashInfer, "/root")];
        let contract = Contract { records: &records, mounted_at: "/models", at: Some("/cache") };
        insta::assert_snapshot!(contract.shell("models/a:v1"), @r#"
        # Compile caches of models/a:v1: copied because engines write to them. Run this before the engine starts.
        if mkdir -p /cache/triton && [ -w /cache/triton ]; then
          starcar_said=$(cp -Rpf /models/compile-cache/triton/. /cache/triton/ 2>&1) || printf '%s\n' \
            'starcar: the triton cache was not copied whole to /cache/triton; what is missing is compiled again' \
            "$starcar_said" >&2
          find /cache/triton -name '__grp__*.json' -exec sed -i 's|/tmp/compile-cache/triton/|/cache/triton/|g' {} + || :
          find /cache/triton -name 'vllm_compile_cache.py' -exec sed -i 's|/tmp/compile-cache/triton/|/cache/triton/|g' {} + || :
          export TRITON_CACHE_DIR=/cache/triton
        else
          echo 'starcar: /cache/triton cannot be written; the triton cache is not used' >&2
        fi
        if mkdir -p /root/.cache/flashinfer && [ -w /root/.cache/flashinfer ]; then
          starcar_said=$(cp -Rpf /models/compile-cache/flashinfer/.cache/flashinfer/. /root/.cache/flashinfer/ 2>&1) || printf '%s\n' \
            'starcar: the flashinfer cache was not copied whole to /root/.cache/flashinfer; what is missing is compiled again' \
            "$starcar_said" >&2
          export FLASHINFER_WORKSPACE_BASE=/root
        else
          echo 'starcar: /root/.cache/flashinfer cannot be written; the flashinfer cache is not used' >&2
        fi
        # Serve with --model /models: vLLM's keys cover the path.
        "#);
        let values: Vec<String> = contract.variables().into_iter().map(|variable| variable.value).collect();
        assert_eq!(values, ["/cache/triton", "/root"]);
    }
}
