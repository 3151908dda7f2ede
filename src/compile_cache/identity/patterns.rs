//! The texts that tell what a cache is for, and how to read what stands behind each. A text counts only where all of
//! it is there and nothing else: what looks almost like it says nothing. Must not know where texts come from.
//!
//! Sources, in torch 2.14 unless told otherwise: `DeviceProperties` in `torch/_inductor/runtime/hints.py`;
//! `system_info` in `FxGraphHashDetails` of `torch/_inductor/codecache.py`; the comments with versions in
//! `generate_compiler_repro_string` of `torch/_dynamo/repro/after_aot.py`; device guards in
//! `torch/_inductor/codegen/cuda/device_op_overrides.py`. The metadata of kernels: `triton/compiler/compiler.py` of
//! Triton 3.9. Collectives: `vllm/distributed/parallel_state.py` of vLLM 0.33.

mod cubin;
mod cursor;
#[cfg(test)]
mod tests;

use self::cursor::Cursor;
pub(super) use self::cursor::is_version;
use super::Attribute;

/// What a text says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Sight {
    /// A value.
    Value(Attribute, String),
    /// There is code for a processor.
    ProcessorCode,
    /// There is code for a device that is neither a processor nor one that CUDA or `ROCm` drives.
    OtherDevice,
    /// An instruction of a pickle that names torch's `SystemInfo`.
    SystemInfo,
}

/// A text to look for.
pub(super) struct Pattern {
    /// How it begins.
    pub(super) text: &'static [u8],
    /// Reads what follows; `None` where it is not what was looked for.
    read: fn(&mut Cursor<'_>) -> Option<Vec<Sight>>,
}

/// All texts; none begins with another one.
pub(super) static PATTERNS: [Pattern; 19] = [
    Pattern { text: b"DeviceProperties(type='", read: device_properties },
    Pattern { text: b"\"target\": {\"backend\": \"", read: triton_target },
    Pattern { text: b"\"triton_version\": \"", read: triton_version },
    Pattern { text: b".version ", read: ptx },
    Pattern { text: b"\x7fELF", read: cubin::read },
    Pattern { text: b"# torch version: ", read: torch_version },
    Pattern { text: b"# torch cuda version: ", read: cuda_version },
    Pattern { text: b"system_info[device]: {'name': '", read: device_name },
    Pattern { text: b"system_info[version]: {'triton': '", read: system_versions },
    Pattern { text: b"/lib/python3.", read: python },
    Pattern { text: b"/lib64/python3.", read: python },
    Pattern { text: b" = get_raw_stream(", read: device_index },
    Pattern { text: b"torch.cuda._DeviceGuard(", read: device_index },
    Pattern { text: b"device='cuda:", read: benchmark_device },
    Pattern { text: b"torch.ops.vllm.all_gather", read: tensor_parallel },
    Pattern { text: b"torch.ops.vllm.reduce_scatter", read: tensor_parallel },
    Pattern { text: b"async_compile.cpp_pybinding([", read: processor_code },
    Pattern { text: b"GNU C++", read: compiler_options },
    Pattern { text: b"\x8c\x0aSystemInfo", read: system_info },
];

/// Reads what stands behind a text: what it says, and how many bytes of it were read.
pub(super) fn read(text: &[u8], behind: &[u8]) -> Option<(Vec<Sight>, usize)> {
    let mut cursor = Cursor::new(behind);
    let pattern = PATTERNS.iter().find(|pattern| pattern.text == text)?;
    let sights = (pattern.read)(&mut cursor)?;
    Some((sights, cursor.used()))
}

fn value(attribute: Attribute, text: impl Into<String>) -> Sight {
    Sight::Value(attribute, text.into())
}

/// `cuda', index=0, multi_processor_count=40, cc=75, major=7, …, warp_size=32)`.
fn device_properties(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let kind = cursor.until(b'\'', 8)?;
    cursor.literal(b"', index=")?;
    let index = cursor.number();
    if index.is_none() {
        cursor.literal(b"None")?;
    }
    cursor.literal(b", multi_processor_count=")?;
    let multiprocessors = cursor.number()?;
    cursor.literal(b", cc=")?;
    let (backend, architecture) = match kind {
        "cuda" => ("cuda", format!("sm_{}", cursor.number()?)),
        "hip" => {
            cursor.literal(b"'")?;
            let architecture = gfx(cursor.until(b'\'', 60)?)?;
            cursor.literal(b"'")?;
            ("rocm", architecture)
        }
        "cpu" => return Some(vec![Sight::ProcessorCode]),
        _ => return Some(vec![Sight::OtherDevice]),
    };
    let mut sights = vec![
        value(Attribute::Backend, backend),
        value(Attribute::Architecture, architecture),
        value(Attribute::Multiprocessors, multiprocessors),
    ];
    sights.extend(index.map(|index| value(Attribute::DeviceIndex, index)));
    // The other fields differ between versions of torch.
    let rest = cursor.until(b')', 400)?;
    cursor.literal(b")")?;
    let warp_size = rest.split(", ").find_map(|field| field.strip_prefix("warp_size="));
    let warp_size =
        warp_size.filter(|size| !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_digit()));
    sights.extend(warp_size.map(|size| value(Attribute::WarpSize, size)));
    Some(sights)
}

