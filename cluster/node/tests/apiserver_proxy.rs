//! The balancer in front of two API servers on stores in memory.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

#[expect(dead_code, reason = "the tests of the API server use all of it")]
#[path = "../../apiserver/tests/api/cluster.rs"]
mod cluster;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use client::Pem;
use cluster::Cluster;
use http::Method;
use node::apiserver_proxy::{self, Settings, Vitals};
use tokio::sync::{oneshot, watch};

fn client(of: &Cluster, at: SocketAddr) -> client::Client {
    let servers = [format!("https://{at}")];
    let config = client::Kubeconfig::load(&of.kubeconfig(), &servers, "test").unwrap();
    client::Client::new(config).unwrap()
}

async fn get(client: &client::Client) -> Result<u16, client::SendError> {
    let answer = client.call(Method::GET, "/api/v1/namespaces/default", "", Bytes::new());
    answer.await.map(|(code, _)| code)
}

/// Waits until the metrics say what is looked for.
async fn until(vitals: &Vitals, found: impl Fn(&str) -> bool) {
    let known = async {
        while !found(&vitals.metrics()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let known = tokio::time::timeout(Duration::from_secs(60), known).await;
    assert!(known.is_ok(), "{}", vitals.metrics());
}

fn list(path: &Path, clusters: &[SocketAddr]) {
    let text: String = clusters.iter().map(|address| format!("{address}\n")).collect();
    let new = path.with_extension("new");
    std::fs::write(&new, text).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_follow_the_api_servers_that_are_ready() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let delayed = Cluster::start_with(|config| config.shutdown_delay = Duration::from_secs(30));
    let (first, second) = (delayed.await, Cluster::start().await);
    let folder = tempfile::tempdir().unwrap();
    let upstreams = folder.path().join("upstreams");
    list(&upstreams, &[first.address, second.address]);
    // Each of them has an authority of its own here, so that a client knows which one it has met.
    let ca: String = [&first, &second]
        .map(|cluster| std::fs::read_to_string(cluster.file("ca.crt")).unwrap())
        .concat();
    let settings = Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        upstreams: upstreams.clone(),
        ca: Pem::Inline(ca),
    };
    let vitals = Arc::new(Vitals::default());
    let (stop, stopped) = watch::channel(false);
    let (ready, is_ready) = oneshot::channel();
    let proxy = tokio::spawn(apiserver_proxy::run(
        settings,
        Arc::clone(&vitals),
        |address| ready.send(address).unwrap(),
        stopped,
    ));
    let at = is_ready.await.unwrap();
    let is = |cluster: SocketAddr, ready: u8| {
        let line = format!("apiserver_proxy_upstream_ready{{upstream=\"{cluster}\"}} {ready}\n");
        move |metrics: &str| metrics.contains(&line)
    };
    let (one, two) = (first.address, second.address);
    until(&vitals, is(one, 1)).await;
    until(&vitals, is(two, 1)).await;
    assert!(vitals.check().is_ok());
    let of_first = client(&first, at);
    assert_eq!(get(&of_first).await.unwrap(), 200);
    assert!(get(&client(&second, at)).await.is_err(), "it meets the first one");

    // One that stops still serves, but nobody new is sent to it.
    let stopping = tokio::spawn(first.stop());
    until(&vitals, is(one, 0)).await;
    assert_eq!(get(&of_first).await.unwrap(), 200);
    let of_second = client(&second, at);
    assert_eq!(get(&of_second).await.unwrap(), 200);
    stopping.abort();

    // Another list moves no established connection.
    list(&upstreams, &[one]);
    let listed = format!("upstream_ready{{upstream=\"{two}\"}}");
    until(&vitals, |metrics| !metrics.contains(&listed)).await;
    assert_eq!(get(&of_second).await.unwrap(), 200);
    stop.send_replace(true);
    proxy.await.unwrap().unwrap();
    second.stop().await;
}
