//! Header blocks, compressed over the whole session with a dictionary that the standard gives.
//!
//! Source: SPDY/3.1 draft, section 2.6.10.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

use super::Headers;

/// Strings of the dictionary that stand there with their length before them.
const COUNTED: &str = "options head post put delete trace accept accept-charset accept-encoding \
    accept-language accept-ranges age allow authorization cache-control connection content-base \
    content-encoding content-language content-length content-location content-md5 content-range \
    content-type date etag expect expires from host if-match if-modified-since if-none-match \
    if-range if-unmodified-since last-modified location max-forwards pragma proxy-authenticate \
    proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
    user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url \
    public set-cookie keep-alive origin";
/// The rest of the dictionary.
const PLAIN: &str = "10010120120220520630030230330430530630740240540640740840941041141241341441541\
    6417502504505203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Reque\
    st401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Se\
    rvice UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu,\
    \x20Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,applicat\
    ion/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8ch\
    arset=iso-8859-1,utf-,*,enq=0.";

/// No block of headers that a client sends is larger.
const BLOCK_BYTES_MAX: usize = 64 << 10;
const CHUNK: usize = 4 << 10;

/// Why a header block cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderError {
    #[error("the compressed data is broken")]
    Compression,
    #[error("the headers are larger than {BLOCK_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the headers end early")]
    Truncated,
}

fn dictionary() -> Vec<u8> {
    let mut all = Vec::with_capacity(1_423);
    for word in COUNTED.split(' ') {
        let length = u32::try_from(word.len()).expect("words are short");
        all.extend_from_slice(&length.to_be_bytes());
        all.extend(word.bytes().map(|b| if b == b'_' { b' ' } else { b }));
    }
    all.extend_from_slice(PLAIN.as_bytes());
    all
}

/// Reads the header blocks of a session.
pub(super) struct Inflater {
    zlib: Decompress,
}

impl Inflater {
    /// Starts a session.
    pub(super) fn new() -> Self {
        Self { zlib: Decompress::new(true) }
    }

    /// Reads the next block.
    pub(super) fn headers(&mut self, block: &[u8]) -> Result<Headers, HeaderError> {
        parse(&self.inflate(block)?)
    }

    fn inflate(&mut self, mut block: &[u8]) -> Result<Vec<u8>, HeaderError> {
        let mut out = Vec::new();
        let mut chunk = [0; CHUNK];
        loop {
            let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
            let result = self.zlib.decompress(block, &mut chunk, FlushDecompress::Sync);
            let read = size(self.zlib.total_in() - read);
            let written = size(self.zlib.total_out() - written);
            block = block.get(read..).unwrap_or_default();
            out.extend_from_slice(&chunk[..written]);
            match result {
                Err(error) if error.needs_dictionary().is_some() => {
                    self.zlib
                        .set_dictionary(&dictionary())
                        .map_err(|_| HeaderError::Compression)?;
                    continue;
                }
                Err(_) => return Err(HeaderError::Compression),
                Ok(_) => {}
            }
            if out.len() > BLOCK_BYTES_MAX {
                return Err(HeaderError::TooLarge);
            }
            // Less than a full chunk: there is no more.
            if written < CHUNK && (block.is_empty() || read == 0) {
                return if block.is_empty() { Ok(out) } else { Err(HeaderError::Compression) };
            }
        }
    }
}

fn size(count: u64) -> usize {
    usize::try_from(count).expect("one step takes and gives no more than its buffers hold")
}

