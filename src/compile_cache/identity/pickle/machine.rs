//! The stack and the memo of a pickle, as far as they matter: texts, small numbers and the two classes that are looked
//! for; all else is one and the same. Nothing in it is nested, so nothing can be nested too deep. Must not know how
//! instructions are written.

use std::{collections::HashMap, rc::Rc};

use super::{Field, Fields};

/// Most values on the stack.
const STACK_MAX: usize = 1 << 16;
/// Most values that the memo keeps; later ones are forgotten.
const MEMO_MAX: usize = 1 << 16;

/// A value on the stack.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Mark,
    None,
    Text(Rc<Field>),
    /// A number, and its offset in bytes.
    Number(i64, u64),
    /// A tuple of nothing but one text.
    Single(Rc<Field>),
    /// A tuple of two numbers, and its offset in bytes.
    Pair((i64, i64), u64),
    Dictionary,
    Class(Class),
    SystemInfo,
    /// Anything else.
    Other,
}

/// A class that matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    SystemInfo,
    /// A text with another name: `torch.torch_version.TorchVersion`.
    TorchVersion,
}

impl Value {
    pub(super) fn text(value: String, offset: u64) -> Self {
        Self::Text(Rc::new(Field { value, offset }))
    }
}

/// How the memo was written so far. Pickles either number its entries or count them; where both happen, what an
/// index means is not certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memo {
    Empty,
    Counted,
    Numbered,
    Unknown,
}

/// What an unpickler would hold.
#[derive(Debug)]
pub(super) struct Machine {
    stack: Vec<Value>,
    memo: HashMap<u64, Value>,
    memo_state: Memo,
    memo_count: u64,
    /// Whether the pickle is over, or is none.
    pub(super) ended: bool,
    pub(super) fields: Fields,
}

impl Machine {
    pub(super) fn new() -> Self {
        Self {
            stack: Vec::new(),
            memo: HashMap::new(),
            memo_state: Memo::Empty,
            memo_count: 0,
            ended: false,
            fields: Fields::default(),
        }
    }

    pub(super) fn without_memo() -> Self {
        Self { memo_state: Memo::Unknown, ..Self::new() }
    }

    pub(super) fn push(&mut self, value: Value) {
        if self.stack.len() < STACK_MAX {
            self.stack.push(value);
        } else {
            self.ended = true;
        }
    }

    /// The topmost value. Below the stack lies whatever was there before the walk began.
    fn pop(&mut self) -> Value {
        self.stack.pop().unwrap_or(Value::Other)
    }

    pub(super) fn drop_one(&mut self) {
        self.stack.pop();
    }

    /// Puts something else in place of the topmost value.
    pub(super) fn replace(&mut self) {
        self.stack.pop();
        self.push(Value::Other);
    }

    /// Takes what lies above the topmost mark, and the mark. Without one it is no pickle.
    fn take_to_mark(&mut self) -> Vec<Value> {
        let Some(mark) = self.stack.iter().rposition(|value| matches!(value, Value::Mark)) else {
            self.ended = true;
            return Vec::new();
        };
        let values = self.stack.split_off(mark + 1);
        self.stack.pop();
        values
    }

    pub(super) fn drop_to_mark(&mut self) {
        self.take_to_mark();
    }

    pub(super) fn collect(&mut self) {
        self.take_to_mark();
        self.push(Value::Other);
    }

    pub(super) fn tuple_to_mark(&mut self) {
        let values = self.take_to_mark();
        self.push(tuple(&values));
    }

    pub(super) fn tuple(&mut self, count: usize) {
        let values = self.stack.split_off(self.stack.len().saturating_sub(count));
        // Where the stack is too short, part of the tuple is from before the walk.
        self.push(if values.len() == count { tuple(&values) } else { Value::Other });
    }

    pub(super) fn duplicate(&mut self) {
        let value = self.stack.last().cloned().unwrap_or(Value::Other);
        self.push(value);
    }

    pub(super) fn class(&mut self, name: &[u8]) {
        self.push(match name {
            b"SystemInfo" => Value::Class(Class::SystemInfo),
            b"TorchVersion" => Value::Class(Class::TorchVersion),
            _ => Value::Other,
        });
    }

