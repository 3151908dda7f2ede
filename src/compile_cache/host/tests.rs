use std::os::unix::fs::PermissionsExt as _;

use super::*;

/// A program that a test may run.
fn script(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    // Another test that is being started may hold the file open for a moment longer.
    while let Err(cause) = std::process::Command::new(&path).output() {
        assert_eq!(cause.kind(), io::ErrorKind::ExecutableFileBusy);
    }
    path
}

fn programs(nvidia_smi: PathBuf, python: PathBuf) -> Programs {
    Programs { nvidia_smi, python: None, python_default: python, limit: Duration::from_secs(20) }
}

fn value(facts: &HostFacts, attribute: Attribute) -> Option<&str> {
    facts.get(attribute).map(|fact| fact.value.as_str())
}

#[test]
fn reads_the_gpu_and_the_packages() {
    let directory = tempfile::tempdir().unwrap();
    let smi = script(directory.path(), "smi", "echo 'NVIDIA H200, 9.0'; echo 'NVIDIA H200, 9.0'");
    let python = script(
        directory.path(),
        "python",
        r#"echo '{"python":"3.12.4","torch":"2.14.1+cu130","cuda":"13.0","triton":"3.9.0","vllm":"0.33.0"}'"#,
    );
    let facts = HostFacts::ask(&programs(smi, python.clone())).unwrap();
    for (attribute, expected) in [
        (Attribute::GpuName, "NVIDIA H200"),
        (Attribute::Architecture, "sm_90"),
        (Attribute::Backend, "cuda"),
        (Attribute::Python, "3.12.4"),
        (Attribute::Torch, "2.14.1+cu130"),
        (Attribute::Cuda, "13.0"),
        (Attribute::Triton, "3.9.0"),
        (Attribute::Engine, "vllm"),
        (Attribute::EngineVersion, "0.33.0"),
    ] {
        assert_eq!(value(&facts, attribute), Some(expected), "{attribute:?}");
    }
    assert_eq!(facts.get(Attribute::FlashInfer), None);
    assert_eq!(facts.get(Attribute::GpuName).unwrap().source, FactSource::NvidiaSmi);
    assert_eq!(facts.get(Attribute::Torch).unwrap().source, FactSource::Python(python));
    assert_eq!(facts.remarks, [] as [&str; 0]);
    assert_eq!(facts.processor.unwrap().value, std::env::consts::ARCH);
}

#[test]
fn absent_programs_are_remarks() {
    let absent = PathBuf::from("/does/not/exist");
    let facts = HostFacts::ask(&programs(absent.clone(), absent.clone())).unwrap();
    assert_eq!(value(&facts, Attribute::GpuName), None);
    assert_eq!(facts.remarks.len(), 2, "{:?}", facts.remarks);
    let asked = Programs { python: Some(absent.clone()), ..programs(absent.clone(), absent) };
    assert!(matches!(HostFacts::ask(&asked), Err(HostError::Python { .. })));
}

#[test]
fn programs_that_fail_or_talk_nonsense() {
    let directory = tempfile::tempdir().unwrap();
    let smi = script(directory.path(), "smi", "echo 'NVIDIA-SMI has failed'; exit 9");
    let python = script(directory.path(), "python", "echo nonsense");
    let facts = HostFacts::ask(&programs(smi.clone(), python.clone())).unwrap();
    assert_eq!(facts.remarks.len(), 2, "{:?}", facts.remarks);
    let asked = Programs { python: Some(python.clone()), ..programs(smi, python) };
    assert!(matches!(HostFacts::ask(&asked), Err(HostError::Python { .. })));
}

#[test]
fn gpus_that_differ() {
    let mut facts = HostFacts::default();
    facts.add_gpus("NVIDIA H100 80GB HBM3, 9.0\nNVIDIA H200, 9.0\n");
    assert_eq!(value(&facts, Attribute::GpuName), None);
    assert_eq!(value(&facts, Attribute::Architecture), Some("sm_90"));
    assert!(facts.remarks[0].contains("NVIDIA H100 80GB HBM3, NVIDIA H200"), "{:?}", facts.remarks);
    let mut facts = HostFacts::default();
    facts.add_gpus("Tesla T4, [N/A]\n");
    assert_eq!(value(&facts, Attribute::Architecture), Some("sm_75"));
    let mut facts = HostFacts::default();
    facts.add_gpus("No devices were found\n");
    assert_eq!(value(&facts, Attribute::Backend), None);
    assert_eq!(facts.remarks.len(), 1);
}

