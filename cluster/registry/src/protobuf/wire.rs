//! The wire format: tags, varints and length-delimited payloads.
//!
//! Source: protobuf.dev, "Encoding".

use super::WireError;

/// The value of one field, not yet interpreted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Payload<'a> {
    /// Wire type 0.
    Varint(u64),
    /// Wire type 2.
    Bytes(&'a [u8]),
    /// Wire types 1 and 5: no served message has any.
    Fixed,
}

impl<'a> Payload<'a> {
    pub(super) const fn varint(self, name: &'static str) -> Result<u64, WireError> {
        match self {
            Self::Varint(value) => Ok(value),
            _ => Err(WireError::WrongType(name)),
        }
    }

    pub(super) const fn bytes(self, name: &'static str) -> Result<&'a [u8], WireError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(WireError::WrongType(name)),
        }
    }

    pub(super) fn text(self, name: &'static str) -> Result<&'a str, WireError> {
        std::str::from_utf8(self.bytes(name)?).map_err(|_| WireError::Utf8(name))
    }
}

/// The fields of a message in wire order: number and payload. Ends after the first error.
pub(super) fn fields(bytes: &[u8]) -> Fields<'_> {
    Fields { rest: bytes }
}

/// See [`fields`].
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Payload<'a>), WireError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}

impl<'a> Fields<'a> {
    fn field(&mut self) -> Result<(u32, Payload<'a>), WireError> {
        let tag = varint(&mut self.rest)?;
        let number = u32::try_from(tag >> 3).map_err(|_| WireError::Overflow)?;
        let payload = match tag & 7 {
            0 => Payload::Varint(varint(&mut self.rest)?),
            1 => self.take(8).map(|_| Payload::Fixed)?,
            2 => {
                let length = varint(&mut self.rest)?;
                let length = usize::try_from(length).map_err(|_| WireError::Overflow)?;
                Payload::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Payload::Fixed)?,
            other => return Err(WireError::WireType(other)),
        };
        Ok((number, payload))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], WireError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(WireError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

/// Reads one varint from the front.
pub(super) fn varint(bytes: &mut &[u8]) -> Result<u64, WireError> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(WireError::Truncated)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(WireError::Overflow)
}
