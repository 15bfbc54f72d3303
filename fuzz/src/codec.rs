//! What must hold for a body of any kind: of a message, of migration data, of the link stage.

use spice_migration::{DecodeError, EncodeError, Fault};

use crate::layout::Layout;

/// One kind of body: how it lies on the wire, and the code under test that decodes and encodes it.
pub(crate) trait Codec {
    type Value<'a>: Copy;
    fn layout(&self) -> Layout;
    /// What a body must fulfil beyond each of its fields.
    fn fields_agree(&self, _body: &[u8]) -> bool {
        true
    }
    fn decode<'a>(&self, body: &'a [u8]) -> Result<Self::Value<'a>, DecodeError>;
    fn encoded_len(&self, value: &Self::Value<'_>) -> usize;
    fn encode(&self, value: &Self::Value<'_>, out: &mut [u8]) -> Result<usize, EncodeError>;
    /// Whether they are equal. A method, because a bound on `Value` would want all values to borrow from the same bytes.
    fn are_equal(&self, one: &Self::Value<'_>, other: &Self::Value<'_>) -> bool;
    /// In words. A method for the same reason.
    fn describe(&self, value: &Self::Value<'_>) -> String;
}

/// Checks all that must hold for these bytes.
///
/// # Panics
/// - The code under test and the [`Layout`] disagree on whether they are valid: one of both has misread the wire format.
/// - They decode to a value that encodes to something else than the layout says, or to something that decodes to another value.
/// - The encoded length is not what was announced, bytes behind it were written, or a buffer one byte too small was not refused
///   with the size that is needed.
/// - The body decodes without its last bytes, or with one more, though nothing in it may be shorter or longer.
/// - An error names another message, a field that there is not, or a place where that field is not.
pub(crate) fn check<C: Codec>(codec: &C, body: &[u8]) {
    let layout = codec.layout();
    let valid = layout.accepts(body) && codec.fields_agree(body);
    match codec.decode(body) {
        Ok(value) => {
            let shown = codec.describe(&value);
            assert!(valid, "{shown}");
            let again = encoded(codec, &value);
            assert_eq!(again, layout.canonical(body), "{shown}");
            assert!(codec.decode(&again).is_ok_and(|again| codec.are_equal(&again, &value)), "{shown}");
            check_cuts(codec, &layout, body, &value);
            check_one_byte_more(codec, &layout, body, &value);
        }
        Err(error) => {
            assert!(!valid, "{error}");
            check_error(codec, &layout, body, error);
        }
    }
}

/// Encodes a value, which must decode to the same, and returns its body.
pub(crate) fn encoded<C: Codec>(codec: &C, value: &C::Value<'_>) -> Vec<u8> {
    let length = codec.encoded_len(value);
    if let Some(short) = length.checked_sub(1) {
        let refused = Err(EncodeError::BufferTooSmall { needed: length });
        assert_eq!(codec.encode(value, &mut vec![0; short]), refused, "{}", codec.describe(value));
    }
    let mut exact = vec![0xaa; length];
    assert_eq!(codec.encode(value, &mut exact), Ok(length), "{}", codec.describe(value));
    // Other bytes than before, so that one that is not written shows.
    let mut roomy = vec![0x55; length + 3];
    assert_eq!(codec.encode(value, &mut roomy), Ok(length), "{}", codec.describe(value));
    assert_eq!(roomy.split_at(length), (&exact[..], &[0x55; 3][..]), "{}", codec.describe(value));
    exact
}

/// Cut in its fixed part or near its end, the body is refused, or what is left of it is valid.
fn check_cuts<C: Codec>(codec: &C, layout: &Layout, body: &[u8], whole: &C::Value<'_>) {
    let near_an_end = |cut: &usize| *cut < layout.fixed_len + 16 || body.len() - cut <= 32;
    for cut in (0..body.len()).filter(near_an_end) {
        let body = &body[..cut];
        match codec.decode(body) {
            Ok(value) => {
                // Made only when needed: most of the time would go into it.
                let shown = || format!("{} of {cut} bytes, {}", codec.describe(&value), codec.describe(whole));
                let may_be_shorter = layout.has_open_end() || (layout.has_offsets() && codec.are_equal(&value, whole));
                assert!(may_be_shorter, "{}", shown());
                assert_eq!(encoded(codec, &value), layout.canonical(body), "{}", shown());
            }
            Err(error) => {
                check_error(codec, layout, body, error);
                assert!(matches!(error.fault, Fault::Truncated | Fault::OutOfBounds), "{error} of {cut} bytes");
            }
        }
    }
}

fn check_one_byte_more<C: Codec>(codec: &C, layout: &Layout, body: &[u8], whole: &C::Value<'_>) {
    let longer = [body, &[0xff]].concat();
    match codec.decode(&longer) {
        Ok(value) if layout.has_open_end() => assert_eq!(encoded(codec, &value), layout.canonical(&longer)),
        Ok(value) => {
            assert!(layout.has_offsets() && codec.are_equal(&value, whole), "{}", codec.describe(&value));
        }
        Err(error) => {
            let end = u32::try_from(body.len()).unwrap();
            assert_eq!((error.field, error.offset, error.fault), ("end", end, Fault::TrailingBytes));
        }
    }
}

fn check_error<C: Codec>(codec: &C, layout: &Layout, body: &[u8], error: DecodeError) {
    assert!(error.to_string().starts_with(layout.c_name), "{error}, {}", layout.c_name);
    let offset = usize::try_from(error.offset).unwrap();
    assert!(offset <= body.len(), "{error}, of {} bytes", body.len());
    assert_eq!(error.fault == Fault::Truncated, body.len() < layout.fixed_len, "{error}, of {} bytes", body.len());
    match error.fault {
        Fault::LimitExceeded if error.field == "end" => {
            let length = body.len();
            assert!(length > offset, "{error}, of {length} bytes");
        }
        Fault::TrailingBytes => {
            assert_eq!(error.field, "end");
            assert!(codec.decode(&body[..offset]).is_ok(), "{error}, but without them it does not decode");
        }
        _ => {
            let offsets = layout.offsets_of(error.field, body);
            assert!(offsets.contains(&error.offset), "{error}, but the field is at {offsets:?}");
        }
    }
}