#[test]
fn what_the_user_gives() {
    let mut facts = HostFacts::default();
    facts.add_gpus("Tesla T4, 7.5");
    facts.give_gpu("H100").unwrap();
    assert_eq!(value(&facts, Attribute::GpuName), Some("H100"));
    assert_eq!(value(&facts, Attribute::Architecture), Some("sm_90"));
    facts.give_gpu("gfx942").unwrap();
    assert_eq!(value(&facts, Attribute::GpuName), None);
    assert_eq!(value(&facts, Attribute::Backend), Some("rocm"));
    assert_eq!(facts.get(Attribute::Architecture).unwrap().source, FactSource::Given);
    facts.give_gpu("NVIDIA GeForce GTX 1080").unwrap();
    assert_eq!(value(&facts, Attribute::Architecture), Some("sm_61"));
    facts.give_gpu("90").unwrap();
    assert_eq!(value(&facts, Attribute::GpuName), None);
    assert_eq!(value(&facts, Attribute::Architecture), Some("sm_90"));
    facts.give_gpu("H100").unwrap();
    facts.give_gpu("CPU").unwrap();
    assert_eq!(value(&facts, Attribute::GpuName), None);
    assert_eq!(value(&facts, Attribute::Architecture), None);
    assert_eq!(value(&facts, Attribute::Backend), Some("cpu"));
    let refused = facts.give_gpu("Voodoo").unwrap_err();
    assert!(matches!(refused, HostError::Gpu { .. }));
    assert!(refused.to_string().contains("such as 8.9"), "{refused}");
}

#[test]
fn the_script_reads_metadata_only() {
    let directory = tempfile::tempdir().unwrap();
    let python = PathBuf::from("python3");
    let packages = directory.path();
    for (name, version) in [("torch", "2.14.1"), ("vllm", "0.33.0"), ("triton", "3.9.0")] {
        let info = packages.join(format!("{name}-{version}.dist-info"));
        fs::create_dir(&info).unwrap();
        fs::write(
            info.join("METADATA"),
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"),
        )
        .unwrap();
        fs::create_dir(packages.join(name)).unwrap();
        fs::write(packages.join(name).join("__init__.py"), "raise SystemExit('imported')").unwrap();
    }
    fs::write(
        packages.join("torch/version.py"),
        "from typing import Optional\n__version__ = '2.14.1+cu130'\ncuda: Optional[str] = '13.0'\nhip: Optional[str] = None\n",
    )
    .unwrap();
    // `-I` ignores PYTHONPATH, so the path is put before the script.
    let text = format!("import sys; sys.path.insert(0, {packages:?})\n{SCRIPT}");
    let Ok(answer) = ask(&python, &["-I", "-c", &text], Duration::from_mins(1)) else {
        // No Python here: nothing to try.
        return;
    };
    let packages: Packages = serde_json::from_str(&answer).unwrap();
    assert_eq!(packages.torch, "2.14.1+cu130");
    assert_eq!((packages.cuda.as_str(), packages.rocm.as_str()), ("13.0", ""));
    assert_eq!((packages.vllm.as_str(), packages.triton.as_str()), ("0.33.0", "3.9.0"));
    assert!(packages.python.starts_with("3."));
}

#[test]
fn flags_of_processors() {
    for (flags, expected) in [
        ("flags\t\t: fpu fma avx2 avx512f avx512dq avx512vl avx512bw amx_tile", Some("avx512")),
        ("processor\t: 0\nflags\t\t: fpu fma avx2 avx512f", Some("avx2")),
        ("flags : sse2", None),
        ("Features : asimd", None),
        ("", None),
    ] {
        assert_eq!(instruction_set(flags), expected, "{flags}");
    }
}
