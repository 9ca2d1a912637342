//! What is sent to a host, compressed where that is faster than sending it as it is.
//!
//! A stream begins as it is, in parts that show how fast the way is. On a fast way so does all of it
//! go: a processor that compresses is then what would be waited for. When the way turns out to be slow
//! the rest is a stream of gzip, whose pieces are compressed or not, each as what was measured of those
//! before it says. The receiver needs nothing but `head` and `gzip`.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

/// The part that goes as it is before the way is judged again. The first part or two may vanish into
/// buffers on the way.
pub(super) const PART: usize = 4 << 20;
/// The piece that is compressed, or not, as a whole.
const PIECE: usize = 1 << 20;
/// How hard it is tried: of our programs level 1 of this library leaves six tenths, level 3 four.
const LEVEL: Compression = Compression::new(3);
/// A way that takes less time for a byte is too fast to gain anything by compressing: 25 MB/s.
const FAST: Duration = Duration::from_nanos(40);
/// Compressing must promise to take less than this part of the time: the receiver works, too, and
/// the processor has other hosts to send to.
const GAIN: f64 = 0.8;
/// After so many pieces that went as they are it is tried again: what comes now may be other.
const RETRY: u32 = 16;
/// Measurements count half after so many pieces.
const MEMORY: f64 = 0.5;

/// A shell command that reads what a [`Packed`] writes and gives what was written to it.
pub(super) const RECEIVE: &str = "{ while read -r form length; do case $form in \
    gzip) gzip -dc; break;; *) head -c \"$length\";; esac; done; }";

/// A mean of seconds a byte in which the latest counts most.
#[derive(Debug, Clone, Copy, Default)]
struct Pace(Option<f64>);

impl Pace {
    fn measured(&mut self, bytes: usize, took: Duration) {
        if bytes == 0 {
            return;
        }
        let latest = took.as_secs_f64() / bytes as f64;
        self.0 = Some(self.0.map_or(latest, |before| before + (latest - before) * MEMORY));
    }
}

/// What is known of the way and of what is sent.
#[derive(Debug, Clone, Copy, Default)]
struct Rule {
    /// Of a byte on the way.
    way: Pace,
    /// Of a byte that is compressed.
    work: Pace,
    /// What is left of a byte.
    ratio: f64,
    /// Pieces that went as they are since the last try.
    untried: u32,
}

impl Rule {
    /// Whether it is worth to look at pieces at all.
    fn is_slow(&self) -> bool {
        self.way.0.is_some_and(|way| way > FAST.as_secs_f64())
    }

    /// Whether the next piece should be compressed.
    fn packs(&self) -> bool {
        let Some(way) = self.way.0 else { return false };
        match self.work.0 {
            Some(work) if self.untried < RETRY => work + self.ratio * way < GAIN * way,
            _ => self.is_slow(),
        }
    }

    fn packed(&mut self, raw: usize, packed: usize, took: Duration) {
        self.work.measured(raw, took);
        self.ratio = packed as f64 / raw.max(1) as f64;
        self.untried = 0;
    }
}

/// How the stream goes on.
enum Form {
    /// As it is: so many bytes are left of the part, and those before took so long.
    Plain(usize, Duration),
    /// As members of gzip; what is not yet a whole piece waits.
    Gzip(Vec<u8>),
}

/// A stream that [`RECEIVE`] reads. It must be ended with [`Packed::finish`].
pub(super) struct Packed<W, C> {
    out: W,
    /// The time that has passed since any moment.
    clock: C,
    rule: Rule,
    form: Form,
}

/// The time since the program's start, as it passes.
pub(super) fn stopwatch() -> impl FnMut() -> Duration {
    let began = Instant::now();
    move || began.elapsed()
}

impl<W: Write, C: FnMut() -> Duration> Packed<W, C> {
    pub(super) fn new(out: W, clock: C) -> Self {
        Self { out, clock, rule: Rule::default(), form: Form::Plain(0, Duration::ZERO) }
    }

    /// Sends what waits.
    pub(super) fn finish(mut self) -> io::Result<()> {
        if let Form::Gzip(rest) = &mut self.form {
            let rest = std::mem::take(rest);
            if !rest.is_empty() {
                self.piece(&rest)?;
            }
        }
        self.out.flush()
    }

    /// Sends bytes as they are; tells how long it took.
    fn send(&mut self, bytes: &[u8]) -> io::Result<Duration> {
        let began = (self.clock)();
        self.out.write_all(bytes)?;
        Ok((self.clock)().saturating_sub(began))
    }

    /// Sends a piece as a member of gzip.
    fn piece(&mut self, piece: &[u8]) -> io::Result<()> {
        let level = if self.rule.packs() { LEVEL } else { Compression::none() };
        let began = (self.clock)();
        let mut encoder = GzEncoder::new(Vec::with_capacity(piece.len() / 2), level);
        encoder.write_all(piece)?;
        let packed = encoder.finish()?;
        let took = (self.clock)().saturating_sub(began);
        if level == Compression::none() {
            self.rule.untried += 1;
        } else {
            self.rule.packed(piece.len(), packed.len(), took);
        }
        let took = self.send(&packed)?;
        self.rule.way.measured(packed.len(), took);
        Ok(())
    }

    /// Says how the stream goes on.
    fn begin_part(&mut self) -> io::Result<()> {
        if self.rule.is_slow() {
            self.form = Form::Gzip(Vec::with_capacity(PIECE));
            return self.out.write_all(b"gzip\n");
        }
        self.form = Form::Plain(PART, Duration::ZERO);
        self.out.write_all(format!("plain {PART}\n").as_bytes())
    }
}

impl<W: Write, C: FnMut() -> Duration> Write for Packed<W, C> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Form::Plain(0, _) = self.form {
            self.begin_part()?;
        }
        match &mut self.form {
            Form::Plain(left, before) => {
                let (left, before) = (*left, *before);
                let part = &bytes[..bytes.len().min(left)];
                let took = before + self.send(part)?;
                if left == part.len() {
                    self.rule.way.measured(PART, took);
                }
                self.form = Form::Plain(left - part.len(), took);
                Ok(part.len())
            }
            Form::Gzip(waiting) => {
                let part = &bytes[..bytes.len().min(PIECE - waiting.len())];
                waiting.extend_from_slice(part);
                if waiting.len() == PIECE {
                    let mut piece = std::mem::take(waiting);
                    self.piece(&piece)?;
                    piece.clear();
                    self.form = Form::Gzip(piece);
                }
                Ok(part.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests;
