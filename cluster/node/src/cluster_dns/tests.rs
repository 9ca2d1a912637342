use std::fs;

use proptest::prelude::*;
use serde_json::{Value, json};
use simple_dns::rdata::{A, NULL, OPT, RData};
use simple_dns::{CLASS, Name, Packet, PacketFlag, QTYPE, ResourceRecord, TYPE};
use tempfile::NamedTempFile;

use super::*;

/// A type that the library has no name for, and the data of a record of it.
const SSHFP: TYPE = TYPE::Unknown(44);
const FINGERPRINT: &[u8] = &[4, 2, 0xc0, 0x0c, 0, 0xff];

/// A server with some services, and these upstream resolvers.
struct Bench {
    server: Arc<Server>,
    _list: NamedTempFile,
}

fn bench(upstreams: &[SocketAddr]) -> Bench {
    let list = NamedTempFile::new().unwrap();
    let lines = upstreams.iter().map(|server| format!("nameserver {server}\n"));
    fs::write(list.path(), lines.collect::<String>()).unwrap();
    let settings = Settings {
        listen: "10.0.0.1:10053".parse().unwrap(),
        zone: Zone { domain: "cluster.local".to_owned(), ranges: Vec::new() },
        clients: vec!["10.244.0.0/16".parse().unwrap()],
        own: vec!["10.254.0.10".parse().unwrap()],
        resolv_conf: list.path().to_owned(),
    };
    let server = Arc::new(Server::new(settings, Arc::default()));
    server.directory.write().unwrap().put_namespace("default");
    service(&server, "web", &json!({"clusterIP": "10.254.0.7"}));
    service(&server, "many", &json!({"clusterIP": "None"}));
    let external = json!({"type": "ExternalName", "externalName": "example.com"});
    service(&server, "outside", &external);
    let endpoint = |n: u8| json!({"addresses": [format!("10.244.1.{n}")]});
    let slice = json!({"metadata": {"namespace": "default", "name": "many-1",
            "labels": {"kubernetes.io/service-name": "many"}},
        "addressType": "IPv4", "endpoints": (0..120).map(endpoint).collect::<Vec<_>>()});
    server.directory.write().unwrap().put_slice(&serde_json::from_value(slice).unwrap());
    Bench { server, _list: list }
}

fn service(server: &Server, name: &str, spec: &Value) {
    let service = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    let service = serde_json::from_value(service).unwrap();
    server.directory.write().unwrap().put_service(&service);
}

fn question(name: &str, kind: TYPE, edns: Option<u16>) -> Vec<u8> {
    let mut packet = Packet::new_query(7);
    packet.set_flags(PacketFlag::RECURSION_DESIRED);
    let name = Name::new(name).unwrap();
    packet.questions.push(simple_dns::Question::new(name, kind.into(), CLASS::IN.into(), false));
    if let Some(udp_packet_size) = edns {
        *packet.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 });
    }
    packet.build_bytes_vec().unwrap()
}

fn show(message: &[u8]) -> String {
    let packet = Packet::parse(message).unwrap();
    assert_eq!((packet.id(), packet.has_flags(PacketFlag::RESPONSE)), (7, true));
    let mut text = format!("{:?}", packet.rcode());
    for record in &packet.answers {
        let data = match &record.rdata {
            RData::A(a) => std::net::Ipv4Addr::from(a.address).to_string(),
            RData::CNAME(name) => name.to_string(),
            other => format!("{other:?}"),
        };
        text.push_str(&format!(" {}={data}", record.name));
    }
    text
}

/// Sockets of both protocols at one free port of this host.
async fn sockets() -> (UdpSocket, TcpListener, SocketAddr) {
    // A port that is free for datagrams may be another program's for connections: the next one
    // that the system gives is another.
    for _ in 0..64 {
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = udp.local_addr().unwrap();
        if let Ok(tcp) = TcpListener::bind(address).await {
            return (udp, tcp, address);
        }
    }
    panic!("no port is free for both protocols");
}

/// A client of the server's sockets.
struct Asker {
    address: SocketAddr,
    udp: UdpSocket,
}

