use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

/// A server that greets with its name and then says everything again.
async fn echo(name: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                stream.write_all(name.as_bytes()).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

/// An address that refuses connections: nobody listens there any more.
async fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

fn vitals(upstreams: &[SocketAddr]) -> Arc<Vitals> {
    let vitals = Arc::new(Vitals::default());
    locked(&vitals.balancer).replace(upstreams);
    vitals
}

/// A client of one relay.
async fn connect(vitals: &Arc<Vitals>) -> TcpStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let vitals = Arc::clone(vitals);
    tokio::spawn(async move { relay(stream, &vitals).await });
    client
}

async fn hears(client: &mut TcpStream, expected: &str) {
    let mut heard = vec![0; expected.len()];
    client.read_exact(&mut heard).await.unwrap();
    assert_eq!(String::from_utf8(heard).unwrap(), expected);
}

#[tokio::test]
async fn a_connection_goes_past_a_server_that_refuses_it() {
    let (gone, well) = (nobody().await, echo("b").await);
    let vitals = vitals(&[gone, well]);
    let mut client = connect(&vitals).await;
    hears(&mut client, "b").await;
    client.write_all(b"again").await.unwrap();
    hears(&mut client, "again").await;
    // The next one does not try it again.
    hears(&mut connect(&vitals).await, "b").await;
    let metrics = vitals.metrics();
    for line in [
        format!("apiserver_proxy_connect_failures_total{{upstream=\"{gone}\"}} 1\n"),
        format!("apiserver_proxy_connections_total{{upstream=\"{well}\"}} 2\n"),
        format!("apiserver_proxy_upstream_ready{{upstream=\"{well}\"}} 0\n"),
        "apiserver_proxy_unserved_total 0\n".to_owned(),
    ] {
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
}

#[tokio::test]
async fn connections_to_a_dead_server_end_and_others_stay() {
    let (dies, stays) = (echo("a").await, echo("b").await);
    let vitals = vitals(&[dies, stays]);
    let mut first = connect(&vitals).await;
    hears(&mut first, "a").await;
    locked(&vitals.balancer).refused(dies);
    let mut second = connect(&vitals).await;
    hears(&mut second, "b").await;
    vitals.line(dies).end.send_modify(|times| *times += 1);
    assert_eq!(first.read(&mut [0; 8]).await.unwrap(), 0);
    second.write_all(b"on").await.unwrap();
    hears(&mut second, "on").await;
    let ended = format!("apiserver_proxy_connections_ended_total{{upstream=\"{dies}\"}} 1\n");
    assert!(vitals.metrics().contains(&ended));
}

#[tokio::test]
async fn a_client_is_told_when_no_server_is_left() {
    let vitals = vitals(&[nobody().await]);
    let mut client = connect(&vitals).await;
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert!(vitals.metrics().contains("apiserver_proxy_unserved_total 1\n"));
    assert!(vitals.check().unwrap_err().contains("is unready"));
}
