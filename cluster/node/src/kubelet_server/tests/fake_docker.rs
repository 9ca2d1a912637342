//! A Docker with one pod: a pause container and the attempts `old` and `new` of container `c`.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bollard::{API_DEFAULT_VERSION, Docker};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kubelet::naming;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixListener;

pub(super) struct FakeDocker {
    dir: TempDir,
    log: Arc<Log>,
}

#[derive(Default)]
struct Log {
    asked: Mutex<Vec<String>>,
    created: Mutex<Vec<Value>>,
}

type Reply = Response<Full<bytes::Bytes>>;

impl FakeDocker {
    pub(super) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("docker.sock")).unwrap();
        let log = Arc::new(Log::default());
        let shared = Arc::clone(&log);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let log = Arc::clone(&shared);
                tokio::spawn(async move {
                    let service = service_fn(move |request| answer(Arc::clone(&log), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .with_upgrades()
                        .await;
                });
            }
        });
        Self { dir, log }
    }

    pub(super) fn client(&self) -> Docker {
        let path = self.dir.path().join("docker.sock");
        Docker::connect_with_unix(path.to_str().unwrap(), 10, API_DEFAULT_VERSION).unwrap()
    }

    /// Paths of all requests.
    pub(super) fn asked(&self) -> Vec<String> {
        self.log.asked.lock().unwrap().clone()
    }

    /// Commands that were made.
    pub(super) fn created(&self) -> Vec<Value> {
        self.log.created.lock().unwrap().clone()
    }
}

async fn answer(log: Arc<Log>, mut request: Request<Incoming>) -> Result<Reply, Infallible> {
    let uri = request.uri().to_string();
    log.asked.lock().unwrap().push(uri.clone());
    let path = request.uri().path().to_owned();
    let path = path.trim_start_matches('/');
    let segments: Vec<&str> = path.split('/').collect();
    Ok(match segments.as_slice() {
        ["containers", "json"] => {
            let running = !uri.contains("all=true");
            let all = json!([
                container("pause", naming::SANDBOX, 1, "running"),
                container("old", "c", 2, "exited"),
                container("new", "c", 3, "running"),
            ]);
            let all = all.as_array().unwrap().iter();
            let ours = !uri.contains("pod.name%3Dq");
            let matching = all.filter(|c| ours && (!running || c["State"] == "running"));
            reply(200, json!(matching.collect::<Vec<_>>()).to_string())
        }
        ["containers", id, "json"] => reply(
            200,
            json!({"Id": id, "State": {"Running": *id != "old", "Pid": 0}, "Config": {},
                "HostConfig": {"NetworkMode": "bridge"},
                "NetworkSettings": {"Networks": {"kube": {"IPAddress": "127.0.0.1"}}}})
            .to_string(),
        ),
        ["containers", "old", "logs"] => reply(200, framed(1, "old\n")),
        ["containers", "new", "logs"] => {
            let lines = [framed(1, "out 1\n"), framed(2, "err 1\n"), framed(1, "out 2\n")];
            reply(200, lines.concat())
        }
        ["containers", _, "stats"] => reply(
            200,
            json!({"cpu_stats": {"cpu_usage": {"total_usage": 1}}, "memory_stats":
                {"usage": 100, "stats": {"inactive_file": 30}}})
            .to_string(),
        ),
        ["containers", _, "exec"] => {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            log.created.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
            reply(201, json!({"Id": "e1"}).to_string())
        }
        ["exec", "e1", "start"] => {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut io = TokioIo::new(upgraded.await.unwrap());
                let mut buffer = [0; 1_024];
                loop {
                    let read = io.read(&mut buffer).await.unwrap();
                    if read == 0 {
                        break;
                    }
                    let text = std::str::from_utf8(&buffer[..read]).unwrap();
                    io.write_all(&framed(1, text)).await.unwrap();
                }
                io.write_all(&framed(2, "bye")).await.unwrap();
                io.shutdown().await.unwrap();
            });
            let mut reply = reply(101, "");
            let headers = reply.headers_mut();
            headers.insert(header::CONNECTION, "Upgrade".parse().unwrap());
            headers.insert(header::UPGRADE, "tcp".parse().unwrap());
            reply
        }
        ["exec", "e1", "json"] => {
            reply(200, json!({"ID": "e1", "Running": false, "ExitCode": 3}).to_string())
        }
        _ => reply(404, json!({"message": format!("no {uri}")}).to_string()),
    })
}

fn container(id: &str, name: &str, created: i64, state: &str) -> Value {
    json!({"Id": id, "Created": created, "State": state, "Labels": {
        naming::POD_NAMESPACE: "ns", naming::POD_NAME: "p", naming::POD_UID: "u",
        naming::CONTAINER_NAME: name}})
}

/// A chunk of one of the output streams, as Docker frames it.
fn framed(stream: u8, text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap();
    [&[stream, 0, 0, 0], &length.to_be_bytes()[..], text.as_bytes()].concat()
}

fn reply(code: u16, body: impl Into<bytes::Bytes>) -> Reply {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}
