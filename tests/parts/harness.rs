//! A model, copies of it, caches and bases, and workers that pack them.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use crate::support::{
    command::{Run, starcar},
    hub::safetensors,
    noise::noise,
};

pub(crate) const TAG: &str = "v1";
/// Another worker's copy of the model.
pub(crate) const COPY: &str = "worker/model";

/// A model of some shards, copies of it, and places for images.
pub(crate) struct Place {
    pub(crate) directory: tempfile::TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap() };
        for name in ["model", COPY] {
            place.model(name, 0);
        }
        // Two of the smallest files that pass for static multi-call binaries.
        for (name, machine) in [("amd64", 62_u8), ("arm64", 183)] {
            let mut bytes = vec![0; 120];
            bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
            (bytes[18], bytes[32], bytes[54], bytes[56], bytes[64]) = (machine, 64, 56, 1, 1);
            bytes.extend(b"\0ln\0ls\0mkdir\0sh\0sleep\0");
            fs::create_dir(place.path(name)).unwrap();
            fs::write(place.path(name).join("busybox"), bytes).unwrap();
        }
        for (name, architecture) in [("old", 75), ("new", 90)] {
            place.cache(name, architecture);
        }
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    pub(crate) fn oci(&self, name: &str) -> String {
        format!("oci:{}:{TAG}", self.path(name).display())
    }

    /// A model whose files were written just now: three shards that begin alike for all seeds.
    pub(crate) fn model(&self, name: &str, seed: u64) {
        let model = self.path(name);
        fs::create_dir_all(&model).unwrap();
        fs::write(model.join("config.json"), format!("{:<480}", "{\"model_type\": \"llama\"}")).unwrap();
        fs::write(model.join("README.md"), "---\nlicense: other\nlicense_name: Mine\n---\n").unwrap();
        fs::write(model.join("tokenizer.json"), "[0, 1, 2]".repeat(500)).unwrap();
        for shard in 1..4_u64 {
            let mut tensor = vec![7; 70_000];
            // Half of the bytes say nothing, so that weights are worth compressing.
            tensor.extend(
                noise(30_000 * usize::try_from(shard).unwrap(), seed + shard)
                    .iter()
                    .flat_map(|byte| [0, *byte]),
            );
            let content = safetensors(&tensor);
            fs::write(model.join(format!("model-0000{shard}-of-00003.safetensors")), content).unwrap();
        }
    }

    /// Triton's cache for an architecture, whose files have the same times in all copies.
    pub(crate) fn cache(&self, name: &str, architecture: u32) {
        let kernel = self.path(name).join("2KWZU5NBV7DGHTOQZNYQVHZHTW5Y7G5YTDWJ3UMSJ5OVQ5Z6YB6A");
        fs::create_dir_all(&kernel).unwrap();
        let json = format!(
            r#"{{"name": "add", "target": {{"backend": "cuda", "arch": {architecture}, "warp_size": 32}}}}"#
        );
        fs::write(kernel.join("add.json"), json).unwrap();
        fs::write(kernel.join("add.cubin"), "cubin").unwrap();
        age(&self.path(name), 1_700_000_000);
    }

    /// `--cache` for the targets.
    pub(crate) fn caches(&self) -> [String; 4] {
        let cache = |target: &str, name: &str| format!("triton@{target}={}", self.path(name).display());
        ["--cache".into(), cache("sm75", "old"), "--cache".into(), cache("sm90", "new")]
    }

    /// `--platform` with a base for each.
    pub(crate) fn platforms(&self) -> Vec<String> {
        let base = |name: &str| format!("linux/{name}={}", self.path(name).join("busybox").display());
        ["--platform", "linux/amd64,linux/arm64", "--base", &base("amd64"), "--base", &base("arm64")]
            .map(str::to_owned)
            .to_vec()
    }

    pub(crate) fn pack(&self, model: &str, arguments: &[&str]) -> Run {
        let model = self.text(model);
        // Options of the test come last, where they win.
        let has_base = arguments.contains(&"--base");
        let base: &[&str] = if has_base { &[] } else { &["--base", "scratch"] };
        starcar(&[&["pack", model.as_str(), "-q"], base, arguments].concat())
    }

    /// Makes parts of what `arguments` say into `to`, by workers that have copies of their own.
    pub(crate) fn parts(&self, of: u16, arguments: &[&str], to: &[&str]) {
        for index in (1..=of).rev() {
            let part = format!("{index}/{of}");
            let (model, threads) = if index % 2 == 0 { ("model", "1") } else { (COPY, "3") };
            let own = ["--part", &part, "--threads", threads];
            let run = done(self.pack(model, &[arguments, &own, to].concat()));
            assert!(run.stdout.starts_with("sha256:"), "{}", run.stdout);
        }
    }
}

pub(crate) fn age(root: &Path, seconds: u64) {
    for entry in walkdir::WalkDir::new(root).contents_first(true) {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        File::open(entry.unwrap().path()).unwrap().set_modified(time).unwrap();
    }
}

pub(crate) fn done(run: Run) -> Run {
    assert_eq!(run.code, 0, "{}", run.stderr);
    run
}

pub(crate) fn strings(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}