impl Asker {
    async fn of(bench: &Bench) -> Self {
        let (udp, tcp, address) = sockets().await;
        tokio::spawn(answer_datagrams(Arc::clone(&bench.server), udp));
        tokio::spawn(answer_connections(Arc::clone(&bench.server), tcp));
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        udp.connect(address).await.unwrap();
        Self { address, udp }
    }

    async fn ask(&self, question: &[u8]) -> Vec<u8> {
        self.udp.send(question).await.unwrap();
        let mut buffer = vec![0; 65_535];
        let length = self.udp.recv(&mut buffer).await.unwrap();
        buffer.truncate(length);
        buffer
    }

    async fn ask_name(&self, name: &str) -> String {
        show(&self.ask(&question(name, TYPE::A, Some(1_232))).await)
    }
}

/// An upstream resolver that knows one name, and tells all that it is asked; a long answer is cut.
async fn resolver() -> (SocketAddr, mpsc::Receiver<String>) {
    let (socket, listener, address) = sockets().await;
    let (sink, asked) = mpsc::channel(64);
    let over_tcp = sink.clone();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        loop {
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let reply = resolve(&buffer[..length], true);
            sink.send(reply.0).await.unwrap();
            // Somebody else guesses, badly.
            let mut guess = reply.1.clone();
            guess[0] ^= 1;
            socket.send_to(&guess, client).await.unwrap();
            socket.send_to(&reply.1, client).await.unwrap();
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let length = stream.read_u16().await.unwrap();
            let mut buffer = vec![0; length.into()];
            stream.read_exact(&mut buffer).await.unwrap();
            let reply = resolve(&buffer, false);
            over_tcp.send(format!("{} over tcp", reply.0)).await.unwrap();
            stream.write_u16(reply.1.len().try_into().unwrap()).await.unwrap();
            stream.write_all(&reply.1).await.unwrap();
        }
    });
    (address, asked)
}

fn resolve(message: &[u8], datagram: bool) -> (String, Vec<u8>) {
    let message = wire::Message::of(message);
    let packet = message.packet().unwrap();
    let question = packet.questions[0].clone();
    let name = question.qname.to_string().to_lowercase();
    let mut reply = Packet::new_reply(packet.id());
    let answer = |address| {
        let data = RData::A(A { address });
        ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, data)
    };
    match name.as_str() {
        "example.com" if question.qtype == QTYPE::TYPE(SSHFP) => {
            let data = RData::NULL(SSHFP.into(), NULL::new(FINGERPRINT).unwrap());
            let record = ResourceRecord::new(question.qname.clone(), CLASS::IN, 60, data);
            reply.answers.push(record);
        }
        "example.com" => reply.answers.push(answer(0x0102_0304)),
        "long.example.com" if datagram => reply.set_flags(PacketFlag::TRUNCATION),
        "long.example.com" => reply.answers.extend((0..300).map(answer)),
        _ => *reply.rcode_mut() = RCODE::NameError,
    }
    reply.questions.push(question);
    (name, reply.build_bytes_vec().unwrap())
}

#[tokio::test]
async fn answers_are_no_longer_than_the_asker_takes() {
    let bench = bench(&[]);
    let asker = Asker::of(&bench).await;
    assert_eq!(
        asker.ask_name("WEB.default.svc.cluster.local").await,
        "NoError web.default.svc.cluster.local=10.254.0.7"
    );
    let name = "many.default.svc.cluster.local";
    for (edns, limit) in [(None, 512), (Some(1), 512), (Some(1_000), 1_000), (Some(9_000), 1_232)] {
        let question = question(name, TYPE::A, edns);
        let reply = asker.ask(&question).await;
        let packet = Packet::parse(&reply).unwrap();
        assert!(packet.has_flags(PacketFlag::TRUNCATION) && reply.len() <= limit, "{edns:?}");
        assert!(packet.answers.is_empty() && packet.opt().is_some() == edns.is_some());
    }
    let mut stream = TcpStream::connect(asker.address).await.unwrap();
    for _ in 0..2 {
        let question = question(name, TYPE::A, None);
        stream.write_u16(question.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&question).await.unwrap();
        let mut reply = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut reply).await.unwrap();
        let packet = Packet::parse(&reply).unwrap();
        assert_eq!((packet.answers.len(), packet.has_flags(PacketFlag::TRUNCATION)), (120, false));
        assert!(packet.has_flags(PacketFlag::AUTHORITATIVE_ANSWER));
    }
}

