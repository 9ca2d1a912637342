use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;

const ALL: Wanted = Wanted { stdin: true, stdout: true, stderr: true, tty: true };

async fn pair(version: Version) -> (WebSocketStream<DuplexStream>, Streams, Connection) {
    let (client, server) = tokio::io::duplex(64 << 10);
    let client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let (streams, connection) = open(server, version, ALL, CancellationToken::new()).await;
    (client, streams, connection)
}

fn message(channel: u8, payload: &[u8]) -> Message {
    Message::Binary([&[channel], payload].concat().into())
}

async fn next(client: &mut WebSocketStream<DuplexStream>) -> Message {
    client.next().await.expect("there is a message").expect("it is sound")
}

#[tokio::test]
async fn channels_carry_streams() {
    let (mut client, mut streams, connection) = pair(Version::V5).await;
    assert_eq!(next(&mut client).await, message(STDOUT, b""));

    client.send(message(STDIN, b"hello")).await.unwrap();
    client.send(message(RESIZE, br#"{"Width":80,"Height":24}"#)).await.unwrap();
    client.send(message(RESIZE, b"nonsense")).await.unwrap();
    client.send(message(77, b"unknown")).await.unwrap();
    client.send(Message::Binary(Bytes::new())).await.unwrap();
    client.send(message(CLOSE, &[STDIN])).await.unwrap();
    let mut stdin = streams.stdin.take().unwrap();
    assert_eq!(stdin.recv().await.unwrap(), "hello");
    let size = streams.resize.as_mut().unwrap().recv().await.unwrap();
    assert_eq!(size, TerminalSize { width: 80, height: 24 });
    assert_eq!(stdin.recv().await, None);

    streams.stdout.as_ref().unwrap().send("out".into()).await.unwrap();
    streams.stderr.as_ref().unwrap().send("err".into()).await.unwrap();
    assert_eq!(next(&mut client).await, message(STDOUT, b"out"));
    assert_eq!(next(&mut client).await, message(STDERR, b"err"));

    drop(streams);
    let end = tokio::spawn(async move { connection.finish(&Outcome::Exited(0)).await });
    let status = next(&mut client).await;
    assert_eq!(status, message(ERROR, br#"{"metadata":{},"status":"Success"}"#));
    let Message::Close(Some(frame)) = next(&mut client).await else { panic!() };
    assert_eq!(frame.code, CloseCode::Normal);
    assert!(client.next().await.is_none_or(|m| m.is_err()));
    drop(client);
    end.await.unwrap();
}

#[tokio::test]
async fn only_v5_closes_single_channels() {
    let (mut client, mut streams, _connection) = pair(Version::V4).await;
    client.send(message(CLOSE, &[STDIN])).await.unwrap();
    client.send(message(STDIN, b"still open")).await.unwrap();
    assert_eq!(streams.stdin.as_mut().unwrap().recv().await.unwrap(), "still open");
}

#[tokio::test]
async fn earlier_protocols_hear_text() {
    let (mut client, streams, connection) = pair(Version::of("channel.k8s.io")).await;
    next(&mut client).await;
    drop(streams);
    let end = tokio::spawn(async move { connection.finish(&Outcome::Exited(3)).await });
    let Message::Binary(text) = next(&mut client).await else { panic!() };
    assert!(text.ends_with(b"exit code 3"), "{text:?}");
    drop(client);
    end.await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_is_noticed() {
    let (client, mut streams, _connection) = pair(Version::V5).await;
    drop(client);
    streams.gone.cancelled().await;
    assert_eq!(streams.stdin.as_mut().unwrap().recv().await, None);
}

#[tokio::test]
async fn known_bytes() {
    let (mut client, server) = tokio::io::duplex(1 << 10);
    let wanted = Wanted { stdin: true, stdout: true, ..Wanted::default() };
    let gone = CancellationToken::new();
    let (mut streams, _connection) = open(server, Version::V4, wanted, gone).await;
    // A masked binary frame of three bytes, as RFC 6455, section 5.2 draws it.
    client.write_all(&[0x82, 0x83, 1, 2, 3, 4, 1, 2 ^ b'h', 3 ^ b'i']).await.unwrap();
    assert_eq!(streams.stdin.as_mut().unwrap().recv().await.unwrap(), "hi");
    streams.stdout.as_ref().unwrap().send("yo".into()).await.unwrap();
    let mut frames = [0; 8];
    client.read_exact(&mut frames).await.unwrap();
    assert_eq!(frames, [0x82, 1, STDOUT, 0x82, 3, STDOUT, b'y', b'o']);
}

#[tokio::test]
async fn bytes_pass_through_messages() {
    let (client, server) = tokio::io::duplex(1 << 10);
    let mut client = WebSocketStream::from_raw_socket(client, Role::Client, None).await;
    let mut stream = ByteStream::new(server).await;
    client.send(Message::Binary("abc".into())).await.unwrap();
    client.send(Message::Ping(Bytes::new())).await.unwrap();
    client.send(Message::Binary("def".into())).await.unwrap();
    let mut read = [0; 6];
    stream.read_exact(&mut read[..2]).await.unwrap();
    stream.read_exact(&mut read[2..]).await.unwrap();
    assert_eq!(&read, b"abcdef");
    stream.write_all(b"ghi").await.unwrap();
    stream.flush().await.unwrap();
    let mut answers = [client.next().await, client.next().await].into_iter().flatten().flatten();
    assert!(answers.any(|m| m == Message::Binary("ghi".into())));
    client.close(None).await.unwrap();
    assert_eq!(stream.read(&mut read).await.unwrap(), 0);
    stream.shutdown().await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (mut client, server) = tokio::io::duplex(1 << 10);
            let wanted = Wanted { stdout: true, ..Wanted::default() };
            let gone = CancellationToken::new();
            let (_streams, connection) = open(server, Version::V5, wanted, gone.clone()).await;
            let _ = client.write_all(&bytes).await;
            drop(client);
            gone.cancelled().await;
            connection.reader.await.expect("the reader does not panic");
        });
    }
}
