//! What a host has: given by the user, or read from `nvidia-smi` and a Python environment, each with where it is
//! from. No package is imported and no GPU library loaded. Must not know caches.

mod program;

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use self::program::{Silence, ask};
use super::{
    gpu::{architecture_of, is_architecture},
    identity::Attribute,
};

/// How long a program may take to answer.
const LIMIT: Duration = Duration::from_secs(10);

/// What is known of a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostFacts {
    facts: BTreeMap<Attribute, HostFact>,
    /// Architecture of the processor, such as `x86_64`; [`Attribute::Architecture`] is the GPU's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub processor: Option<HostFact>,
    /// What could not be read and why, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub remarks: Vec<String>,
}

/// A fact of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostFact {
    /// The value, written as in a cache's identity.
    pub value: String,
    /// Where it is from.
    pub source: FactSource,
}

/// Where a fact of a host is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FactSource {
    /// The user said so.
    Given,
    /// `nvidia-smi`.
    NvidiaSmi,
    /// A Python interpreter: its packages' metadata.
    Python(PathBuf),
    /// The operating system.
    System,
}

impl fmt::Display for FactSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Given => f.write_str("given"),
            Self::NvidiaSmi => f.write_str("nvidia-smi"),
            Self::Python(interpreter) => write!(f, "{}", interpreter.display()),
            Self::System => f.write_str("this system"),
        }
    }
}

/// Why a host's facts cannot be had. Only about what was asked for by name: what is merely not there is a remark.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The interpreter gives no answer.
    #[error("`{}` does not tell its packages; pass a Python interpreter (3.8 or later)", path.display())]
    Python {
        /// The interpreter.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The GPU is not in the table.
    #[error(
        "the GPU `{name}` is not in the table of GPUs; pass its architecture instead: the compute capability, \
         such as 8.9, of one by NVIDIA (nvidia-smi --query-gpu=compute_cap prints it), a name such as gfx942 of \
         one by AMD, or cpu where there is no GPU"
    )]
    Gpu {
        /// What was given.
        name: String,
    },
}

/// The programs to ask.
#[derive(Debug, Clone)]
pub struct Programs {
    /// `nvidia-smi`.
    pub nvidia_smi: PathBuf,
    /// The interpreter that the user named.
    pub python: Option<PathBuf>,
    /// The interpreter to try where the user named none.
    pub python_default: PathBuf,
    /// How long each may take.
    pub limit: Duration,
}

impl Default for Programs {
    fn default() -> Self {
        Self { nvidia_smi: "nvidia-smi".into(), python: None, python_default: "python3".into(), limit: LIMIT }
    }
}

impl HostFacts {
    /// What this host has, as far as it tells. Runs `nvidia-smi` and `python`, or `python3` where that is `None`.
    ///
    /// # Errors
    /// [`HostError::Python`] when the `python` that was passed gives no answer.
    pub fn read(python: Option<&Path>) -> Result<Self, HostError> {
        Self::ask(&Programs { python: python.map(Path::to_owned), ..Programs::default() })
    }

    /// As [`HostFacts::read`], of these programs.
    ///
    /// # Errors
    /// [`HostError::Python`] when the interpreter that the user named gives no answer.
    pub fn ask(programs: &Programs) -> Result<Self, HostError> {
        let mut facts = Self::default();
        facts.read_system();
        // Before Python: a driver is a better witness of the backend than a package.
        facts.read_gpus(programs);
        if let Some(python) = &programs.python {
            let packages = packages(python, programs.limit)
                .map_err(|cause| HostError::Python { path: python.clone(), cause })?;
            facts.add_packages(python, &packages);
        } else {
            let python = &programs.python_default;
            let other = "--interpreter names another Python";
            match packages(python, programs.limit) {
                Ok(packages) if packages.torch.is_empty() => facts.remark(format!(
                    "`{}` has no torch, so that it is not the engine's; {other}",
                    python.display()
                )),
                Ok(packages) => facts.add_packages(python, &packages),
                Err(cause) => facts
                    .remark(format!("`{}` does not tell its packages ({cause}); {other}", python.display())),
            }
        }
        Ok(facts)
    }

