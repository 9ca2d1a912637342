use proptest::prelude::*;
use tokio::io::DuplexStream;

use super::*;

/// The client's side of a session.
pub(crate) struct TestClient {
    io: DuplexStream,
    encoder: Encoder,
    inflater: Inflater,
    next: u32,
}

/// What the server sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Received {
    Data(u32, Vec<u8>, bool),
    Reply(u32),
    Reset(u32),
    Ping(u32),
    End,
}

impl TestClient {
    pub(crate) fn new() -> (Self, DuplexStream) {
        let (io, server) = tokio::io::duplex(256 << 10);
        (Self { io, encoder: Encoder::new(), inflater: Inflater::new(), next: 1 }, server)
    }

    /// Opens a stream; returns its number.
    pub(crate) async fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        let id = self.next;
        self.next += 2;
        let headers = headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let frame = self.encoder.syn_stream(id, false, &headers);
        self.io.write_all(&frame).await.unwrap();
        id
    }

    pub(crate) async fn data(&mut self, id: u32, bytes: &[u8], fin: bool) {
        self.io.write_all(&frame::data_head(id, bytes.len(), fin)).await.unwrap();
        self.io.write_all(bytes).await.unwrap();
    }

    pub(crate) async fn reset(&mut self, id: u32) {
        self.io.write_all(&frame::reset(id, CANCEL)).await.unwrap();
    }

    /// The next frame, other than farewells.
    pub(crate) async fn receive(&mut self) -> Received {
        loop {
            let mut head = [0; frame::HEAD_BYTES];
            if self.io.read_exact(&mut head).await.is_err() {
                return Received::End;
            }
            match Head::parse(head).unwrap() {
                Head::Data { id, fin, length } => {
                    let mut bytes = vec![0; length];
                    self.io.read_exact(&mut bytes).await.unwrap();
                    return Received::Data(id, bytes, fin);
                }
                Head::Control { kind, flags, length } => {
                    let mut payload = vec![0; length];
                    self.io.read_exact(&mut payload).await.unwrap();
                    match Control::parse(kind, flags, &payload, &mut self.inflater).unwrap() {
                        Control::SynReply { id, .. } => return Received::Reply(id),
                        Control::Reset { id } => return Received::Reset(id),
                        Control::Ping(id) => return Received::Ping(id),
                        _ => {}
                    }
                }
            }
        }
    }

    /// All data of a stream up to its end; replies and other streams are passed over.
    pub(crate) async fn rest_of(&mut self, wanted: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.receive().await {
                Received::Data(id, bytes, fin) if id == wanted => {
                    all.extend(bytes);
                    if fin {
                        return all;
                    }
                }
                Received::End => panic!("the session ended before stream {wanted}"),
                _ => {}
            }
        }
    }
}

#[tokio::test]
async fn streams_are_opened_used_and_closed() {
    let (mut client, server) = TestClient::new();
    let gone = CancellationToken::new();
    let mut session = Session::start(server, gone.clone());
    let id = client.open(&[("streamType", "stdin"), ("x", "y")]).await;
    let mut stream = session.accept().await.unwrap();
    assert_eq!(client.receive().await, Received::Reply(id));
    assert_eq!(stream.headers["streamtype"], "stdin");
    client.data(id, b"hello", false).await;
    client.data(id, b"", true).await;
    assert_eq!(stream.chunks.recv().await.unwrap(), "hello");
    assert_eq!(stream.chunks.recv().await, None);
    stream.writer.send("back".into()).await.unwrap();
    stream.writer.finish().await.unwrap();
    assert_eq!(client.receive().await, Received::Data(id, b"back".to_vec(), false));
    assert_eq!(client.receive().await, Received::Data(id, Vec::new(), true));
    client.io.write_all(&frame::ping(7)).await.unwrap();
    assert_eq!(client.receive().await, Received::Ping(7));
    // A stream that goes backwards is refused, one that is reset ends.
    client.next = 1;
    let old = client.open(&[]).await;
    assert_eq!(client.receive().await, Received::Reset(old));
    client.next = 9;
    let other = client.open(&[]).await;
    assert_eq!(client.receive().await, Received::Reply(other));
    let mut stream = session.accept().await.unwrap();
    client.reset(other).await;
    stream.writer.was_reset().await;
    assert_eq!(stream.chunks.recv().await, None);
    assert_eq!(stream.writer.send("x".into()).await, Err(Closed));
    let end = tokio::spawn(session.close());
    assert_eq!(client.receive().await, Received::End);
    drop(client);
    end.await.unwrap();
    assert!(gone.is_cancelled());
}

