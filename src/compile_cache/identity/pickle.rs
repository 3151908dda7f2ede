//! Walks the instructions of a pickle to read the few fields that tell what it was made with. It makes no objects,
//! calls nothing and imports nothing; it follows just enough of the stack and the memo to know which text is the value
//! of which field. Must not know caches.
//!
//! Source: `Lib/pickletools.py` of Python 3.14 (protocols 0 to 5); `SystemInfo` in `torch/_dynamo/package.py` and
//! `CompileArtifacts` in `torch/_dynamo/aot_compile.py` of torch 2.14.

mod input;
mod machine;
#[cfg(test)]
mod tests;

use std::io::{self, BufRead};

use self::{
    input::Input,
    machine::{Machine, Value},
};

/// Most instructions that are followed: a bound on time. A large model's pickle has some hundred thousand.
const INSTRUCTIONS_MAX: u64 = 1 << 24;
/// Longest text in bytes that is kept; longer ones are skipped.
const TEXT_MAX: u64 = 128;

/// A text or number of a pickle, and where it stands in bytes from the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field<T = String> {
    pub(super) value: T,
    pub(super) offset: u64,
}

/// What was found in a pickle.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    /// `SystemInfo.python_version`.
    pub(super) python: Option<Field>,
    /// `SystemInfo.torch_version`.
    pub(super) torch: Option<Field>,
    /// `SystemInfo.toolkit_version`: that of CUDA or of XPU, where there was a GPU.
    pub(super) toolkit: Option<Field>,
    /// `SystemInfo.triton_version`, major and minor.
    pub(super) triton: Option<Field<(i64, i64)>>,
    /// `SystemInfo.gpu_name`.
    pub(super) gpu_name: Option<Field>,
    /// Whether `SystemInfo.gpu_name` is there and says that there was no GPU.
    pub(super) no_gpu: bool,
    /// `CompileArtifacts.device_type`.
    pub(super) device_type: Option<Field>,
}

/// Walks a pickle that begins where the stream does; offsets count from there. What it is given may end anywhere and
/// hold anything: what was found until then is the answer.
pub(super) fn walk(stream: impl BufRead) -> io::Result<Fields> {
    run(stream, Machine::new())
}

/// Walks from the middle of a pickle, at an instruction. What the memo holds is not known there, so nothing that comes
/// from it is believed.
pub(super) fn walk_from_the_middle(stream: impl BufRead) -> io::Result<Fields> {
    run(stream, Machine::without_memo())
}

fn run(stream: impl BufRead, mut machine: Machine) -> io::Result<Fields> {
    let mut input = Input::new(stream);
    for _ in 0..INSTRUCTIONS_MAX {
        match step(&mut input, &mut machine) {
            Ok(()) if machine.ended => break,
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error),
        }
    }
    Ok(machine.fields)
}

/// Follows one instruction. The machine ends at the last one, and at one that is not known.
fn step<R: BufRead>(input: &mut Input<R>, machine: &mut Machine) -> io::Result<()> {
    match input.byte()? {
        // Texts.
        0x8c | b'U' => text(input, machine, 1)?,
        b'X' | b'T' => text(input, machine, 4)?,
        0x8d => text(input, machine, 8)?,
        // Numbers.
        b'K' => number(input, machine, 1)?,
        b'M' => number(input, machine, 2)?,
        b'J' => number(input, machine, 4)?,
        // Bytes and long numbers, then values of a fixed length and of a line: none matters.
        b'C' | 0x8a => skipped(input, machine, 1)?,
        b'B' | 0x8b => skipped(input, machine, 4)?,
        0x8e | 0x96 => skipped(input, machine, 8)?,
        b'G' => fixed(input, machine, 8)?,
        0x82 => fixed(input, machine, 1)?,
        0x83 => fixed(input, machine, 2)?,
        0x84 => fixed(input, machine, 4)?,
        b'F' | b'I' | b'L' | b'P' | b'S' | b'V' => {
            input.line(0)?;
            machine.push(Value::Other);
        }
        0x88 | 0x89 | b']' | b')' | 0x8f | 0x97 => machine.push(Value::Other),
        b'N' => machine.push(Value::None),
        b'}' => machine.push(Value::Dictionary),
        // Tuples and collections.
        b'(' => machine.push(Value::Mark),
        b't' => machine.tuple_to_mark(),
        0x85 => machine.tuple(1),
        0x86 => machine.tuple(2),
        0x87 => machine.tuple(3),
        b'l' | b'd' | 0x91 | b'o' => machine.collect(),
        b'e' | 0x90 | b'1' => machine.drop_to_mark(),
        b'a' | b'0' | b'b' => machine.drop_one(),
        b's' => machine.set_item(),
        b'u' => machine.set_items(),
        b'2' => machine.duplicate(),
        // Classes and objects.
        b'c' => {
            input.line(0)?;
            machine.class(&input.line(TEXT_MAX)?);
        }
        b'i' => {
            input.line(0)?;
            input.line(0)?;
            machine.collect();
        }
        0x93 => machine.stack_global(),
        b'R' | 0x81 => machine.construct(),
        0x92 => machine.construct_with_names(),
        b'Q' => machine.replace(),
        // The memo.
        0x94 => machine.memoize(),
        b'q' => machine.put(input.number(1)?),
        b'r' => machine.put(input.number(4)?),
        b'h' => machine.get(input.number(1)?),
        b'j' => machine.get(input.number(4)?),
        b'p' => machine.put(decimal(&input.line(20)?)),
        b'g' => machine.get(decimal(&input.line(20)?)),
        // Framing.
        0x80 => input.skip(1)?,
        0x95 => input.skip(8)?,
        0x98 => {}
        _ => machine.ended = true,
    }
    Ok(())
}

fn text<R: BufRead>(input: &mut Input<R>, machine: &mut Machine, width: usize) -> io::Result<()> {
    let offset = input.offset().saturating_sub(1);
    let length = input.number(width)?;
    if length > TEXT_MAX {
        input.skip(length)?;
        machine.push(Value::Other);
        return Ok(());
    }
    machine.push(match String::from_utf8(input.bytes(length)?) {
        Ok(value) => Value::text(value, offset),
        Err(_) => Value::Other,
    });
    Ok(())
}

/// Bytes behind their length of `width` bytes.
fn skipped<R: BufRead>(input: &mut Input<R>, machine: &mut Machine, width: usize) -> io::Result<()> {
    let length = input.number(width)?;
    fixed(input, machine, length)
}

fn fixed<R: BufRead>(input: &mut Input<R>, machine: &mut Machine, length: u64) -> io::Result<()> {
    input.skip(length)?;
    machine.push(Value::Other);
    Ok(())
}

fn number<R: BufRead>(input: &mut Input<R>, machine: &mut Machine, width: usize) -> io::Result<()> {
    let offset = input.offset().saturating_sub(1);
    let number = input.number(width)?;
    // A `BININT` has a sign; versions have none, so one with it is of no use here.
    machine.push(match i32::try_from(number) {
        Ok(number) => Value::Number(i64::from(number), offset),
        Err(_) => Value::Other,
    });
    Ok(())
}

/// An index of the memo; one that cannot be read is one that nothing has.
fn decimal(line: &[u8]) -> u64 {
    std::str::from_utf8(line).ok().and_then(|text| text.parse().ok()).unwrap_or(u64::MAX)
}
