use std::cell::Cell;
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;
use proptest::prelude::*;

use super::*;

/// Nanoseconds that have passed.
type Clock = Rc<Cell<u64>>;

/// A way on which a byte takes a time.
struct Way {
    clock: Clock,
    nanos_a_byte: u64,
    arrived: Vec<u8>,
}

impl Write for Way {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.clock.set(self.clock.get() + bytes.len() as u64 * self.nanos_a_byte);
        self.arrived.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sends `bytes` on a way of that speed, with a processor that takes no time to compress, or
/// `work_nanos` for each look at the clock; gives what arrives.
fn sent(bytes: &[u8], nanos_a_byte: u64, work_nanos: u64) -> Vec<u8> {
    let clock = Clock::default();
    let mut way = Way { clock: clock.clone(), nanos_a_byte, arrived: Vec::new() };
    let look = move || {
        clock.set(clock.get() + work_nanos);
        Duration::from_nanos(clock.get())
    };
    let mut packed = Packed::new(&mut way, look);
    for part in bytes.chunks(256 * 1024) {
        packed.write_all(part).unwrap();
    }
    packed.finish().unwrap();
    way.arrived
}

/// What the receiver makes of it, and the forms that the parts had.
fn received(arrived: &[u8]) -> (Vec<u8>, String) {
    let (mut whole, mut forms, mut rest) = (Vec::new(), String::new(), arrived);
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        rest = &rest[end + 1..];
        match line.split_once(' ') {
            Some(("plain", length)) => {
                forms.push('p');
                let (part, after) = rest.split_at(rest.len().min(length.parse().unwrap()));
                whole.extend_from_slice(part);
                rest = after;
            }
            _ => {
                assert_eq!(line, "gzip");
                forms.push('z');
                MultiGzDecoder::new(rest).read_to_end(&mut whole).unwrap();
                rest = &[];
            }
        }
    }
    assert!(rest.is_empty());
    (whole, forms)
}

/// Bytes that can be compressed well, or not at all.
fn bytes(len: usize, random: bool) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    let low = |number: usize| number.to_le_bytes()[0];
    (0..len).map(|i| if random { next() } else { low(i / 1000) }).collect()
}

/// 1.25 MB/s.
const SLOW: u64 = 800;
/// 500 MB/s.
const SWIFT: u64 = 2;

#[test]
fn a_fast_way_carries_the_bytes_as_they_are() {
    let bytes = bytes(10 << 20, false);
    let arrived = sent(&bytes, SWIFT, 0);
    assert_eq!(received(&arrived), (bytes.clone(), "ppp".to_owned()));
    assert_eq!(arrived.len(), bytes.len() + 3 * "plain 4194304\n".len());
}

#[test]
fn a_slow_way_carries_less() {
    let bytes = bytes(20 << 20, false);
    let arrived = sent(&bytes, SLOW, 0);
    assert_eq!(received(&arrived), (bytes.clone(), "pz".to_owned()));
    assert!(arrived.len() < PART + bytes.len() / 20, "{}", arrived.len());
}

#[test]
fn what_cannot_be_compressed_is_tried_now_and_then() {
    let bytes = bytes(24 << 20, true);
    let arrived = sent(&bytes, SLOW, 0);
    assert_eq!(received(&arrived), (bytes.clone(), "pz".to_owned()));
    // Stored pieces are a little longer than what is in them.
    assert!(arrived.len() < bytes.len() + bytes.len() / 100, "{}", arrived.len());
    let mut rule = Rule::default();
    rule.way.measured(1, Duration::from_nanos(SLOW));
    assert!(rule.packs());
    rule.packed(1000, 1000, Duration::from_micros(1));
    for _ in 0..RETRY {
        assert!(!rule.packs());
        rule.untried += 1;
    }
    assert!(rule.packs());
}

#[test]
fn a_processor_that_is_slower_than_the_way_is_not_waited_for() {
    let mut rule = Rule::default();
    assert!(!rule.packs() && !rule.is_slow());
    rule.way.measured(1 << 20, Duration::from_millis(100));
    assert!(rule.packs() && rule.is_slow());
    // Half is left, but it takes as long as sending all of it.
    rule.packed(1 << 20, 1 << 19, Duration::from_millis(100));
    assert!(!rule.packs());
    // Once it is quick enough, and the way is as slow as before.
    (0..8).for_each(|_| rule.packed(1 << 20, 1 << 19, Duration::from_millis(10)));
    assert!(rule.packs());
    (0..8).for_each(|_| rule.way.measured(1 << 20, Duration::from_millis(10)));
    assert!(!rule.packs());
}

#[test]
fn the_shell_gives_what_was_sent() {
    for (len, nanos) in [
        (0, SLOW),
        (100, SLOW),
        (PART, SLOW),
        (PART + 1, SLOW),
        (7 << 20, SLOW),
        (PART, SWIFT),
        (PART + 1, SWIFT),
        (7 << 20, SWIFT),
    ] {
        let bytes = bytes(len, false);
        let arrived = sent(&bytes, nanos, 0);
        let mut shell = Command::new("sh")
            .args(["-euc", &format!("{RECEIVE} | cat")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = shell.stdin.take().unwrap();
        let writer = std::thread::spawn(move || input.write_all(&arrived).unwrap());
        let output = shell.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(output.status.success() && output.stdout == bytes, "{len} bytes at {nanos} ns");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]
    #[test]
    fn nothing_is_lost(len in 0_usize..6 << 20, nanos in 0_u64..1000, work in 0_u64..100_000_000) {
        let bytes = bytes(len, len % 3 == 0);
        let arrived = sent(&bytes, nanos, work);
        prop_assert!(received(&arrived).0 == bytes);
    }
}