    /// A fact that the user gives; it takes the place of one that was read.
    pub fn give(&mut self, attribute: Attribute, value: impl Into<String>) {
        self.facts.insert(attribute, HostFact { value: value.into(), source: FactSource::Given });
    }

    /// The GPU that the user names: as `nvidia-smi` prints it, in short, or only its architecture; `cpu` for none.
    /// It takes the place of one that was read.
    ///
    /// # Errors
    /// [`HostError::Gpu`] when it is not in the table.
    pub fn give_gpu(&mut self, name: &str) -> Result<(), HostError> {
        if name.trim().eq_ignore_ascii_case("cpu") {
            self.facts.remove(&Attribute::GpuName);
            self.facts.remove(&Attribute::Architecture);
            self.give(Attribute::Backend, "cpu");
            return Ok(());
        }
        let architecture = architecture_of(name).ok_or_else(|| HostError::Gpu { name: name.to_owned() })?;
        self.facts.remove(&Attribute::GpuName);
        if !is_architecture(name) {
            self.give(Attribute::GpuName, name);
        }
        self.give(Attribute::Architecture, architecture);
        self.give(Attribute::Backend, if architecture.starts_with("gfx") { "rocm" } else { "cuda" });
        Ok(())
    }

    /// What is known of an attribute.
    pub fn get(&self, attribute: Attribute) -> Option<&HostFact> {
        self.facts.get(&attribute)
    }

    /// All that is known.
    pub fn iter(&self) -> impl Iterator<Item = (Attribute, &HostFact)> {
        self.facts.iter().map(|(attribute, fact)| (*attribute, fact))
    }

    fn remark(&mut self, remark: String) {
        self.remarks.push(remark);
    }

    fn add(&mut self, attribute: Attribute, value: &str, source: &FactSource) {
        if value.is_empty() {
            return;
        }
        let fact = HostFact { value: value.to_owned(), source: source.clone() };
        self.facts.entry(attribute).or_insert(fact);
    }

    fn read_system(&mut self) {
        self.processor =
            Some(HostFact { value: std::env::consts::ARCH.to_owned(), source: FactSource::System });
        if let Ok(text) = fs::read_to_string("/proc/cpuinfo")
            && let Some(set) = instruction_set(&text)
        {
            self.add(Attribute::InstructionSet, set, &FactSource::System);
        }
    }

    fn read_gpus(&mut self, programs: &Programs) {
        let query = ["--query-gpu=name,compute_cap", "--format=csv,noheader"];
        match ask(&programs.nvidia_smi, &query, programs.limit) {
            Ok(answer) => self.add_gpus(&answer),
            Err(Silence::NotRunnable(cause)) if cause.kind() == io::ErrorKind::NotFound => {
                self.remark("there is no nvidia-smi here; --gpu names the GPU".to_owned());
            }
            Err(cause) => {
                self.remark(format!("nvidia-smi names no GPU ({cause}); --gpu does"));
            }
        }
    }

    fn add_gpus(&mut self, answer: &str) {
        let source = FactSource::NvidiaSmi;
        let mut names: Vec<&str> = Vec::new();
        let mut architectures: Vec<String> = Vec::new();
        for line in answer.lines() {
            // A name may have a comma; a compute capability has none.
            let Some((name, capability)) = line.rsplit_once(',') else { continue };
            let (name, capability) = (name.trim(), capability.trim());
            let numbers = capability.split_once('.');
            let architecture = match numbers {
                Some((major, minor)) if is_number(major) && is_number(minor) => format!("sm_{major}{minor}"),
                // Old drivers do not tell it.
                _ => architecture_of(name).unwrap_or_default().to_owned(),
            };
            if !names.contains(&name) {
                names.push(name);
            }
            if !architectures.contains(&architecture) {
                architectures.push(architecture);
            }
        }
        match names.as_slice() {
            [] => return self.remark("nvidia-smi names no GPU; --gpu does".to_owned()),
            [name] => self.add(Attribute::GpuName, name, &source),
            several => self.remark(format!(
                "the GPUs differ ({}); --gpu names the one that the cache is for",
                several.join(", ")
            )),
        }
        self.add(Attribute::Backend, "cuda", &source);
        if let [architecture] = architectures.as_slice() {
            self.add(Attribute::Architecture, architecture, &source);
        }
    }

