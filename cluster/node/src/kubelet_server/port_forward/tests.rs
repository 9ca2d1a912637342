use tokio::net::TcpListener;

use super::super::spdy::tests::{Received, TestClient};
use super::*;

fn start() -> (TestClient, tokio::task::JoinHandle<()>) {
    let (client, server) = TestClient::new();
    let gone = CancellationToken::new();
    let session = Session::start(server, gone.clone());
    let sandbox = Sandbox { pid: None, address: Some("127.0.0.1".to_owned()) };
    (client, tokio::spawn(serve(session, sandbox, "p_ns".to_owned(), gone)))
}

async fn open(client: &mut TestClient, port: u16, request: &str) -> (u32, u32) {
    let port = port.to_string();
    let headers = |kind| [("streamType", kind), ("port", port.as_str()), ("requestID", request)];
    let error = client.open(&headers("error")).await;
    client.data(error, b"", true).await;
    (client.open(&headers("data")).await, error)
}

#[tokio::test]
async fn connections_pass_both_ways() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let echo = tokio::spawn(async move {
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let (mut client, serving) = start();
    let (data, error) = open(&mut client, port, "0").await;
    let sent = vec![b'x'; 100_000];
    client.data(data, &sent, true).await;
    assert_eq!(client.rest_of(data).await, sent);
    assert_eq!(client.rest_of(error).await, b"");

    // One that is broken off ends too.
    let (data, error) = open(&mut client, port, "1").await;
    client.data(data, b"y", false).await;
    while client.receive().await != Received::Data(data, b"y".to_vec(), false) {}
    client.reset(data).await;
    assert_eq!(client.rest_of(error).await, b"");
    drop(client);
    serving.await.unwrap();
    echo.await.unwrap();
}

#[tokio::test]
async fn refused_connections_are_explained() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let (mut client, serving) = start();
    let (_, error) = open(&mut client, port, "0").await;
    let text = String::from_utf8(client.rest_of(error).await).unwrap();
    assert!(
        text.starts_with(&format!(
            "error forwarding port {port} to pod p_ns: failed to connect to localhost:{port}"
        )),
        "{text}"
    );
    // Streams that make no sense are refused.
    for headers in [
        [("streamtype", "data"), ("port", "0"), ("requestid", "9")],
        [("streamtype", "data"), ("port", "x"), ("requestid", "9")],
        [("streamtype", "other"), ("port", "80"), ("requestid", "9")],
        [("streamtype", "data"), ("port", "80"), ("other", "9")],
    ] {
        let id = client.open(&headers).await;
        while client.receive().await != Received::Reset(id) {}
    }
    drop(client);
    serving.await.unwrap();
}