#[tokio::test]
async fn other_names_are_asked_of_others_once() {
    let (upstream, mut asked) = resolver().await;
    let bench = bench(&[upstream]);
    let asker = Asker::of(&bench).await;
    for _ in 0..2 {
        assert_eq!(asker.ask_name("Example.com").await, "NoError example.com=1.2.3.4");
    }
    let outside = "outside.default.svc.cluster.local";
    let answer = format!("NoError {outside}=example.com example.com=1.2.3.4");
    assert_eq!(asker.ask_name(outside).await, answer);
    assert_eq!(asker.ask_name("nobody.example.com").await, "NameError");
    let reply = asker.ask(&question("long.example.com", TYPE::A, None)).await;
    assert!(Packet::parse(&reply).unwrap().has_flags(PacketFlag::TRUNCATION));
    let mut names = Vec::new();
    while let Ok(name) = asked.try_recv() {
        names.push(name);
    }
    let long = ["long.example.com", "long.example.com over tcp"];
    assert_eq!(names, [&["example.com", "nobody.example.com"][..], &long].concat());
}

/// An answer to a question of a type without a name.
fn show_nameless(message: &[u8]) -> String {
    let message = wire::Message::of(message);
    let packet = message.packet().unwrap();
    assert_eq!(packet.questions[0].qtype, QTYPE::TYPE(SSHFP));
    let mut text = format!("{:?}", packet.rcode());
    for record in &packet.answers {
        let RData::NULL(code, data) = &record.rdata else { panic!("{record:?}") };
        text.push_str(&format!(" {}={code}:{:?}", record.name, data.get_data()));
    }
    for record in &packet.name_servers {
        text.push_str(&format!(" {}={:?}", record.name, record.rdata.type_code()));
    }
    text
}

#[tokio::test]
async fn types_without_a_name_are_answered_like_any_other() {
    let (upstream, mut asked) = resolver().await;
    let bench = bench(&[upstream]);
    let asker = Asker::of(&bench).await;
    let check = async |name: &str, expected: &str| {
        let reply = asker.ask(&question(name, SSHFP, Some(1_232))).await;
        assert_eq!(show_nameless(&reply), expected, "{name}");
    };
    check("web.default.svc.cluster.local", "NoError cluster.local=SOA").await;
    check("nobody.default.svc.cluster.local", "NameError cluster.local=SOA").await;
    assert!(asked.try_recv().is_err(), "names of the cluster are nobody else's business");
    let records = format!("NoError example.com=44:{FINGERPRINT:?}");
    for _ in 0..2 {
        check("example.com", &records).await;
    }
    // The address of the same name is another question.
    assert_eq!(asker.ask_name("example.com").await, "NoError example.com=1.2.3.4");
    check("nobody.example.com", "NameError").await;
    let mut names = Vec::new();
    while let Ok(name) = asked.try_recv() {
        names.push(name);
    }
    assert_eq!(names, ["example.com", "example.com", "nobody.example.com"]);
}

/// So does one that comes back in a circle: it waits for itself.
#[tokio::test]
async fn the_same_question_of_many_is_asked_once() {
    let (upstream, mut asked) = resolver().await;
    let bench = bench(&[upstream]);
    let name = || Name::new("nobody.example.com").unwrap().into_owned();
    let ask = || bench.server.upstream.lookup(name(), "x".to_owned(), QTYPE::TYPE(TYPE::A));
    let (first, second) = tokio::join!(ask(), ask());
    assert!(Arc::ptr_eq(&first.unwrap(), &second.unwrap()));
    assert!(asked.try_recv().is_ok() && asked.try_recv().is_err());
}

#[tokio::test]
async fn without_others_the_answer_is_that_there_is_none() {
    let bench = bench(&["10.254.0.10:53".parse().unwrap()]);
    let asker = Asker::of(&bench).await;
    assert_eq!(asker.ask_name("example.com").await, "ServerFailure");
    let outside = "outside.default.svc.cluster.local";
    assert_eq!(asker.ask_name(outside).await, "ServerFailure");
    assert!(bench.server.vitals.metrics().contains("cluster_dns_forwarded_failures_total 2\n"));
}

