use std::{io::Cursor, time::Instant};

use proptest::prelude::*;

use super::*;

fn walked(bytes: &[u8]) -> Fields {
    walk(Cursor::new(bytes)).unwrap()
}

fn text(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x8c, u8::try_from(text.len()).unwrap()];
    bytes.extend_from_slice(text.as_bytes());
    bytes.push(0x94);
    bytes
}

/// `SystemInfo` as Python's pickler writes it, the fields given as instructions.
fn system_info(fields: &[(&str, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![0x80, 4, 0x95, 0, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(text("torch._dynamo.package"));
    bytes.extend(text("SystemInfo"));
    bytes.extend([0x93, 0x94, b')', 0x81, 0x94, b'}', 0x94, b'(']);
    for (name, value) in fields {
        bytes.extend(text(name));
        bytes.extend_from_slice(value);
    }
    bytes.extend(b"ub.");
    bytes
}

fn value<T: Clone>(field: Option<&Field<T>>) -> Option<T> {
    field.map(|field| field.value.clone())
}

#[test]
fn fields_are_read() {
    let bytes = system_info(&[
        ("python_version", &text("3.12.3")),
        ("torch_version", &text("2.14.1+cu130")),
        ("toolkit_version", &text("13.0")),
        ("triton_version", b"K\x03K\x08\x86\x94"),
        ("gpu_name", &text("NVIDIA H100 80GB HBM3")),
    ]);
    let fields = walked(&bytes);
    assert_eq!(value(fields.python.as_ref()).as_deref(), Some("3.12.3"));
    let offset = usize::try_from(fields.python.unwrap().offset).unwrap();
    assert_eq!(&bytes[offset + 2..offset + 8], b"3.12.3");
    assert_eq!(value(fields.torch.as_ref()).as_deref(), Some("2.14.1+cu130"));
    assert_eq!(value(fields.toolkit.as_ref()).as_deref(), Some("13.0"));
    assert_eq!(value(fields.triton.as_ref()), Some((3, 8)));
    assert_eq!(value(fields.gpu_name.as_ref()).as_deref(), Some("NVIDIA H100 80GB HBM3"));
    assert!(!fields.no_gpu);
}

#[test]
fn a_version_may_be_an_object_and_a_field_may_be_in_the_memo() {
    // The name of the field, and then the class, come from the memo.
    let mut torch = text("torch.torch_version");
    torch.extend(text("TorchVersion"));
    torch.extend(b"\x93\x94");
    torch.extend(text("2.9.1"));
    torch.extend(b"\x85\x94\x81\x94");
    let fields = walked(&system_info(&[
        ("torch_version", &torch),
        // What the memo has as entry 7 is the text of the version.
        ("python_version", b"h\x07"),
        ("gpu_name", b"N"),
    ]));
    assert_eq!(value(fields.torch.as_ref()).as_deref(), Some("2.9.1"));
    assert_eq!(value(fields.python.as_ref()).as_deref(), Some("TorchVersion"));
    assert!(fields.no_gpu);
}

#[test]
fn from_the_middle_the_memo_is_not_believed() {
    let bytes = system_info(&[
        ("python_version", &text("3.12.3")),
        ("torch_version", b"h\x01"),
        ("gpu_name", &text("NVIDIA L4")),
    ]);
    let class = bytes.windows(12).position(|window| window == b"\x8c\x0aSystemInfo").unwrap();
    let fields = walk_from_the_middle(Cursor::new(&bytes[class..])).unwrap();
    assert_eq!(value(fields.python.as_ref()).as_deref(), Some("3.12.3"));
    assert_eq!(fields.torch, None);
    assert_eq!(value(fields.gpu_name.as_ref()).as_deref(), Some("NVIDIA L4"));
}

#[test]
fn fields_of_other_objects_are_not_taken() {
    let bytes = system_info(&[("python_version", &text("3.12.3"))]);
    let class = bytes.windows(10).position(|window| window == b"SystemInfo").unwrap();
    let mut other = bytes.clone();
    other[class] = b'T';
    assert_eq!(walked(&other), Fields::default());
    // The device type counts only beside a `SystemInfo`.
    let mut plain = b"\x80\x04}(".to_vec();
    plain.extend(text("device_type"));
    plain.extend(text("cuda"));
    plain.extend(b"u.");
    assert_eq!(walked(&plain), Fields::default());
}

#[test]
fn a_pickle_that_is_cut_off_tells_what_came_before() {
    let bytes = system_info(&[("python_version", &text("3.12.3"))]);
    for length in 0..bytes.len() - 2 {
        let fields = walked(&bytes[..length]);
        assert_eq!(fields, Fields::default(), "{length}");
    }
    assert!(walked(&bytes[..bytes.len() - 2]).python.is_some());
}

#[test]
fn lengths_are_not_trusted() {
    for bomb in [
        &b"\x8a\xff"[..],
        b"\x8b\x00\x00\x00\x80",
        b"\x8b\xff\xff\xff\x7f",
        b"B\xff\xff\xff\xff",
        b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x96\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff",
        b"X\xff\xff\xff\xff",
        b"T\xff\xff\xff\xff",
    ] {
        for rest in [&b""[..], b"more"] {
            let mut bytes = b"\x80\x04".to_vec();
            bytes.extend_from_slice(bomb);
            bytes.extend_from_slice(rest);
            assert_eq!(walked(&bytes), Fields::default());
        }
    }
    // Long ones that are there are skipped.
    let mut bytes = b"\x80\x04X\x10\x27\x00\x00".to_vec();
    bytes.extend(vec![b'x'; 10_000]);
    bytes.extend(b"\x94");
    bytes.extend(system_info(&[("python_version", &text("3.12.3"))]));
    assert!(walked(&bytes).python.is_some());
}

#[test]
fn nesting_and_floods_are_bounded() {
    let start = Instant::now();
    let tuples = [b"N".to_vec(), vec![0x85; 1_000_000]].concat();
    let texts = text("x").repeat(300_000);
    let puts: Vec<u8> = (0..300_000_u32)
        .flat_map(|index| [&b"\x8c\x01xr"[..], &index.to_le_bytes(), b"0"].concat())
        .collect();
    let doubling = [b"(".to_vec(), b"2".repeat(100_000)].concat();
    let marks_and_tuples = b"(t".repeat(1_000_000);
    for bomb in [
        b"(".repeat(100_000),
        b"(".repeat(1_000_000),
        tuples,
        [b"(".repeat(60_000), b"t".repeat(100_000)].concat(),
        texts,
        puts,
        doubling,
        marks_and_tuples,
        b"0".repeat(1_000_000),
        b"}".repeat(100_000),
        [b"]".to_vec(), b"2a".repeat(500_000)].concat(),
        b"V".repeat(1_000_000),
    ] {
        assert_eq!(walked(&bomb), Fields::default());
    }
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
}

#[test]
fn all_instructions_are_known() {
    // From `pickletools.opcodes`; protocol 0 to 5.
    let known = b"IJKMLTUCB\x8e\x96VX\x8c\x8dNFG]aelu}ds()tT01\
        \x80\x81\x82\x83\x84\x85\x86\x87\x88\x89\x8a\x8b\x8f\x90\x91\x92\x93\x94\x95\x97\x98.2ghijopqrbcPQRSS";
    let mut unknown = Vec::new();
    for code in 0..=255_u8 {
        let mut input = Input::new(Cursor::new([&[code][..], &[b'\n'; 400]].concat()));
        let mut machine = Machine::new();
        machine.push(Value::Mark);
        machine.push(Value::Mark);
        // A length may be longer than what follows; then the instruction is a known one too.
        let _ = step(&mut input, &mut machine);
        if machine.ended {
            unknown.push(code);
        }
    }
    let expected: Vec<u8> = (0..=255).filter(|code| *code == b'.' || !known.contains(code)).collect();
    assert_eq!(unknown, expected);
}

/// Bytes that are mostly instructions.
fn instructions() -> impl Strategy<Value = Vec<u8>> {
    let instruction = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        Just(text("python_version")),
        Just(text("SystemInfo")),
        Just(text("TorchVersion")),
        Just(vec![0x93, b')', 0x81, b'}', b'(']),
        proptest::sample::select(&b"(utsb0211\x85\x86\x87\x81\x93\x94R}N"[..]).prop_map(|byte| vec![byte]),
        (any::<u8>(), prop_oneof![Just(b'h'), Just(b'q'), Just(b'K')])
            .prop_map(|(byte, code)| vec![code, byte]),
    ];
    proptest::collection::vec(instruction, 0..200).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        walked(&bytes);
        walk_from_the_middle(Cursor::new(&bytes)).unwrap();
    }

    #[test]
    fn any_instructions_are_survived(bytes in instructions()) {
        walked(&bytes);
        walk_from_the_middle(Cursor::new(&bytes)).unwrap();
    }

    #[test]
    fn whatever_follows_what_was_found_stays(bytes in instructions()) {
        let mut whole = system_info(&[("python_version", &text("3.12.3"))]);
        whole.pop();
        whole.extend(bytes);
        let found = value(walked(&whole).python.as_ref());
        prop_assert_eq!(found.as_deref(), Some("3.12.3"));
    }
}