    pub(super) fn stack_global(&mut self) {
        let name = self.pop();
        self.pop();
        match name {
            Value::Text(name) => self.class(name.value.as_bytes()),
            _ => self.push(Value::Other),
        }
    }

    /// A class, or anything that can be called, with its arguments.
    pub(super) fn construct(&mut self) {
        let arguments = self.pop();
        let class = self.pop();
        self.push(match (class, arguments) {
            (Value::Class(Class::SystemInfo), _) => Value::SystemInfo,
            (Value::Class(Class::TorchVersion), Value::Single(text)) => Value::Text(text),
            _ => Value::Other,
        });
    }

    /// The same where some arguments have names.
    pub(super) fn construct_with_names(&mut self) {
        self.pop();
        self.pop();
        self.replace();
    }

    pub(super) fn set_item(&mut self) {
        let value = self.pop();
        let key = self.pop();
        self.set(&[key, value]);
    }

    pub(super) fn set_items(&mut self) {
        let items = self.take_to_mark();
        self.set(&items);
    }

    /// Looks at keys and values that go into the dictionary on top of the stack.
    fn set(&mut self, items: &[Value]) {
        let Some((Value::Dictionary, below)) = self.stack.split_last() else { return };
        let state_of_system_info = matches!(below.last(), Some(Value::SystemInfo));
        let fields = &mut self.fields;
        let mut device_type = None;
        let mut compile_artifacts = false;
        for item in items.as_chunks::<2>().0 {
            let [Value::Text(key), value] = item else { continue };
            match key.value.as_str() {
                "system_info" => compile_artifacts = matches!(value, Value::SystemInfo),
                "device_type" => device_type = text(value),
                _ if !state_of_system_info => {}
                "python_version" => keep(&mut fields.python, text(value)),
                "torch_version" => keep(&mut fields.torch, text(value)),
                "toolkit_version" => keep(&mut fields.toolkit, text(value)),
                "triton_version" => keep(&mut fields.triton, pair(value)),
                "gpu_name" => {
                    keep(&mut fields.gpu_name, text(value));
                    fields.no_gpu |= matches!(value, Value::None);
                }
                _ => {}
            }
        }
        if compile_artifacts {
            keep(&mut fields.device_type, device_type);
        }
    }

    pub(super) fn memoize(&mut self) {
        self.memo_state = match self.memo_state {
            Memo::Empty | Memo::Counted => Memo::Counted,
            Memo::Numbered | Memo::Unknown => Memo::Unknown,
        };
        let index = self.memo_count;
        self.memo_count += 1;
        self.remember(index);
    }

    pub(super) fn put(&mut self, index: u64) {
        self.memo_state = match self.memo_state {
            Memo::Empty | Memo::Numbered => Memo::Numbered,
            Memo::Counted | Memo::Unknown => Memo::Unknown,
        };
        self.remember(index);
    }

    fn remember(&mut self, index: u64) {
        match self.stack.last() {
            _ if self.memo_state == Memo::Unknown => self.memo = HashMap::new(),
            // What says nothing need not be kept: an entry that is not there says nothing either.
            Some(Value::Other | Value::Mark | Value::None) | None => drop(self.memo.remove(&index)),
            Some(value) if self.memo.len() < MEMO_MAX || self.memo.contains_key(&index) => {
                self.memo.insert(index, value.clone());
            }
            Some(_) => {}
        }
    }

    pub(super) fn get(&mut self, index: u64) {
        let value = self.memo.get(&index).cloned().unwrap_or(Value::Other);
        self.push(value);
    }
}

fn tuple(values: &[Value]) -> Value {
    match values {
        [Value::Text(text)] => Value::Single(text.clone()),
        [Value::Number(first, offset), Value::Number(second, _)] => Value::Pair((*first, *second), *offset),
        _ => Value::Other,
    }
}

fn text(value: &Value) -> Option<Field> {
    match value {
        Value::Text(text) => Some((**text).clone()),
        _ => None,
    }
}

fn pair(value: &Value) -> Option<Field<(i64, i64)>> {
    match value {
        Value::Pair(value, offset) => Some(Field { value: *value, offset: *offset }),
        _ => None,
    }
}

/// The first one counts.
fn keep<T>(slot: &mut Option<T>, found: Option<T>) {
    if slot.is_none() {
        *slot = found;
    }
}
