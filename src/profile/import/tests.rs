use proptest::prelude::*;

use super::*;
use crate::profile::{AccessKind, Tree, summary};

fn run(text: &str, options: &ImportOptions) -> Result<Imported, ProfileError> {
    import("log", text.as_bytes(), options)
}

/// `kind path ranges` of each access.
fn accesses(imported: &Imported) -> Vec<String> {
    imported
        .profile
        .accesses
        .iter()
        .map(|access| {
            let ranges: Vec<String> =
                access.ranges.iter().map(|r| format!(" {}+{}", r.offset, r.length)).collect();
            let cache = if let Tree::Cache(name) = &access.tree { format!("{name}:") } else { String::new() };
            format!("{} {} {cache}{}{}", access.at, access.kind.name(), access.target, ranges.join(""))
        })
        .collect()
}

#[test]
fn calls_become_accesses() {
    let log = r#"7 1700000100.000000 execve("/bin/x", ["x"], 0x7f /* 3 vars */) = 0
7 1700000100.100000 openat(AT_FDCWD</srv>, "/models/params.json", O_RDONLY|O_CLOEXEC) = -1 ENOENT (No such file or directory)
7 1700000100.200000 openat(AT_FDCWD</models>, "./sub/../config.json", O_RDONLY|O_CLOEXEC) = 3</models/config.json>
7 1700000100.200001 read(3</models/config.json>, "{\n  \"a\": \")"..., 10) = 10
8 1700000100.200002 read(3</models/config.json>,  <unfinished ...>
7 1700000100.200003 newfstatat(3</models/config.json>, "", {st_mode=S_IFREG|0644, st_size=15, ...}, AT_EMPTY_PATH) = 0
8 1700000100.200004 <... read resumed>"xxxxx", 10) = 5
7 1700000100.200005 read(3</models/config.json>, "", 10) = 0
7 1700000100.200006 close(3</models/config.json>) = 0
7 1700000100.300000 openat(AT_FDCWD</srv>, "/models/a\"b\303\251.bin", O_RDWR) = 3</models/a"b\303\251.bin> <0.000020>
7 1700000100.300001 fstat(3</models/a"b\303\251.bin>, {st_mode=S_IFREG|0644, st_size=10000, ...}) = 0
7 1700000100.300002 mmap(NULL, 12288, PROT_READ, MAP_PRIVATE, 3</models/a"b\303\251.bin>, 0x1000) = 0x7f0bc013c000
7 1700000100.300003 mmap(NULL, 12288, PROT_READ, MAP_PRIVATE, 3</models/a"b\303\251.bin>, 0x1000) = 0x7f0bc013d000
7 1700000100.300004 mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE, 3</models/a"b\303\251.bin>, 0) = 0x7f0bc013d000
7 1700000100.500000 pread64(3</models/a"b\303\251.bin>, "x", 8, 16) = 8
7 1700000100.600000 lseek(3</models/a"b\303\251.bin>, 100, SEEK_SET) = 100
7 1700000100.600001 readv(3</models/a"b\303\251.bin>, [{iov_base="x", iov_len=4}, {iov_base="y", iov_len=4}], 2) = 8
7 1700000100.700000 sendfile(9<socket:[1]>, 3</models/a"b\303\251.bin>, [200] => [300], 100) = 100
7 1700000100.800000 preadv2(3</models/a"b\303\251.bin>, [{iov_base="x", iov_len=4}], 1, 400, 0) = 4
7 1700000100.900000 openat(AT_FDCWD</srv>, "/models", O_RDONLY|O_DIRECTORY) = 4</models>
7 1700000100.900001 readlinkat(4</models>, "gone", "", 9) = -1 ENOENT (No such file or directory)
7 1700000100.950000 openat(AT_FDCWD</srv>, "/models/out", O_WRONLY|O_CREAT, 0666) = 5</models/out>
7 1700000100.950001 openat(AT_FDCWD</srv>, "/cache/x (deleted)", O_RDONLY) = 6</cache/x (deleted)>
7 1700000100.960000 openat(AT_FDCWD</srv>, "/mnt/models/c", O_RDONLY) = 8</blobs/c>
7 1700000100.960001 read(8</blobs/c>, "x", 1) = 1
7 1700000101.000000 +++ exited with 0 +++
"#;
    let roots = vec![
        Root::new("/models", Tree::Model).unwrap(),
        Root::new("/mnt/models", Tree::Model).unwrap(),
        Root::new("/cache", Tree::Cache("k".to_owned())).unwrap(),
    ];
    let imported = run(log, &ImportOptions { roots, ..ImportOptions::default() }).unwrap();
    assert_eq!(
        accesses(&imported),
        [
            "0.100 missing params.json",
            "0.200 open config.json",
            "0.200 read config.json 0+15",
            "0.300 open a\"bé.bin",
            "0.300 read a\"bé.bin 4096+5904",
            "0.500 read a\"bé.bin 16+8",
            "0.600 read a\"bé.bin 100+8",
            "0.700 read a\"bé.bin 200+100",
            "0.800 read a\"bé.bin 400+4",
            "0.900 missing gone",
            "0.950 open k:x (deleted)",
            "0.960 open c",
            "0.960 read c 0+1",
        ]
    );
    assert_eq!(imported.notes, Vec::<String>::new());
    assert!(imported.profile.evidence[0].contains("mapped"));
}

#[test]
fn logs_without_paths_of_descriptors_work_as_far_as_they_can() {
    let log = "1700000001.0 open(\"/models/a\", O_RDONLY) = 3\n1700000001.1 read(3, \"x\", 9) = 4\n1700000001.2 dup(3) = 5\n\
               1700000001.3 read(5, \"x\", 9) = 4\n1700000001.4 close(3) = 0\n1700000001.5 read(3, \"x\", 9) = 4\n";
    let imported = run(log, &ImportOptions::default()).unwrap();
    assert_eq!(accesses(&imported), ["0.000 open a", "0.100 read a 0+4", "0.300 read a 4+4"]);
    assert!(imported.notes[0].contains("-y"), "{:?}", imported.notes);
}

#[test]
fn times_that_lie_an_age_apart_can_be_read_again() {
    let log = r#"7 1700000100.000000 openat(AT_FDCWD</srv>, "/models/a", O_RDONLY) = 3</models/a>
7 177729175020.243100 openat(AT_FDCWD</srv>, "/models/b", O_RDONLY) = 4</models/b>
"#;
    let imported = run(log, &ImportOptions::default()).unwrap();
    assert_eq!(imported.profile.accesses.len(), 2);
    let written = imported.profile.to_json();
    assert_eq!(Profile::parse("log", written.as_bytes()).unwrap(), imported.profile);
}

#[test]
fn what_is_no_recording_is_refused_with_a_next_step() {
    for (text, reason, step) in [
        ("", "it is empty", ""),
        ("hello\nworld", "neither a log", "strace -f -ttt -y"),
        ("12:00:00 close(3) = 0\n", "neither a log", "strace -f -ttt -y"),
        ("1 0.000101 close(3</models/a>) = 0\n", "do not count from 1970", "-ttt"),
        (
            "1 1700000001.0 openat(AT_FDCWD, \"a\", O_RDONLY) = 3\n",
            "nothing in it lies below /models",
            "record with -y",
        ),
        (r#"{"version": 1, "accesses": []}"#, "a profile already", ""),
        (r#"{"path": "usr/bin/ls"} {"path": "m/config.json"}"#, "nothing in it lies below /models", "/m"),
        (r#"{"path": "models/a"} {"path": 1}"#, "its entry 2: invalid type", ""),
        (r#"{"path": "models/a"} {"path": "models"#, "its entry 2: it is cut off", ""),
        (r#"{"path": "models/a"} 7"#, "its entry 2: it is no JSON object", ""),
        (
            "1 1700000001.0 openat(AT_FDCWD</>, \"/srv/m/config.json\", O_RDONLY) = 3</srv/m/config.json>\n",
            "nothing in it lies below /models",
            "/srv/m",
        ),
    ] {
        let error = run(text, &ImportOptions::default()).unwrap_err();
        let ProfileError::Import { hint, .. } = &error else { panic!("{error:?}") };
        assert!(error.to_string().contains(reason), "{error}");
        assert!(hint.as_deref().unwrap_or_default().contains(step), "{hint:?}");
    }
}

#[test]
fn records_of_ctr_remote_keep_their_order() {
    let record = r#"{"path":"models/config.json","manifestDigest":"sha256:0","layerIndex":0}
{"path":"models/b}\".json","layerIndex":1}{"path":"usr/bin/ls"}
{"path":"models/config.json"} {"path":"./models/../models/a.bin"} {"path":"models/../../etc/passwd"}"#;
    let imported = run(record, &ImportOptions::default()).unwrap();
    assert_eq!(accesses(&imported), ["0.000 read config.json", "0.001 read b}\".json", "0.002 read a.bin"]);
    assert_eq!(imported.notes, ["2 files outside /models left out"]);
}

#[test]
fn a_compressed_log_that_was_cut_off_gives_what_it_has() {
    use std::io::Write as _;
    let mut log = String::new();
    for n in 0..20_000 {
        let name = n * 7919 % 10_007;
        let _ = std::fmt::Write::write_fmt(
            &mut log,
            format_args!(
                "7 17000{n:05}.0 openat(AT_FDCWD</>, \"/models/{name}\", O_RDONLY) = 3</models/{name}>\n"
            ),
        );
    }
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(log.as_bytes()).unwrap();
    let bytes = gzip.finish().unwrap();
    let whole = import("log", bytes.as_slice(), &ImportOptions::default()).unwrap();
    assert_eq!((whole.profile.accesses.len(), whole.notes.len()), (10_007, 0));
    let cut = import("log", &bytes[..bytes.len() / 2], &ImportOptions::default()).unwrap();
    assert!(cut.profile.accesses.len() > 1000);
    assert!(cut.notes.iter().any(|note| note.contains("ends early")), "{:?}", cut.notes);
}

#[test]
fn the_shortened_vllm_log() {
    let log = include_bytes!("../../../tests/data/vllm-strace.log.gz");
    let roots = vec![
        Root::new("/models", Tree::Model).unwrap(),
        Root::new("/cache", Tree::Cache("vllm".to_owned())).unwrap(),
    ];
    let imported =
        import("log", log.as_slice(), &ImportOptions { roots, ..ImportOptions::default() }).unwrap();
    let summary = summary(&imported.profile, &|_| None);
    let model = |files: &[crate::profile::FileSummary]| -> Vec<String> {
        files.iter().filter(|file| file.tree == Tree::Model).map(crate::profile::FileSummary::name).collect()
    };
    assert_eq!(
        model(&summary.files),
        [
            "config.json",
            "tokenizer_config.json",
            "chat_template.jinja",
            "tokenizer.json",
            "generation_config.json",
            "model.safetensors.index.json",
            "model-00001-of-00003.safetensors",
            "model-00002-of-00003.safetensors",
            "model-00003-of-00003.safetensors",
        ]
    );
    let bytes: Vec<Option<u64>> =
        summary.files.iter().filter(|file| file.tree == Tree::Model).map(|file| file.bytes).collect();
    let expected = [719, 172, 51, 7074, 195, 3229, 1_837_560, 1_969_648, 1_444_496].map(Some);
    assert_eq!(bytes, expected);
    assert!(model(&summary.missing).contains(&"special_tokens_map.json".to_owned()));
    assert!(summary.files.iter().any(|file| file.tree != Tree::Model));
    assert!(imported.profile.accesses.iter().any(|access| access.kind == AccessKind::Missing));
}

fn call() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "open",
        "openat",
        "read",
        "pread64",
        "mmap",
        "lseek",
        "close",
        "dup2",
        "clone",
        "newfstatat",
        "statx",
        "sendfile",
        "preadv2",
        "fcntl",
        "write",
    ]);
    let argument = prop::sample::select(vec![
        "3",
        "4</models/a>",
        "\"/models/a\"",
        "\"\"",
        "NULL",
        "[7]",
        "18446744073709551615",
        "0x1000",
        "O_RDONLY",
        "{st_mode=S_IFREG|0644, st_size=5}",
        "AT_FDCWD</models>",
        "flags=CLONE_FILES",
        "-1",
        "\"\\377\"",
    ]);
    let result = prop::sample::select(vec![
        "3",
        "4</models/a>",
        "-1 ENOENT (No such file)",
        "18446744073709551615",
        "0x7f0000000000",
        "?",
        "0",
        "",
    ]);
    (1_u64..4, 0_u64..9, name, prop::collection::vec(argument, 0..7), result, 0..4_usize).prop_map(
        |(pid, at, name, arguments, result, form)| {
            let arguments = arguments.join(", ");
            match form {
                0 => format!("{pid} 170000000{at}.5 {name}({arguments} <unfinished ...>\n"),
                1 => format!("{pid} 170000000{at}.5 <... {name} resumed>{arguments}) = {result}\n"),
                _ => format!("{pid} 170000000{at}.5 {name}({arguments}) = {result}\n"),
            }
        },
    )
}

proptest! {
    #[test]
    fn no_log_panics_and_what_comes_out_can_be_read(
        calls in prop::collection::vec(call(), 0..60), cut in 0_usize..4000, junk in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut log = calls.concat().into_bytes();
        log.truncate(cut);
        log.extend(junk);
        for format in [None, Some(ImportFormat::Strace), Some(ImportFormat::CtrRemote)] {
            if let Ok(imported) = import("log", log.as_slice(), &ImportOptions { format, ..ImportOptions::default() }) {
                let text = imported.profile.to_json();
                prop_assert_eq!(Profile::parse("p", text.as_bytes()).unwrap(), imported.profile);
            }
        }
    }
}
