//! The calls into the C shim.
#![allow(unsafe_code, reason = "the one module that calls C")]

use std::{
    ffi::c_void,
    marker::PhantomData,
    ptr::{self, NonNull},
    slice,
};

use crate::{Direction, Value};

/// Parses a body with the parser of a channel of type `channel_type`, and frees what came of it; `false` if C refuses it.
#[must_use]
#[inline]
pub fn demarshall_and_discard(direction: Direction, channel_type: u8, id: u16, body: &[u8]) -> bool {
    // SAFETY: the pointer and the length are of one slice, which C reads and does not keep.
    unsafe {
        oracle_demarshall_and_discard(is_from_client(direction), channel_type.into(), id, body.as_ptr(), body.len())
    }
}

/// Parses a body with the parser of a channel of type `channel_type`; `None` if C refuses it.
///
/// The messages of other channels than the main one have no values here, base messages aside.
#[must_use]
pub fn demarshall(direction: Direction, channel_type: u8, id: u16, body: &[u8]) -> Option<Vec<Value>> {
    let mut values = Vec::new();
    // SAFETY: as above; the sink is called during the call only, with the context that `push_value` expects.
    let accepted = unsafe {
        oracle_demarshall(
            is_from_client(direction),
            channel_type.into(),
            id,
            body.as_ptr(),
            body.len(),
            push_value,
            (&raw mut values).cast(),
        )
    };
    accepted.then_some(values)
}

/// A message as its C struct, with a marshaller that is reset and used again for each marshalling, as spice-server does.
pub struct Sender<'a> {
    sender: NonNull<RawSender>,
    /// The struct points into the values' bytes.
    values: PhantomData<&'a [Value]>,
}

impl<'a> Sender<'a> {
    /// The message `id` with these fields; `None` if it is not a base or main-channel message, or has other fields.
    #[must_use]
    pub fn new(direction: Direction, id: u16, values: &'a [Value]) -> Option<Self> {
        let values: Vec<RawValue> = values.iter().map(RawValue::from).collect();
        // SAFETY: the pointer and the length are of one slice, which C reads and does not keep. The bytes that its items point
        // to are kept, and outlive the sender by its lifetime.
        let sender = unsafe { oracle_sender_new(is_from_client(direction), id, values.as_ptr(), values.len()) };
        Some(Self { sender: NonNull::new(sender)?, values: PhantomData })
    }

    /// Marshals a mini header and the body into one piece of memory, drops it, and returns its length.
    #[inline]
    pub fn marshall_and_discard(&mut self) -> usize {
        // SAFETY: the sender is live, and borrowed mutably.
        unsafe { oracle_sender_marshall_and_discard(self.sender.as_ptr()) }
    }

    /// A mini header and the body.
    #[must_use]
    pub fn marshall(&mut self) -> Vec<u8> {
        self.marshall_behind(0)
    }

    /// The body.
    #[must_use]
    pub fn marshall_body(&mut self) -> Vec<u8> {
        const MINI_HEADER: usize = 6;
        self.marshall_behind(MINI_HEADER)
    }

    fn marshall_behind(&mut self, skip: usize) -> Vec<u8> {
        let mut values = Vec::new();
        // SAFETY: the sender is live, and borrowed mutably; the sink is called during the call only, with the context that
        // `push_value` expects.
        unsafe { oracle_sender_marshall(self.sender.as_ptr(), skip, push_value, (&raw mut values).cast()) };
        match values.pop() {
            Some(Value::Bytes(bytes)) => bytes,
            _ => Vec::new(),
        }
    }
}

impl Drop for Sender<'_> {
    fn drop(&mut self) {
        // SAFETY: the sender is live, and this is its end.
        unsafe { oracle_sender_destroy(self.sender.as_ptr()) }
    }
}

const fn is_from_client(direction: Direction) -> bool {
    matches!(direction, Direction::FromClient)
}

/// The shim's `Value`.
#[repr(C)]
struct RawValue {
    kind: u32,
    number: u64,
    bytes: *const u8,
    length: usize,
}

const NUMBER: u32 = 0;
const BYTES: u32 = 1;
const ABSENT: u32 = 2;

impl From<&Value> for RawValue {
    fn from(value: &Value) -> Self {
        let absent = Self { kind: ABSENT, number: 0, bytes: ptr::null(), length: 0 };
        match value {
            Value::Number(number) => Self { kind: NUMBER, number: *number, ..absent },
            Value::Bytes(bytes) => Self { kind: BYTES, bytes: bytes.as_ptr(), length: bytes.len(), ..absent },
            Value::Absent => absent,
        }
    }
}

/// Appends a value to the context, a `Vec<Value>`.
unsafe extern "C" fn push_value(context: *mut c_void, value: *const RawValue) {
    // SAFETY: every call in this module that passes this function passes a vector that nothing else uses meanwhile, and the
    // shim passes a value of its own.
    let (values, value) = unsafe { (&mut *context.cast::<Vec<Value>>(), &*value) };
    values.push(match value.kind {
        NUMBER => Value::Number(value.number),
        BYTES if value.length == 0 => Value::Bytes(Vec::new()),
        // SAFETY: the shim passes bytes of a body or of a message, which live at least until it returns.
        BYTES => Value::Bytes(unsafe { slice::from_raw_parts(value.bytes, value.length) }.to_vec()),
        _ => Value::Absent,
    });
}

#[repr(C)]
struct RawSender {
    opaque: [u8; 0],
}

type ValueSink = unsafe extern "C" fn(*mut c_void, *const RawValue);

unsafe extern "C" {
    fn oracle_demarshall_and_discard(from_client: bool, channel: u32, id: u16, body: *const u8, length: usize) -> bool;
    fn oracle_demarshall(
        from_client: bool,
        channel: u32,
        id: u16,
        body: *const u8,
        length: usize,
        sink: ValueSink,
        context: *mut c_void,
    ) -> bool;
    fn oracle_sender_new(from_client: bool, id: u16, values: *const RawValue, count: usize) -> *mut RawSender;
    fn oracle_sender_destroy(sender: *mut RawSender);
    fn oracle_sender_marshall(sender: *mut RawSender, skip: usize, sink: ValueSink, context: *mut c_void);
    fn oracle_sender_marshall_and_discard(sender: *mut RawSender) -> usize;
}