fn parse(block: &[u8]) -> Result<Headers, HeaderError> {
    let mut rest = block;
    let mut number = || -> Result<usize, HeaderError> { take_number(&mut rest) };
    let count = number()?;
    let mut headers = Headers::new();
    for _ in 0..count {
        let name = take_text(&mut rest)?.to_ascii_lowercase();
        let value = take_text(&mut rest)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

fn take_number(rest: &mut &[u8]) -> Result<usize, HeaderError> {
    let (bytes, tail) = rest.split_first_chunk::<4>().ok_or(HeaderError::Truncated)?;
    *rest = tail;
    usize::try_from(u32::from_be_bytes(*bytes)).map_err(|_| HeaderError::TooLarge)
}

fn take_text(rest: &mut &[u8]) -> Result<String, HeaderError> {
    let length = take_number(rest)?;
    let (text, tail) = rest.split_at_checked(length).ok_or(HeaderError::Truncated)?;
    *rest = tail;
    Ok(String::from_utf8_lossy(text).into_owned())
}

/// Writes the header blocks of a session.
pub(super) struct Deflater {
    zlib: Compress,
}

impl Deflater {
    /// Starts a session.
    pub(super) fn new() -> Self {
        let mut zlib = Compress::new(Compression::default(), true);
        zlib.set_dictionary(&dictionary()).expect("a fresh compressor takes a dictionary");
        Self { zlib }
    }

    /// Writes the next block.
    pub(super) fn block(&mut self, headers: &Headers) -> Vec<u8> {
        let mut plain = Vec::new();
        let number = |n: usize| u32::try_from(n).expect("our headers are few and short");
        plain.extend_from_slice(&number(headers.len()).to_be_bytes());
        for text in headers.iter().flat_map(|(name, value)| [name, value]) {
            plain.extend_from_slice(&number(text.len()).to_be_bytes());
            plain.extend_from_slice(text.as_bytes());
        }
        let mut rest = plain.as_slice();
        let mut out = Vec::new();
        let mut chunk = [0; CHUNK];
        loop {
            let (read, written) = (self.zlib.total_in(), self.zlib.total_out());
            self.zlib
                .compress(rest, &mut chunk, FlushCompress::Sync)
                .expect("compressing plain bytes into a buffer cannot fail");
            let read = size(self.zlib.total_in() - read);
            let written = size(self.zlib.total_out() - written);
            rest = &rest[read..];
            out.extend_from_slice(&chunk[..written]);
            if written < CHUNK {
                return out;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn headers(pairs: &[(&str, &str)]) -> Headers {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    #[test]
    fn the_dictionary_is_the_standards() {
        assert_eq!(dictionary().len(), 1_423);
        // A zlib stream names its dictionary by Adler-32: the standard's is e3c6a7c2.
        let block = Deflater::new().block(&Headers::new());
        assert_eq!(block[1] & 0x20, 0x20);
        assert_eq!(block[2..6], [0xe3, 0xc6, 0xa7, 0xc2]);
    }

    #[test]
    fn blocks_of_one_session_share_their_history() {
        let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
        let first = headers(&[("streamtype", "error"), ("port", "8080"), ("requestid", "0")]);
        let second = headers(&[("streamtype", "data"), ("port", "8080"), ("requestid", "0")]);
        let (a, b) = (deflater.block(&first), deflater.block(&second));
        assert!(b.len() < a.len());
        assert_eq!(inflater.headers(&a), Ok(first));
        assert_eq!(inflater.headers(&b), Ok(second));
        let long = headers(&[("x", &"0123456789".repeat(5_000))]);
        let block = deflater.block(&long);
        assert_eq!(inflater.headers(&block), Ok(long));
    }

    #[test]
    fn broken_blocks_are_refused() {
        let check = |plain: &[u8], expected| assert_eq!(parse(plain).unwrap_err(), expected);
        check(&[], HeaderError::Truncated);
        check(&[0, 0, 0, 1, 0, 0, 0, 1], HeaderError::Truncated);
        check(&[255; 4], HeaderError::Truncated);
        check(&[0, 0, 0, 1, 255, 255, 255, 255], HeaderError::Truncated);
        assert_eq!(Inflater::new().headers(b"nonsense"), Err(HeaderError::Compression));
        let bomb = headers(&[("x", &"x".repeat(BLOCK_BYTES_MAX))]);
        let block = Deflater::new().block(&bomb);
        assert_eq!(Inflater::new().headers(&block), Err(HeaderError::TooLarge));
    }

    proptest! {
        #[test]
        fn any_headers_survive(
            pairs in prop::collection::btree_map("[a-z]{0,8}", ".{0,40}", 0..6),
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(), Inflater::new());
            for _ in 0..2 {
                let block = deflater.block(&pairs);
                prop_assert_eq!(inflater.headers(&block), Ok(pairs.clone()));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
            let mut session = Inflater::new();
            let _ = session.headers(&bytes);
            let _ = session.headers(&bytes);
            let mut started = Deflater::new().block(&Headers::new());
            started.extend_from_slice(&bytes);
            let _ = Inflater::new().headers(&started);
        }
    }
}