#[tokio::test]
async fn a_slow_reader_slows_the_client_down() {
    let (mut client, server) = TestClient::new();
    let mut session = Session::start(server, CancellationToken::new());
    let id = client.open(&[]).await;
    let mut stream = session.accept().await.unwrap();
    let sent = vec![b'x'; 5 << 20];
    let sending = tokio::spawn(async move {
        client.data(id, &sent, true).await;
        client
    });
    let mut received = 0;
    while let Some(chunk) = stream.chunks.recv().await {
        assert!(chunk.len() <= CHUNK_BYTES_MAX);
        received += chunk.len();
    }
    assert_eq!(received, 5 << 20);
    let _client = sending.await.unwrap();
}

#[test]
fn known_frames() {
    assert_eq!(frame::ping(1), [0x80, 3, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]);
    assert_eq!(frame::reset(5, 3), [0x80, 3, 0, 3, 0, 0, 0, 8, 0, 0, 0, 5, 0, 0, 0, 3]);
    assert_eq!(frame::go_away(0), [0x80, 3, 0, 7, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(frame::data_head(5, 0x1_0002, true), [0, 0, 0, 5, 1, 1, 0, 2]);
    let check = |head, expected| assert_eq!(Head::parse(head), expected);
    check([0, 0, 0, 5, 1, 1, 0, 2], Ok(Head::Data { id: 5, fin: true, length: 0x1_0002 }));
    check([0x80, 3, 0, 1, 1, 0, 0, 9], Ok(Head::Control { kind: 1, flags: 1, length: 9 }));
    check([0x80, 2, 0, 1, 1, 0, 0, 9], Err(FrameError::Version(2)));
    let mut inflater = Inflater::new();
    let mut parse = |kind, payload: &[u8]| Control::parse(kind, 0, payload, &mut inflater);
    assert_eq!(parse(1, &[0; 9]), Err(FrameError::TooShort(1)));
    assert_eq!(parse(3, &[0; 3]), Err(FrameError::TooShort(3)));
    assert_eq!(parse(6, &[0, 0, 0, 9]), Ok(Control::Ping(9)));
    assert_eq!(parse(4, &[]), Ok(Control::Other));
    assert_eq!(parse(9, &[0; 8]), Ok(Control::Other));
}

/// Header blocks as another implementation of zlib wrote them.
#[test]
fn header_blocks_of_others() {
    let mut inflater = Inflater::new();
    let mut check = |kind: &str, hex: &str| {
        let bytes: Vec<u8> = (0..hex.len() / 2)
            .map(|i| u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).unwrap())
            .collect();
        let payload = [&[0, 0, 0, 3, 0, 0, 0, 0, 0, 0], bytes.as_slice()].concat();
        let control = Control::parse(1, 0, &payload, &mut inflater).unwrap();
        let headers = [("streamtype", kind), ("port", "80"), ("requestid", "0")];
        let headers = headers.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        assert_eq!(control, Control::SynStream { id: 3, fin: false, headers });
    };
    check(
        "error",
        "78f9e3c6a7c202253a703a2b294a4dcc851625aca9a0808614cb45a024cc64610024398b2091\
         98094adc8c0600000000ffff",
    );
    check("data", "c2aa15540a2512d209000000ffff");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        kind in 0_u8..11,
        flags in 0_u8..4,
    ) {
        let length = u8::try_from(bytes.len()).unwrap();
        let framed = [&[0x80, 3, 0, kind, flags, 0, 0, length], bytes.as_slice()].concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for input in [framed, bytes] {
                let (mut client, server) = TestClient::new();
                let session = Session::start(server, CancellationToken::new());
                client.io.write_all(&input).await.unwrap();
                drop(client);
                session.reader.await.expect("the reader does not panic");
            }
        });
    }
}
