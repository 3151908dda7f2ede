use proptest::prelude::*;

use super::*;

/// What a text says, its pattern found as the scanner finds it.
fn says(whole: &[u8]) -> Vec<(Attribute, String)> {
    let first = (0..whole.len()).find_map(|at| {
        PATTERNS.iter().find(|pattern| whole[at..].starts_with(pattern.text)).map(|pattern| (at, pattern))
    });
    let Some((at, pattern)) = first else { return Vec::new() };
    let (sights, used) = read(pattern.text, &whole[at + pattern.text.len()..]).unwrap_or_default();
    assert!(used <= whole.len());
    sights
        .into_iter()
        .filter_map(|sight| match sight {
            Sight::Value(attribute, value) => Some((attribute, value)),
            _ => None,
        })
        .collect()
}

fn said(whole: &str) -> String {
    says(whole.as_bytes())
        .iter()
        .map(|(attribute, value)| format!("{attribute:?}={value}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[test]
fn no_pattern_begins_with_another() {
    for (number, pattern) in PATTERNS.iter().enumerate() {
        for other in PATTERNS.iter().skip(number + 1) {
            assert!(!other.text.starts_with(pattern.text) && !pattern.text.starts_with(other.text));
        }
    }
}

#[test]
fn devices_are_read() {
    assert_eq!(
        said(
            "DeviceProperties(type='cuda', index=1, multi_processor_count=132, cc=90, major=9, \
             regs_per_multiprocessor=65536, max_threads_per_multi_processor=2048, warp_size=32), 'x'"
        ),
        "Backend=cuda Architecture=sm_90 Multiprocessors=132 DeviceIndex=1 WarpSize=32"
    );
    assert_eq!(
        said(
            "DeviceProperties(type='hip', index=0, multi_processor_count=304, cc='gfx942', major=9, \
             regs_per_multiprocessor=65536, warp_size=64)"
        ),
        "Backend=rocm Architecture=gfx942 Multiprocessors=304 DeviceIndex=0 WarpSize=64"
    );
    assert_eq!(
        said("DeviceProperties(type='cuda', index=None, multi_processor_count=40, cc=75, warp_size=None)"),
        "Backend=cuda Architecture=sm_75 Multiprocessors=40"
    );
    // Other devices, documentation, and what is cut off.
    for text in [
        "DeviceProperties(type='xpu', index=0, multi_processor_count=4, cc={}, major=None)",
        "DeviceProperties(type='cpu', index=None, multi_processor_count=4, cc=None)",
        "DeviceProperties(type='cuda', ...)",
        "DeviceProperties(type='cuda', index=0, multi_processor_count=40, cc=7",
        "DeviceProperties(type='cuda', index=0, multi_processor_count=40, cc=75, major=",
        "DeviceProperties(type='hip', index=0, multi_processor_count=304, cc='<b>', major=9)",
    ] {
        assert_eq!(said(text), "", "{text}");
    }
}

#[test]
fn metadata_of_triton_is_read() {
    assert_eq!(
        said(r#"{"hash": "7a", "target": {"backend": "cuda", "arch": 75, "warp_size": 32}, "num_warps": 4"#),
        "Backend=cuda Architecture=sm_75 WarpSize=32"
    );
    assert_eq!(
        said(r#""target": {"backend": "hip", "arch": "gfx90a:sramecc+:xnack-", "warp_size": 64}"#),
        "Backend=rocm Architecture=gfx90a WarpSize=64"
    );
    assert_eq!(said(r#""target": {"backend": "cuda", "arch": 75, "warp_size": 32"#), "");
    assert_eq!(said(r#""target": {"backend": "xpu", "arch": {"a": 1}, "warp_size": 32}"#), "");
    assert_eq!(said(r#""triton_version": "3.9.0","#), "Triton=3.9.0");
    assert_eq!(said(r#""triton_version": "3.9.0"#), "");
    assert_eq!(said(r#""triton_version": "<unknown>""#), "");
}

#[test]
fn ptx_is_read() {
    assert_eq!(
        said(".version 8.7\n.target sm_75\n.address_size 64"),
        "Backend=cuda Ptx=8.7 Architecture=sm_75"
    );
    assert_eq!(said(".version 8.4\n.target sm_90a, debug"), "Backend=cuda Ptx=8.4 Architecture=sm_90a");
    for text in
        [".version 8.7\n.target sm_75", ".version 1.0\n", ".version 8.7\n.target sm_7x\n", ".version of"]
    {
        assert_eq!(said(text), "", "{text}");
    }
}

#[test]
fn versions_are_read() {
    assert_eq!(said("# torch version: 2.9.1+cu128\n# torch cuda version: 12.8\n"), "Torch=2.9.1+cu128");
    assert_eq!(said("# torch cuda version: 12.8\n"), "Cuda=12.8");
    assert_eq!(said("# torch cuda version: None\n"), "");
    assert_eq!(said("# torch version: 2.9.1"), "");
    let hash = "0123456789abcdef".repeat(4);
    assert_eq!(
        said(&format!("system_info[version]: {{'triton': '3.5.1{hash}-{hash}-{hash}', 'cuda': '12.8'}}")),
        "Triton=3.5.1 Cuda=12.8"
    );
    assert_eq!(
        said(&format!(
            "system_info[version]: {{'triton': '3.5.1{hash}-{hash}', 'hip': '6.4.43482-0f2d60242'}}"
        )),
        "Triton=3.5.1 Backend=rocm Rocm=6.4"
    );
    assert_eq!(said("system_info[version]: {'triton': '3.5.1-12', 'cuda': '12.8'}"), "");
    assert_eq!(
        said("system_info[device]: {'name': 'NVIDIA A100-SXM4-80GB'}"),
        "GpuName=NVIDIA A100-SXM4-80GB"
    );
    assert_eq!(said("system_info[device]: {'name': 'gfx942:sramecc+:xnack-'}"), "Architecture=gfx942");
    assert_eq!(said("system_info[device]: {'name': None}"), "");
}

#[test]
fn paths_tell_the_version_of_python() {
    assert_eq!(said("/opt/env/lib64/python3.12/site-packages/triton/language"), "Python=3.12");
    assert_eq!(said("/usr/local/lib/python3.12/dist-packages/vllm/a.py"), "Python=3.12");
    assert_eq!(
        said("/lib/python3.11/site-packages/vllm-0.33.0.dist-info/METADATA"),
        "Python=3.11 EngineVersion=0.33.0"
    );
    for text in
        ["/lib/python3.12/os.py", "/lib/python3.13t/site-packages/", "/lib/python3.", "/lib/python3.12"]
    {
        assert_eq!(said(text), "", "{text}");
    }
}

#[test]
fn code_names_its_device() {
    assert_eq!(said("stream1 = get_raw_stream(1)\n"), "DeviceIndex=1");
    assert_eq!(said("with torch.cuda._DeviceGuard(0):"), "DeviceIndex=0");
    assert_eq!(said("rand_strided((8, ), (1, ), device='cuda:3', dtype=torch.float16)"), "DeviceIndex=3");
    for text in
        ["x = get_raw_stream(torch.cuda.current_device())", "device='cuda:1')", " = get_raw_stream(12"]
    {
        let text = format!("{text} = get_raw_stream(");
        assert_eq!(said(&text), "", "{text}");
    }
}

#[test]
fn collectives_tell_the_tensor_parallel_size() {
    for text in [
        "torch.ops.vllm.all_gather.default(add_3, -1, 2, 'tp:0')",
        "torch.ops.vllm.all_gather(add_3, dim = 0, world_size = 2, group_name = 'tp:0')",
        "torch.ops.vllm.reduce_scatter.default(mm, 0, world_size=2, group_name='tp:0');  mm = None",
    ] {
        assert_eq!(said(text), "TensorParallel=2", "{text}");
    }
    for text in [
        "torch.ops.vllm.all_gather.default(add_3, -1, 2, 'dp:0')",
        "torch.ops.vllm.all_gather.default(add_3, -1, size, 'tp:0')",
        "torch.ops.vllm.all_gather.default(add_3, -1, 2, 'tp:0'",
        "torch.ops.vllm.all_gather",
    ] {
        assert_eq!(said(text), "", "{text}");
    }
}

/// The header of a cubin as ptxas writes it, from its byte 4 on.
fn cubin(os: u8, version: u8, flags: u32) -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..9].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, os, version]);
    header[16..20].copy_from_slice(&[2, 0, 190, 0]);
    header[48..52].copy_from_slice(&flags.to_le_bytes());
    header[52] = 64;
    header
}

#[test]
fn machine_code_tells_its_architecture() {
    let architecture = |header: &[u8]| says(header).get(1).map(|(_, value)| value.clone());
    // The flags that ptxas 12.9 and 13.3 write for these.
    for (header, expected) in [
        (cubin(0x33, 7, 0x004b_054b), "sm_75"),
        (cubin(0x33, 7, 0x005a_0d5a), "sm_90"),
        (cubin(0x41, 8, 0x0600_4b04), "sm_75"),
        (cubin(0x41, 8, 0x0600_640a), "sm_100"),
        (cubin(0x41, 8, 0x0600_7802), "sm_120"),
    ] {
        assert_eq!(architecture(&header).as_deref(), Some(expected));
    }
    assert_eq!(architecture(&cubin(0x41, 9, 0x0600_640a)), None);
    assert_eq!(architecture(&cubin(0x33, 7, 0)), None);
    assert_eq!(architecture(&cubin(0x33, 7, 0x004b_054b)[..63]), None);
    let mut library = cubin(0, 0, 0x4b);
    library[18] = 62;
    assert_eq!(architecture(&library), None);
}

#[test]
fn options_of_the_compiler_tell_the_instruction_set() {
    let options = |options: &str| said(&format!("GNU C++20 12.2.0 {options} -O3\0"));
    assert_eq!(options("-march=znver3 -mno-avx512f -mavx2 -mfma"), "InstructionSet=avx2");
    assert_eq!(options("-mavx2 -mavx512f -mno-avx512er"), "InstructionSet=avx512");
    assert_eq!(options("-march=armv8-a+sve+bf16 -msve-vector-bits=256"), "InstructionSet=sve");
    assert_eq!(options("-mno-avx2"), "");
    assert_eq!(said("GNU C++20 12.2.0 -mavx2"), "");
}

proptest! {
    #[test]
    fn anything_behind_a_text_is_survived(
        pattern in 0..PATTERNS.len(),
        behind in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        if let Some((_, used)) = read(PATTERNS[pattern].text, &behind) {
            prop_assert!(used <= behind.len());
        }
    }

    #[test]
    fn almost_anything_is_survived(
        pattern in 0..PATTERNS.len(),
        behind in r"(cuda|hip|'|, |index=|cc=|[0-9]{1,7}|\(|\)|\.|-|\n|a|=|\{|\}|tp:|_| ){0,30}",
    ) {
        read(PATTERNS[pattern].text, behind.as_bytes());
    }
}
