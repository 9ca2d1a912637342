//! Frames: eight bytes of head, then the payload.

use super::Headers;
use super::header_block::{Deflater, HeaderError, Inflater};

/// Length of the head of every frame.
pub(super) const HEAD_BYTES: usize = 8;
const VERSION: u16 = 3;
const CONTROL: u8 = 0x80;
const FIN: u8 = 1;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const HEADERS: u16 = 8;

/// Why bytes are no frame.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("version {0} of the protocol is not spoken")]
    Version(u16),
    #[error("a frame of type {0} is too short")]
    TooShort(u16),
    #[error("a control frame of {0} bytes")]
    TooLong(usize),
    #[error("unreadable headers")]
    Headers(#[from] HeaderError),
}

/// The head of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// Payload of a stream.
    Data { id: u32, fin: bool, length: usize },
    /// Everything else.
    Control { kind: u16, flags: u8, length: usize },
}

impl Head {
    /// Reads the head of a frame.
    pub(super) fn parse(head: [u8; HEAD_BYTES]) -> Result<Self, FrameError> {
        let [a, b, c, d, flags, e, f, g] = head;
        let length = usize::from(e) << 16 | usize::from(f) << 8 | usize::from(g);
        if a & CONTROL == 0 {
            let id = u32::from_be_bytes([a, b, c, d]);
            return Ok(Self::Data { id, fin: flags & FIN != 0, length });
        }
        let version = u16::from_be_bytes([a & !CONTROL, b]);
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        Ok(Self::Control { kind: u16::from_be_bytes([c, d]), flags, length })
    }
}

/// A control frame, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// Opens a stream.
    SynStream { id: u32, fin: bool, headers: Headers },
    /// Accepts a stream.
    SynReply { id: u32, fin: bool },
    /// Breaks a stream off.
    Reset { id: u32 },
    /// Asks for a sign of life, or is one.
    Ping(u32),
    /// More headers of a stream.
    Headers { id: u32, fin: bool },
    /// Settings, windows, farewells: nothing depends on them.
    Other,
}

impl Control {
    /// Reads a control frame. Every header block must pass the inflater, whose state all share.
    pub(super) fn parse(
        kind: u16,
        flags: u8,
        payload: &[u8],
        inflater: &mut Inflater,
    ) -> Result<Self, FrameError> {
        let fin = flags & FIN != 0;
        let id = || {
            let bytes = payload.first_chunk::<4>().ok_or(FrameError::TooShort(kind))?;
            Ok::<_, FrameError>(u32::from_be_bytes(*bytes) & 0x7fff_ffff)
        };
        let block = |at: usize| payload.get(at..).ok_or(FrameError::TooShort(kind));
        Ok(match kind {
            SYN_STREAM => {
                let headers = inflater.headers(block(10)?)?;
                Self::SynStream { id: id()?, fin, headers }
            }
            SYN_REPLY => {
                inflater.headers(block(4)?)?;
                Self::SynReply { id: id()?, fin }
            }
            HEADERS => {
                inflater.headers(block(4)?)?;
                Self::Headers { id: id()?, fin }
            }
            RST_STREAM => Self::Reset { id: id()? },
            PING => {
                let bytes = payload.first_chunk::<4>().ok_or(FrameError::TooShort(kind))?;
                Self::Ping(u32::from_be_bytes(*bytes))
            }
            _ => Self::Other,
        })
    }
}

/// Encodes the frames that carry headers.
pub(super) struct Encoder {
    deflater: Deflater,
}

impl Encoder {
    /// Starts a session.
    pub(super) fn new() -> Self {
        Self { deflater: Deflater::new() }
    }

    /// Accepts a stream.
    pub(super) fn syn_reply(&mut self, id: u32) -> Vec<u8> {
        let block = self.deflater.block(&Headers::new());
        control(SYN_REPLY, 0, &[&id.to_be_bytes()[..], &block].concat())
    }

    /// Opens a stream, as clients do.
    #[cfg(test)]
    pub(super) fn syn_stream(&mut self, id: u32, fin: bool, headers: &Headers) -> Vec<u8> {
        let block = self.deflater.block(headers);
        let head = [&id.to_be_bytes()[..], &[0; 6]].concat();
        control(SYN_STREAM, u8::from(fin), &[&head[..], &block].concat())
    }
}

/// The head of a data frame of at most 2²⁴-1 bytes.
pub(super) fn data_head(id: u32, length: usize, fin: bool) -> [u8; HEAD_BYTES] {
    let [a, b, c, d] = id.to_be_bytes();
    let [e, f, g] = length_bytes(length);
    [a & !CONTROL, b, c, d, u8::from(fin), e, f, g]
}

/// Breaks a stream off.
pub(super) fn reset(id: u32, status: u32) -> Vec<u8> {
    control(RST_STREAM, 0, &[id.to_be_bytes(), status.to_be_bytes()].concat())
}

/// Asks for a sign of life, or gives one.
pub(super) fn ping(id: u32) -> Vec<u8> {
    control(PING, 0, &id.to_be_bytes())
}

/// Says farewell.
pub(super) fn go_away(last: u32) -> Vec<u8> {
    control(GOAWAY, 0, &[last.to_be_bytes(), [0; 4]].concat())
}

fn control(kind: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [k, l] = kind.to_be_bytes();
    let [v, w] = VERSION.to_be_bytes();
    let [e, f, g] = length_bytes(payload.len());
    let mut frame = vec![CONTROL | v, w, k, l, flags, e, f, g];
    frame.extend_from_slice(payload);
    frame
}

fn length_bytes(length: usize) -> [u8; 3] {
    let length = u32::try_from(length).unwrap_or(u32::MAX);
    let [zero, e, f, g] = length.to_be_bytes();
    assert_eq!(zero, 0, "frames are made of chunks of less than 2^24 bytes");
    [e, f, g]
}
