//! Which protocol a client wants to change to, and the answer that agrees to it.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::answer::{Answer, Refusal, text, whole};

const SPDY: &str = "SPDY/3.1";
const PROTOCOL: HeaderName = HeaderName::from_static("x-stream-protocol-version");
const ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");

/// The protocol that both sides agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Upgrade {
    /// A WebSocket, and which of our protocols is spoken on it.
    WebSocket {
        /// What proves that we understood.
        accept_key: String,
        /// The protocol, empty when the client named none.
        protocol: &'static str,
    },
    /// SPDY/3.1, and which of our protocols is spoken on it.
    Spdy {
        /// The protocol, empty when the client named none.
        protocol: &'static str,
    },
}

impl Upgrade {
    /// Agrees on a protocol; `web_socket` and `spdy` are ours, where an empty name stands for
    /// clients that name none.
    pub(crate) fn negotiate(
        headers: &HeaderMap,
        web_socket: &'static [&'static str],
        spdy: &'static [&'static str],
    ) -> Result<Self, Box<Answer>> {
        if has_token(headers, &header::CONNECTION, "upgrade")
            && has_token(headers, &header::UPGRADE, "websocket")
        {
            return Self::web_socket(headers, web_socket).map_err(|r| Box::new(r.into()));
        }
        if !has_token(headers, &header::CONNECTION, "upgrade")
            || !has_token(headers, &header::UPGRADE, SPDY)
        {
            let message = "unable to upgrade: missing upgrade headers in request";
            return Err(Box::new(Refusal::bad_request(message).into()));
        }
        let wanted = tokens(headers, &PROTOCOL);
        let protocol = match wanted.as_slice() {
            [] => Some(""),
            wanted => first_common(wanted, spdy),
        };
        protocol.map(|protocol| Self::Spdy { protocol }).ok_or_else(|| {
            let message = format!(
                "unable to upgrade: unable to negotiate protocol: client supports [{}], server \
                 accepts [{}]",
                wanted.join(" "),
                spdy.join(" ")
            );
            let mut answer = text(StatusCode::FORBIDDEN, message);
            for name in spdy {
                answer.headers_mut().append(ACCEPTED, HeaderValue::from_static(name));
            }
            Box::new(answer)
        })
    }

    fn web_socket(headers: &HeaderMap, ours: &'static [&'static str]) -> Result<Self, Refusal> {
        let version = headers.get(header::SEC_WEBSOCKET_VERSION);
        if version.is_none_or(|v| v != "13") {
            return Err(Refusal::bad_request("unsupported version of the WebSocket protocol"));
        }
        let key = headers
            .get(header::SEC_WEBSOCKET_KEY)
            .ok_or_else(|| Refusal::bad_request("a WebSocket handshake without a key"))?;
        let wanted = tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL);
        let protocol = match wanted.as_slice() {
            [] => ours.iter().copied().find(|name| name.is_empty()),
            wanted => first_common(wanted, ours),
        };
        let protocol = protocol.ok_or_else(|| {
            Refusal::bad_request(format!(
                "no common protocol: client supports [{}], server accepts [{}]",
                wanted.join(" "),
                ours.join(" ")
            ))
        })?;
        Ok(Self::WebSocket { accept_key: derive_accept_key(key.as_bytes()), protocol })
    }

    /// The answer after which the new protocol is spoken.
    pub(crate) fn answer(&self) -> Answer {
        let mut answer = Response::new(whole(""));
        *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let headers = answer.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        let (upgrade, name, protocol) = match self {
            Self::WebSocket { accept_key, protocol } => {
                if let Ok(key) = HeaderValue::from_str(accept_key) {
                    headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
                }
                ("websocket", header::SEC_WEBSOCKET_PROTOCOL, *protocol)
            }
            Self::Spdy { protocol } => (SPDY, PROTOCOL, *protocol),
        };
        headers.insert(header::UPGRADE, HeaderValue::from_static(upgrade));
        if !protocol.is_empty() {
            headers.insert(name, HeaderValue::from_static(protocol));
        }
        answer
    }
}

/// The comma-separated values of all headers of a name.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Vec<&'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|t| !t.is_empty()).collect()
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).iter().any(|t| t.eq_ignore_ascii_case(token))
}

/// The first that the client wants and we speak.
fn first_common(wanted: &[&str], ours: &'static [&'static str]) -> Option<&'static str> {
    wanted.iter().find_map(|name| ours.iter().copied().find(|our| our == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: &[&str] = &["v5.channel.k8s.io", "v4.channel.k8s.io", ""];
    const SPDY_NAMES: &[&str] = &["v4.channel.k8s.io", "channel.k8s.io"];

    fn check(pairs: &[(&'static str, &'static str)]) -> Result<Upgrade, u16> {
        let headers = pairs
            .iter()
            .map(|(k, v)| (HeaderName::from_static(k), HeaderValue::from_static(v)))
            .fold(HeaderMap::new(), |mut headers, (k, v)| {
                headers.append(k, v);
                headers
            });
        Upgrade::negotiate(&headers, WEB, SPDY_NAMES).map_err(|answer| answer.status().as_u16())
    }

    #[test]
    fn web_sockets() {
        let asked = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            // The example of RFC 6455, section 1.3.
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let accept_key = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=".to_owned();
        assert_eq!(
            check(&asked),
            Ok(Upgrade::WebSocket { accept_key: accept_key.clone(), protocol: "" })
        );
        let mut named = asked.to_vec();
        named.push(("sec-websocket-protocol", "v9, v4.channel.k8s.io, v5.channel.k8s.io"));
        let upgrade = check(&named).unwrap();
        let protocol = "v4.channel.k8s.io";
        assert_eq!(upgrade, Upgrade::WebSocket { accept_key: accept_key.clone(), protocol });
        let answer = upgrade.answer();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["sec-websocket-accept"], accept_key.as_str());
        assert_eq!(answer.headers()["sec-websocket-protocol"], protocol);
        let mut unknown = asked.to_vec();
        unknown.push(("sec-websocket-protocol", "v9"));
        assert_eq!(check(&unknown), Err(400));
        assert_eq!(check(&asked[..3]), Err(400));
        assert_eq!(check(&asked[..2]), Err(400));
    }

    #[test]
    fn spdy() {
        let asked = [
            ("connection", "Upgrade"),
            ("upgrade", "SPDY/3.1"),
            ("x-stream-protocol-version", "v5.channel.k8s.io"),
            ("x-stream-protocol-version", "v4.channel.k8s.io"),
            ("x-stream-protocol-version", "channel.k8s.io"),
        ];
        let upgrade = check(&asked).unwrap();
        assert_eq!(upgrade, Upgrade::Spdy { protocol: "v4.channel.k8s.io" });
        let answer = upgrade.answer();
        assert_eq!(answer.headers()["upgrade"], "SPDY/3.1");
        assert_eq!(answer.headers()["x-stream-protocol-version"], "v4.channel.k8s.io");
        assert_eq!(check(&asked[..2]), Ok(Upgrade::Spdy { protocol: "" }));
        assert_eq!(check(&asked[..3]), Err(403));
        assert_eq!(check(&asked[1..]), Err(400));
        assert_eq!(check(&[]), Err(400));
    }
}
