//! Requests that a node's kubelet answers: logs, exec, attach, port-forward.
//!
//! Logs are an ordinary answer that is passed on. The others upgrade the connection; after the
//! upgrade bytes are passed both ways unread, so the protocol is the kubelet's.
//!
//! Source: kubernetes 1.33, `pkg/registry/core/pod/strategy.go` (locations and parameters).

use std::sync::Arc;
use std::time::Duration;

use api::{Key, Kind, Object, Pod, Reason, Status};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Node;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::answer::{self, Answer};
use crate::query::Query;
use crate::route::Resource;
use crate::server::Server;

const CONNECT_MAX: Duration = Duration::from_secs(10);
const KUBELET_PORT: i32 = 10_250;
/// What is read of a kubelet's refusal.
const REFUSAL_BYTES_MAX: usize = 64 << 10;
/// A kubelet that tells more of its pods than this is not believed.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Whether a kubelet answers this subresource.
pub(crate) fn is_proxied(resource: &Resource) -> bool {
    resource.kind == Kind::Pod
        && matches!(resource.subresource.as_str(), "log" | "exec" | "attach" | "portforward")
}

/// Passes a request on to the kubelet of its pod.
pub(crate) async fn proxy(
    server: &Arc<Server>,
    resource: &Resource,
    query: &Query,
    request: Request<Incoming>,
) -> Result<Answer, Status> {
    server.hub.barrier().await?;
    let place = {
        let state = server.hub.read();
        let entry = state
            .window
            .get(&Key::new(Kind::Pod, &resource.namespace, &resource.name))
            .ok_or_else(|| Status::not_found(Kind::Pod, &resource.name))?;
        let object = entry.object().map_err(Status::internal)?;
        let pod: &Pod = object.get().ok_or_else(|| Status::internal("not a pod"))?;
        Place::find(pod, resource, query, |node| {
            state.window.get(&Key::cluster(Kind::Node, node))?.object().ok()
        })?
    };
    let Some(place) = place else {
        // The log of a pod that runs nowhere yet is empty.
        return Ok(answer::text(StatusCode::OK, ""));
    };
    if resource.subresource == "log" {
        return log(server, &place, resource).await;
    }
    upgrade(server, &place, request).await
}

/// Where a request goes.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
    /// With its query.
    path: String,
}

impl Place {
    /// Finds the kubelet of the pod and the path it knows; `None` for the log of a pod without
    /// a node.
    fn find(
        pod: &Pod,
        resource: &Resource,
        query: &Query,
        node: impl FnOnce(&str) -> Option<Object>,
    ) -> Result<Option<Self>, Status> {
        let name = &resource.name;
        let assigned = pod.node_name.as_deref();
        let subresource = resource.subresource.as_str();
        let container = match subresource {
            "portforward" => String::new(),
            _ => container(pod, name, query.get("container"))?,
        };
        let Some(assigned) = assigned else {
            return match subresource {
                "log" => Ok(None),
                _ => Err(Status::bad_request(format!("pod {name} does not have a host assigned"))),
            };
        };
        let node = node(assigned).ok_or_else(|| Status::not_found(Kind::Node, assigned))?;
        let node: &Node = node.get().ok_or_else(|| Status::internal("not a node"))?;
        let (host, port) = address(node)
            .ok_or_else(|| Status::internal(format!("node {assigned} has no address")))?;
        let namespace = &resource.namespace;
        let parameters = parameters(subresource, query);
        let path = match subresource {
            "log" => format!("/containerLogs/{namespace}/{name}/{container}{parameters}"),
            "portforward" => format!("/portForward/{namespace}/{name}{parameters}"),
            _ => format!("/{subresource}/{namespace}/{name}/{container}{parameters}"),
        };
        Ok(Some(Self { host, port, path }))
    }
}

