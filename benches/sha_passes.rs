//! The floor under packing: four SHA-256 passes over files, nothing else.
//!
//! A stored eStargz layer costs four digests of every byte: the chunk's, the file's, the uncompressed layer's and the
//! blob's. This reads each block of a file once and hashes it four times, as many files at once as there are threads,
//! and prints one line of JSON. `benches/pack_throughput.py` sets `starcar pack` against it.
//!
//! ```text
//! cargo bench --bench sha_passes -- [--threads N] FILE...
//! ```

#![allow(missing_docs, clippy::print_stdout, clippy::print_stderr)]

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use sha2::{Digest, Sha256};

const PASSES: usize = 4;
/// Small enough that the second to fourth pass find the block in the core's own cache.
const BLOCK: usize = 256 * 1024;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sha_passes: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: impl Iterator<Item = String>) -> io::Result<String> {
    let mut threads = std::thread::available_parallelism()?.get();
    let mut files = Vec::new();
    let mut arguments = arguments.filter(|argument| argument != "--bench");
    while let Some(argument) = arguments.next() {
        if argument == "--threads" {
            let count = arguments.next().and_then(|count| count.parse().ok());
            threads = count.ok_or_else(|| io::Error::other("--threads takes a number"))?;
        } else {
            files.push(PathBuf::from(argument));
        }
    }
    let begin = Instant::now();
    let bytes = hash_all(&files, threads)?;
    let seconds = begin.elapsed().as_secs_f64();
    let files = files.len();
    Ok(format!(
        r#"{{"bytes":{bytes},"seconds":{seconds:.6},"threads":{threads},"files":{files},"passes":{PASSES}}}"#
    ))
}

/// Hashes every file, each by one of `threads` threads, and returns how many bytes they hold.
fn hash_all(files: &[PathBuf], threads: usize) -> io::Result<u64> {
    let next = AtomicUsize::new(0);
    let work = || -> io::Result<u64> {
        let mut bytes = 0;
        while let Some(file) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
            bytes += hash_file(file)?;
        }
        Ok(bytes)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().map_err(|_| io::Error::other("a thread panicked"))?)
            .sum()
    })
}

fn hash_file(path: &Path) -> io::Result<u64> {
    let name = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let mut file = File::open(path).map_err(name)?;
    let mut hashers: [Sha256; PASSES] = std::array::from_fn(|_| Sha256::new());
    let mut block = vec![0; BLOCK];
    let mut bytes = 0;
    loop {
        let length = file.read(&mut block).map_err(name)?;
        if length == 0 {
            break;
        }
        bytes += length as u64;
        for hasher in &mut hashers {
            hasher.update(&block[..length]);
        }
    }
    // All four digests must be the same, and so must be computed.
    let [first, rest @ ..] = hashers.map(Sha256::finalize);
    if rest.iter().any(|digest| *digest != first) {
        return Err(io::Error::other("four passes over one file differ"));
    }
    Ok(bytes)
}