    fn add_packages(&mut self, python: &Path, packages: &Packages) {
        let source = FactSource::Python(python.to_owned());
        // A torch for CUDA says nothing of a GPU where nvidia-smi has none to tell of.
        let backend = match packages {
            Packages { rocm, .. } if !rocm.is_empty() => "rocm",
            Packages { torch, cuda, .. } if !torch.is_empty() && cuda.is_empty() => "cpu",
            _ => "",
        };
        for (attribute, value) in [
            (Attribute::Python, packages.python.as_str()),
            (Attribute::Torch, &packages.torch),
            (Attribute::Cuda, &packages.cuda),
            (Attribute::Rocm, &packages.rocm),
            (Attribute::Triton, &packages.triton),
            (Attribute::Engine, if packages.vllm.is_empty() { "" } else { "vllm" }),
            (Attribute::EngineVersion, &packages.vllm),
            (Attribute::FlashInfer, &packages.flashinfer),
            (Attribute::Backend, backend),
        ] {
            self.add(attribute, value, &source);
        }
    }
}

/// The versions that an interpreter has.
fn packages(python: &Path, limit: Duration) -> Result<Packages, Box<dyn std::error::Error + Send + Sync>> {
    let answer = ask(python, &["-I", "-c", SCRIPT], limit)?;
    Ok(serde_json::from_str(&answer)?)
}

/// What the script prints; empty for what is not installed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Packages {
    python: String,
    torch: String,
    cuda: String,
    rocm: String,
    triton: String,
    vllm: String,
    flashinfer: String,
}

/// Reads metadata only: importing torch takes seconds and wants its libraries. The metadata's version of torch
/// lacks what `torch/version.py` has: CUDA and, in some wheels, the `+cu130` that torch compares.
const SCRIPT: &str = r#"
import importlib.metadata as metadata, json, platform, re
def version(*names):
    for name in names:
        try:
            return metadata.version(name) or ""
        except Exception:
            pass
    return ""
facts = {
    "python": platform.python_version(),
    "torch": version("torch"),
    "triton": version("triton", "pytorch-triton", "pytorch-triton-rocm", "triton-rocm"),
    "vllm": version("vllm"),
    "flashinfer": version("flashinfer-python", "flashinfer"),
}
try:
    path = metadata.distribution("torch").locate_file("torch/version.py")
    with open(path, encoding="utf-8") as file:
        text = file.read(65536)
    for name, key in (("__version__", "torch"), ("cuda", "cuda"), ("hip", "rocm")):
        found = re.search(r"(?m)^" + name + r"\b[^=\n]*=\s*['\"]([^'\"]*)['\"]", text)
        if found:
            facts[key] = found.group(1)
except Exception:
    pass
print(json.dumps(facts))
"#;

/// The vector instructions that Inductor chooses on a processor with these flags (torch's `cpu_vec_isa.py`).
fn instruction_set(text: &str) -> Option<&'static str> {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags")?.split_once(':'))?.1;
    let has = |flag: &str| flags.split_ascii_whitespace().any(|word| word == flag);
    if ["avx512f", "avx512dq", "avx512vl", "avx512bw"].into_iter().all(has) && has("fma") {
        Some("avx512")
    } else if has("avx2") && has("fma") {
        Some("avx2")
    } else {
        None
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 3 && text.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests;