#[test]
fn resolvers_of_a_file() {
    let check = |text: &str, expected: &[&str]| {
        let own = ["10.254.0.10".parse().unwrap()];
        let servers = upstream::servers(text, &own);
        assert_eq!(servers.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    };
    check("# x\nsearch a\nnameserver 10.0.0.1\nnameserver ::1\n", &["10.0.0.1:53", "[::1]:53"]);
    check("nameserver 10.254.0.10\nnameserver\nnameserver x\n", &[]);
    check("nameserver 127.0.0.1:5353 # x\n", &["127.0.0.1:5353"]);
    let many = (1..9).map(|n| format!("nameserver 10.0.0.{n}\n")).collect::<String>();
    check(&many, &["10.0.0.1:53", "10.0.0.2:53", "10.0.0.3:53"]);
}

fn code(server: &Server, message: &[u8], client: &str) -> Option<String> {
    match server.decide(message, client.parse().unwrap(), Some(wire::DATAGRAM_MAX)) {
        Decision::Silence => None,
        Decision::Send(reply) => Some(show(&reply)),
        Decision::Ask(..) => Some("asked of others".to_owned()),
    }
}

#[test]
fn only_pods_and_the_host_are_answered() {
    let bench = bench(&[]);
    let question = question("web.default.svc.cluster.local", TYPE::A, None);
    let check = |client: &str, expected: &str| {
        let code = code(&bench.server, &question, client).unwrap();
        assert!(code.starts_with(expected), "{client}: {code}");
    };
    check("10.244.3.4", "NoError");
    check("10.0.0.1", "NoError");
    check("127.0.0.1", "NoError");
    check("10.0.0.2", "Refused");
    check("::2", "Refused");
}

#[test]
fn what_is_no_question_is_not_answered_as_one() {
    let bench = bench(&[]);
    let good = question("web.default.svc.cluster.local", TYPE::A, Some(1_232));
    let check = |change: &dyn Fn(&mut Vec<u8>), expected: Option<&str>| {
        let mut message = good.clone();
        change(&mut message);
        assert_eq!(code(&bench.server, &message, "127.0.0.1").as_deref(), expected);
    };
    check(&|m| m.truncate(11), None);
    check(&|m| m[2] |= 0x80, None);
    check(&|m| m[2] |= 0x28, Some("NotImplemented"));
    check(&|m| m[5] = 2, Some("FormatError"));
    check(&|m| m[10..12].fill(0xff), Some("FormatError"));
    check(&|m| m.truncate(20), Some("FormatError"));
    check(&|m| m[2] &= !1, Some("NoError web.default.svc.cluster.local=10.254.0.7"));
    let zone = 252_u16.to_be_bytes();
    let at = good.len() - 11 - 4;
    check(&|m| m[at..at + 2].copy_from_slice(&zone), Some("Refused"));
    // Whoever wants no recursion gets none.
    let mut other = question("example.com", TYPE::A, None);
    assert_eq!(code(&bench.server, &other, "127.0.0.1").as_deref(), Some("asked of others"));
    other[2] &= !1;
    assert_eq!(code(&bench.server, &other, "127.0.0.1").as_deref(), Some("Refused"));
}

proptest! {
    #[test]
    fn no_message_ends_the_server(
        mut message in proptest::collection::vec(any::<u8>(), 0..80),
        shaped: bool,
    ) {
        if shaped && message.len() >= 12 {
            message[2] &= 1;
            message[4..12].copy_from_slice(&[0, 1, 0, 0, 0, 0, 0, 1]);
        }
        let bench = bench(&[]);
        let client = "127.0.0.1".parse().unwrap();
        let limit = Some(wire::DATAGRAM_MAX);
        if let Decision::Send(reply) = bench.server.decide(&message, client, limit) {
            prop_assert!(reply.len() >= 12 && reply[..2] == message[..2] && reply[2] & 0x80 != 0);
        }
    }
}
