//! Small changes to bytes that were valid.

use arbitrary::Unstructured;

/// Makes up to three changes, each chosen by the input: a byte, a number that lies at a boundary, one byte more, or an earlier end.
pub(crate) fn mutate(body: &mut Vec<u8>, choices: &mut Unstructured<'_>) -> arbitrary::Result<()> {
    for _ in 0..choices.int_in_range(0..=3)? {
        let place = choices.int_in_range(0..=body.len())?;
        match choices.int_in_range(0..=3)? {
            0 => {
                if let Some(byte) = body.get_mut(place) {
                    *byte = choices.arbitrary()?;
                }
            }
            1 => {
                let length = u32::try_from(body.len()).unwrap();
                let boundary =
                    *choices.choose(&[0, 1, length, length - length.min(1), length + 1, 1 << 16, 1 << 31, u32::MAX])?;
                if let Some(number) = body[place..].first_chunk_mut() {
                    *number = boundary.to_le_bytes();
                }
            }
            2 => body.insert(place, choices.arbitrary()?),
            _ => body.truncate(place),
        }
    }
    Ok(())
}