/// `cuda", "arch": 75, "warp_size": 32}`.
fn triton_target(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let kind = cursor.until(b'"', 8)?;
    cursor.literal(b"\", \"arch\": ")?;
    let (backend, architecture) = match kind {
        "cuda" => ("cuda", format!("sm_{}", cursor.number()?)),
        "hip" => {
            cursor.literal(b"\"")?;
            let architecture = gfx(cursor.until(b'"', 60)?)?;
            cursor.literal(b"\"")?;
            ("rocm", architecture)
        }
        _ => return Some(vec![Sight::OtherDevice]),
    };
    cursor.literal(b", \"warp_size\": ")?;
    let warp_size = cursor.number()?;
    cursor.literal(b"}")?;
    Some(vec![
        value(Attribute::Backend, backend),
        value(Attribute::Architecture, architecture),
        value(Attribute::WarpSize, warp_size),
    ])
}

/// The architecture in `gfx942:sramecc+:xnack-`.
fn gfx(name: &str) -> Option<String> {
    let architecture = name.split(':').next()?;
    let digits = architecture.strip_prefix("gfx")?;
    let valid = (3..=5).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    valid.then(|| architecture.to_owned())
}

/// `3.5.1"`.
fn triton_version(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let version = cursor.until(b'"', 40)?;
    cursor.literal(b"\"")?;
    is_version(version).then(|| vec![value(Attribute::Triton, version)])
}

/// `8.7`, then `.target sm_75` on the next line: how PTX begins.
fn ptx(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let version = cursor.major_minor()?;
    cursor.literal(b"\n.target sm_")?;
    let architecture = cursor.sm()?;
    Some(vec![
        value(Attribute::Backend, "cuda"),
        value(Attribute::Ptx, version),
        value(Attribute::Architecture, format!("sm_{architecture}")),
    ])
}

fn torch_version(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let version = cursor.until(b'\n', 60)?;
    cursor.literal(b"\n")?;
    is_version(version).then(|| vec![value(Attribute::Torch, version)])
}

fn cuda_version(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let version = cursor.major_minor()?;
    cursor.literal(b"\n")?;
    Some(vec![value(Attribute::Cuda, version)])
}

/// `Tesla T4'}`. On `ROCm` it is the architecture.
fn device_name(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let name = cursor.until(b'\'', 100)?;
    cursor.literal(b"'}")?;
    Some(vec![match gfx(name) {
        Some(architecture) => value(Attribute::Architecture, architecture),
        None => value(Attribute::GpuName, name),
    }])
}