/// The container that is meant, which may be left out when there is only one.
fn container(pod: &Pod, name: &str, wanted: &str) -> Result<String, Status> {
    let spec = pod.spec.as_ref();
    let of = |init: bool| {
        let containers = spec.map(|s| {
            if init { s.init_containers.clone().unwrap_or_default() } else { s.containers.clone() }
        });
        containers.unwrap_or_default().into_iter().map(|c| c.name).collect::<Vec<_>>()
    };
    let (app, init) = (of(false), of(true));
    if !wanted.is_empty() {
        if app.iter().chain(&init).any(|c| c == wanted) {
            return Ok(wanted.to_owned());
        }
        return Err(Status::bad_request(format!("container {wanted} is not valid for pod {name}")));
    }
    let marked = pod
        .metadata
        .annotations
        .as_ref()
        .and_then(|a| a.get("kubectl.kubernetes.io/default-container"))
        .filter(|c| app.contains(c));
    match (app.as_slice(), marked) {
        ([one], _) => Ok(one.clone()),
        (_, Some(marked)) => Ok(marked.clone()),
        (_, None) => {
            let mut message = format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                app.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}

/// The address at which the node's kubelet listens.
fn address(node: &Node) -> Option<(String, u16)> {
    let status = node.status.as_ref()?;
    let addresses = status.addresses.as_deref().unwrap_or_default();
    let of = |kind: &str| addresses.iter().find(|a| a.type_ == kind).map(|a| a.address.clone());
    let host = of("InternalIP").or_else(|| of("Hostname")).or_else(|| of("ExternalIP"))?;
    let port = status
        .daemon_endpoints
        .as_ref()
        .and_then(|e| e.kubelet_endpoint.as_ref())
        .map_or(KUBELET_PORT, |e| e.port);
    Some((host, u16::try_from(port).ok()?))
}

/// The query as the kubelet reads it.
fn parameters(subresource: &str, query: &Query) -> String {
    let mut pairs = Vec::new();
    for (name, value) in query.pairs() {
        let name = match (subresource, name) {
            ("exec" | "attach", "stdin") => "input",
            ("exec" | "attach", "stdout") => "output",
            ("exec" | "attach", "stderr") => "error",
            ("exec" | "attach", "tty") => "tty",
            ("exec", "command") => "command",
            ("portforward", "ports" | "port") => "port",
            (
                "log",
                "follow" | "previous" | "sinceSeconds" | "sinceTime" | "timestamps" | "tailLines"
                | "limitBytes" | "stream",
            ) => name,
            _ => continue,
        };
        let streams = matches!(name, "input" | "output" | "error" | "tty");
        match value {
            "false" | "0" if streams => {}
            _ if streams => pairs.push(format!("{name}=1")),
            _ => pairs.push(format!("{name}={}", escape(value))),
        }
    }
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

fn escape(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(b).to_string()
            }
            _ => format!("%{b:02X}"),
        })
        .collect()
}

/// Sends a request on a connection of its own.
async fn send(
    server: &Server,
    place: &Place,
    mut request: Request<Empty<Bytes>>,
) -> Result<Response<Incoming>, Status> {
    let failed = |error: &dyn std::fmt::Display| {
        Status::new(
            Reason::InternalError,
            format!("error dialing backend: {}:{}: {error}", place.host, place.port),
        )
    };
    let name = ServerName::try_from(place.host.clone()).map_err(|e| failed(&e))?;
    let connector = TlsConnector::from(server.kubelet_tls.clone());
    let connect = async {
        let stream = TcpStream::connect((place.host.as_str(), place.port)).await?;
        stream.set_nodelay(true)?;
        connector.connect(name, stream).await
    };
    let stream = timeout(CONNECT_MAX, connect)
        .await
        .map_err(|_| failed(&"i/o timeout"))?
        .map_err(|e| failed(&e))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    tokio::spawn(connection.with_upgrades());
    let host = HeaderValue::try_from(format!("{}:{}", place.host, place.port));
    request.headers_mut().insert(header::HOST, host.map_err(|e| failed(&e))?);
    sender.send_request(request).await.map_err(|e| failed(&e))
}

fn request(place: &Place, method: Method) -> Result<Request<Empty<Bytes>>, Status> {
    let mut request = Request::new(Empty::new());
    *request.method_mut() = method;
    *request.uri_mut() = place.path.parse().map_err(Status::internal)?;
    Ok(request)
}

/// What the kubelet of a node answers at that path.
pub(crate) async fn get(server: &Server, node: &Node, path: &str) -> Result<Bytes, Status> {
    let (host, port) = address(node).ok_or_else(|| Status::internal("the node has no address"))?;
    let place = Place { host, port, path: path.to_owned() };
    let response = send(server, &place, request(&place, Method::GET)?).await?;
    let code = response.status();
    let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(Status::internal)?.to_bytes();
    if code == StatusCode::OK {
        return Ok(body);
    }
    Err(Status::from_json(code.as_u16(), body.trim_ascii()))
}

async fn log(server: &Server, place: &Place, resource: &Resource) -> Result<Answer, Status> {
    let response = send(server, place, request(place, Method::GET)?).await?;
    if response.status() != StatusCode::OK {
        return Err(refusal(response, resource).await);
    }
    let body = response.into_body().map_err(Into::into).boxed_unsync();
    Ok(answer::answer(StatusCode::OK, "text/plain", body))
}

