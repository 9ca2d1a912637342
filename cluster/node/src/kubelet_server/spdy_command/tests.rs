use super::super::spdy::tests::{Received, TestClient};
use super::*;

const V4: &str = "v4.channel.k8s.io";

#[tokio::test]
async fn streams_of_a_terminal() {
    let (mut client, server) = TestClient::new();
    let wanted = Wanted { stdin: true, stdout: true, stderr: false, tty: true };
    let opening = tokio::spawn(open(server, V4, wanted, CancellationToken::new()));
    let error = client.open(&[("streamtype", "error")]).await;
    client.data(error, b"", true).await;
    let unwanted = client.open(&[("streamtype", "stderr")]).await;
    let stdin = client.open(&[("streamtype", "stdin")]).await;
    let stdout = client.open(&[("streamtype", "stdout")]).await;
    let resize = client.open(&[("streamtype", "resize")]).await;
    let (mut streams, connection) = opening.await.unwrap().unwrap();

    client.data(resize, br#"{"Width":80,"Height":24}{"Wid"#, false).await;
    client.data(resize, br#"th":81,"Height":25}"#, false).await;
    let mut sizes = streams.resize.take().unwrap();
    let size = |width, height| Some(TerminalSize { width, height });
    assert_eq!(sizes.recv().await, size(80, 24));
    assert_eq!(sizes.recv().await, size(81, 25));
    client.data(stdin, b"ls\n", true).await;
    let mut input = streams.stdin.take().unwrap();
    assert_eq!(input.recv().await.unwrap(), "ls\n");
    assert_eq!(input.recv().await, None);
    streams.stdout.as_ref().unwrap().send("file".into()).await.unwrap();
    drop(streams);
    let end = tokio::spawn(async move { connection.finish(&Outcome::Exited(7)).await });
    let mut reset = Vec::new();
    let mut output = Vec::new();
    let mut status = Vec::new();
    loop {
        match client.receive().await {
            Received::Reset(id) => reset.push(id),
            Received::Data(id, bytes, _) if id == stdout => output.extend(bytes),
            Received::Data(id, bytes, _) if id == error => status.extend(bytes),
            Received::End => break,
            _ => {}
        }
    }
    assert_eq!((reset, output), (vec![unwanted], b"file".to_vec()));
    let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
    assert_eq!(status["details"]["causes"][0]["message"], "7");
    drop(client);
    end.await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_early_gets_nothing() {
    let (mut client, server) = TestClient::new();
    let wanted = Wanted { stdout: true, ..Wanted::default() };
    let gone = CancellationToken::new();
    let opening = tokio::spawn(open(server, V4, wanted, gone.clone()));
    client.open(&[("streamtype", "error")]).await;
    drop(client);
    assert!(opening.await.unwrap().is_none());
    assert!(gone.is_cancelled());
}

#[tokio::test]
async fn the_first_version_hears_text() {
    let (mut client, server) = TestClient::new();
    let wanted = Wanted { stdout: true, ..Wanted::default() };
    let opening = tokio::spawn(open(server, "", wanted, CancellationToken::new()));
    let error = client.open(&[("streamtype", "error")]).await;
    client.open(&[("streamtype", "stdout")]).await;
    let (streams, connection) = opening.await.unwrap().unwrap();
    drop(streams);
    let failed = Outcome::Failed("no".into());
    let end = tokio::spawn(async move { connection.finish(&failed).await });
    assert_eq!(client.rest_of(error).await, b"error executing command in container: no");
    drop(client);
    end.await.unwrap();
}