/// `3.5.1`, hashes of Triton's files with `-` between them, `', 'cuda': '12.8'}`.
fn system_versions(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    const HASH: usize = 64;
    let first = cursor.until(b'-', 40 + HASH)?;
    let version = first.get(..first.len().checked_sub(HASH)?).filter(|version| is_version(version))?;
    if !first.bytes().skip(version.len()).all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let hashes = cursor.until(b'\'', 12 << 10)?;
    if !hashes.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-') {
        return None;
    }
    let mut sights = vec![value(Attribute::Triton, version)];
    if cursor.literal(b"', 'cuda': '").is_some() {
        let version = cursor.major_minor()?;
        cursor.literal(b"'}")?;
        sights.push(value(Attribute::Cuda, version));
    } else if cursor.literal(b"', 'hip': '").is_some() {
        let version = cursor.major_minor()?;
        sights.extend([value(Attribute::Backend, "rocm"), value(Attribute::Rocm, version)]);
    }
    Some(sights)
}

/// `12/site-packages/`, perhaps with a package's version behind it.
fn python(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let minor = cursor.number()?;
    cursor.literal(b"/site-packages/").or_else(|| cursor.literal(b"/dist-packages/"))?;
    let mut sights = vec![value(Attribute::Python, format!("3.{minor}"))];
    for (package, attribute) in [
        (&b"torch-"[..], Attribute::Torch),
        (b"triton-", Attribute::Triton),
        (b"vllm-", Attribute::EngineVersion),
        (b"flashinfer_python-", Attribute::FlashInfer),
    ] {
        if cursor.literal(package).is_some() {
            let version = cursor.until(b'/', 80).and_then(|name| name.strip_suffix(".dist-info"));
            sights.extend(version.filter(|version| is_version(version)).map(|text| value(attribute, text)));
        }
    }
    Some(sights)
}

fn device_index(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let index = cursor.number()?;
    cursor.literal(b")")?;
    Some(vec![value(Attribute::DeviceIndex, index)])
}

/// `0', dtype=torch.float16`: an input of the benchmark that Inductor writes under its code.
fn benchmark_device(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let index = cursor.number()?;
    cursor.literal(b"', dtype=torch.")?;
    Some(vec![value(Attribute::DeviceIndex, index)])
}

/// `.default(add_3, -1, 2, 'tp:0')`, or with the names of the arguments.
fn tensor_parallel(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let call = cursor.until(b')', 300)?;
    let (before, group) = call.split_once("'tp:")?;
    let index = group.strip_suffix('\'')?;
    let before = before.trim_end_matches([' ', '=']);
    let before = before.strip_suffix("group_name").unwrap_or(before).trim_end();
    let before = before.strip_suffix(',')?;
    let size = before.rsplit([' ', '=', ',']).next()?;
    let number = |text: &str| (1..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    (number(index) && number(size)).then(|| vec![value(Attribute::TensorParallel, size)])
}

/// `'const float*', …`: types of the arguments of C++ code.
fn processor_code(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    cursor.literal(b"'")?;
    Some(vec![Sight::ProcessorCode])
}

/// The instruction behind the name of a class: it goes to the memo, or becomes the class.
fn system_info(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    matches!(cursor.bytes(1)?, [0x94 | b'q' | b'r' | 0x93]).then(|| vec![Sight::SystemInfo])
}

/// `20 12.2.0 -march=znver3 … -mavx2 …`, up to a zero. `-march=native` is spelled out there, so the options name what
/// the host had and what the code may use.
fn compiler_options(cursor: &mut Cursor<'_>) -> Option<Vec<Sight>> {
    let options = cursor.until(0, 8 << 10)?;
    let has = |wanted: &str| options.split(' ').any(|option| option == wanted);
    let set = if has("-mavx512f") {
        "avx512"
    } else if has("-mavx2") {
        "avx2"
    } else if options.split(' ').any(|option| option.starts_with("-msve-vector-bits=")) {
        "sve"
    } else {
        return None;
    };
    Some(vec![value(Attribute::InstructionSet, set)])
}