/// What the kubelet refused, in our words.
async fn refusal(response: Response<Incoming>, resource: &Resource) -> Status {
    let code = response.status().as_u16();
    let body = Limited::new(response.into_body(), REFUSAL_BYTES_MAX).collect().await;
    let body = body.map(|b| b.to_bytes()).unwrap_or_default();
    let mut status = Status::from_json(code, body.trim_ascii());
    if status.name.is_empty() {
        resource.kind.plural().clone_into(&mut status.kind);
        status.name.clone_from(&resource.name);
    }
    status
}

/// Headers that belong to our connection with the client and not to the request.
fn is_our_own(name: &HeaderName) -> bool {
    matches!(*name, header::HOST | header::AUTHORIZATION | header::COOKIE | header::CONTENT_LENGTH)
        || name.as_str().starts_with("impersonate-")
}

fn passed_on(headers: &HeaderMap) -> HeaderMap {
    headers
        .iter()
        .filter(|(name, _)| !is_our_own(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

/// Upgrades both connections and passes bytes between them.
async fn upgrade(
    server: &Arc<Server>,
    place: &Place,
    mut incoming: Request<Incoming>,
) -> Result<Answer, Status> {
    if !incoming.headers().contains_key(header::UPGRADE) {
        return Err(Status::bad_request("Upgrade request required"));
    }
    let mut outgoing = request(place, incoming.method().clone())?;
    *outgoing.headers_mut() = passed_on(incoming.headers());
    let mut response = send(server, place, outgoing).await?;
    let mut answer = Response::new(answer::whole(""));
    *answer.status_mut() = response.status();
    *answer.headers_mut() = passed_on(response.headers());
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        *answer.body_mut() = response.into_body().map_err(Into::into).boxed_unsync();
        return Ok(answer);
    }
    let client = hyper::upgrade::on(&mut incoming);
    let kubelet = hyper::upgrade::on(&mut response);
    let mut stopping = server.draining.subscribe();
    tokio::spawn(async move {
        let tunnel = async {
            let (Ok(client), Ok(kubelet)) = tokio::join!(client, kubelet) else { return };
            let (mut client, mut kubelet) = (TokioIo::new(client), TokioIo::new(kubelet));
            if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut kubelet).await {
                tracing::debug!(%error, "a tunnel to a kubelet ended early");
            }
        };
        tokio::select! {
            () = tunnel => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    });
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use api::codec;

    fn place(subresource: &str, query: &str, node: &str) -> Result<Option<String>, String> {
        let pod = format!(
            r#"{{"metadata":{{"name":"p"}},"spec":{{"nodeName":"{node}",
            "containers":[{{"name":"a"}},{{"name":"b"}}],"initContainers":[{{"name":"i"}}]}}}}"#
        );
        let (pod, _) = codec::decode(Kind::Pod, pod.as_bytes()).unwrap();
        let node = r#"{"metadata":{"name":"n"},"status":{"addresses":[
            {"type":"Hostname","address":"n"},{"type":"InternalIP","address":"10.0.0.9"}]}}"#;
        let (node, _) = codec::decode(Kind::Node, node.as_bytes()).unwrap();
        let resource = Resource {
            kind: Kind::Pod,
            served: Kind::Pod,
            namespace: "ns".to_owned(),
            name: "p".to_owned(),
            subresource: subresource.to_owned(),
            verb: crate::route::Verb::Get,
        };
        Place::find(pod.get().unwrap(), &resource, &Query::parse(query), |_| Some(node))
            .map(|p| p.map(|p| format!("{}:{}{}", p.host, p.port, p.path)))
            .map_err(|s| s.message)
    }

    #[test]
    fn places() {
        let check = |subresource: &str, query: &str, expected: &str| {
            let found = place(subresource, query, "n").unwrap_or_else(Some);
            assert_eq!(found.as_deref(), Some(expected), "{subresource} {query}");
        };
        check(
            "log",
            "container=a&follow=true&tailLines=5&pretty=true",
            "10.0.0.9:10250/containerLogs/ns/p/a?follow=true&tailLines=5",
        );
        check(
            "exec",
            "container=b&command=ls&command=-l+x&stdin=true&stdout=true&tty=false",
            "10.0.0.9:10250/exec/ns/p/b?command=ls&command=-l%20x&input=1&output=1",
        );
        check("portforward", "ports=80", "10.0.0.9:10250/portForward/ns/p?port=80");
        check(
            "log",
            "",
            "a container name must be specified for pod p, choose one of: [a b] \
            or one of the init containers: [i]",
        );
        check("log", "container=x", "container x is not valid for pod p");
        assert_eq!(place("log", "container=a", ""), Ok(None));
        assert_eq!(
            place("exec", "container=a", "").unwrap_err(),
            "pod p does not have a host assigned"
        );
    }
}
