//! Messages: what a question says, and answers that fit into what the asker takes.

use std::borrow::Cow;
use std::fmt::Write as _;

use network::dns::{Code, Data, Known, QueryType, Record, TTL_S};
use simple_dns::rdata::{A, AAAA, CNAME, NS, OPT, PTR, RData, SOA, SRV, TXT};
use simple_dns::{
    CLASS, Name, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};

/// Longest datagram that is sent or asked for: it crosses every network in one piece.
/// Source: DNS flag day 2020.
pub(super) const DATAGRAM_MAX: usize = 1_232;
/// What everyone takes. Source: RFC 1035, section 2.3.4.
const DATAGRAM_MIN: usize = 512;
/// What a connection carries: its lengths have two bytes.
const STREAM_MAX: usize = u16::MAX as usize;
const HEADER: usize = 12;
/// Source: RFC 1035, section 2.3.4.
const LABEL_MAX: usize = 63;
/// Seconds that a secondary server would wait; there are none.
const REFRESH_S: i32 = 7_200;
const RETRY_S: i32 = 1_800;
const EXPIRE_S: i32 = 86_400;

/// What a message is.
pub(super) enum Received {
    /// None that deserves an answer.
    Nothing,
    /// Not understood, and the answer that says so.
    Malformed(Vec<u8>),
    Request(Request),
}

/// A question, and how it is answered.
pub(super) struct Request {
    id: u16,
    pub(super) question: Question<'static>,
    /// The name in lower case, without a final stop.
    pub(super) text: String,
    pub(super) kind: QueryType,
    pub(super) recursion_desired: bool,
    /// Whether it speaks EDNS, and so must the answer.
    extended: bool,
    limit: usize,
}

/// An answer before it is cut to size.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) code: RCODE,
    pub(super) authoritative: bool,
    pub(super) answers: Vec<ResourceRecord<'static>>,
    pub(super) authority: Vec<ResourceRecord<'static>>,
    pub(super) additional: Vec<ResourceRecord<'static>>,
}

impl Reply {
    fn of(code: RCODE) -> Self {
        let (answers, authority, additional) = (Vec::new(), Vec::new(), Vec::new());
        Self { code, authoritative: false, answers, authority, additional }
    }

    /// Puts what is known here before what others said.
    pub(super) fn prepend(&mut self, known: &Known) {
        let mut answers: Vec<_> = known.answers.iter().filter_map(record).collect();
        answers.append(&mut self.answers);
        self.answers = answers;
    }
}

/// A message that the library reads, whatever type its question is of.
///
/// It refuses a question of a type that it has no name for. Such a one is read as if it asked for
/// `NULL`, and gets its own type back afterwards. Records of such types it takes as bytes.
/// Source: RFC 3597, section 3.
pub(super) struct Message<'a> {
    bytes: Cow<'a, [u8]>,
    /// The type of the question, where the library has no name for it.
    nameless: Option<TYPE>,
}

impl<'a> Message<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        let plain = Self { bytes: bytes.into(), nameless: None };
        let Some(at) = type_at(bytes) else { return plain };
        let Some(code) = bytes.get(at..).and_then(<[u8]>::first_chunk) else { return plain };
        let asked @ TYPE::Unknown(_) = TYPE::from(u16::from_be_bytes(*code)) else { return plain };
        if QTYPE::try_from(u16::from(asked)).is_ok() {
            return plain;
        }
        let mut bytes = bytes.to_owned();
        bytes[at..at + 2].copy_from_slice(&u16::from(TYPE::NULL).to_be_bytes());
        Self { bytes: bytes.into(), nameless: Some(asked) }
    }

    /// What it says; `None` when it is malformed.
    pub(super) fn packet(&self) -> Option<Packet<'_>> {
        let mut packet = Packet::parse(&self.bytes).ok()?;
        if let (Some(question), Some(asked)) = (packet.questions.first_mut(), self.nameless) {
            question.qtype = QTYPE::TYPE(asked);
        }
        Some(packet)
    }
}

/// Where the type of the first question is: behind its name, which is spelled out, as there is nothing
/// before it that it could point to.
fn type_at(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => return Some(at + 1),
            length @ 1..=LABEL_MAX => at += 1 + length,
            _ => return None,
        }
    }
}

/// Reads a message. `limit` is the longest datagram of this side; there is none on a connection.
pub(super) fn receive(message: &[u8], limit: Option<usize>) -> Received {
    let Some(header) = message.first_chunk::<HEADER>() else { return Received::Nothing };
    let id = u16::from_be_bytes([header[0], header[1]]);
    // An answer to an answer is the beginning of a circle.
    if header[2] & 0x80 != 0 {
        return Received::Nothing;
    }
    let malformed = |code| Received::Malformed(bare(id, header[2], code));
    if header[2] & 0x78 != 0 {
        return malformed(RCODE::NotImplemented);
    }
    let counts = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    // Seen before it is parsed: whoever announces thousands of records gets no memory for them.
    if counts(4) != 1 || counts(6) != 0 || counts(8) != 0 || counts(10) > 2 {
        return malformed(RCODE::FormatError);
    }
    let message = Message::of(message);
    let Some(packet) = message.packet() else { return malformed(RCODE::FormatError) };
    let Some(question) = packet.questions.first().cloned() else {
        return malformed(RCODE::FormatError);
    };
    if packet.opt().is_some_and(|opt| opt.version > 0) {
        return malformed(RCODE::BADVERS);
    }
    if !matches!(question.qclass, QCLASS::CLASS(CLASS::IN) | QCLASS::ANY) {
        return malformed(RCODE::NotImplemented);
    }
    let Some(kind) = kind(question.qtype) else { return malformed(RCODE::Refused) };
    let limit = match limit {
        None => STREAM_MAX,
        Some(own) => {
            let asked = packet.opt().map_or(0, |opt| usize::from(opt.udp_packet_size));
            asked.clamp(DATAGRAM_MIN, own)
        }
    };
    Received::Request(Request {
        id,
        text: text(&question.qname),
        kind,
        recursion_desired: packet.has_flags(PacketFlag::RECURSION_DESIRED),
        extended: packet.opt().is_some(),
        question: question.into_owned(),
        limit,
    })
}

/// An answer to what was not understood: it has no question to repeat.
fn bare(id: u16, flags: u8, code: RCODE) -> Vec<u8> {
    let mut packet = Packet::new_reply(id);
    if flags & 1 != 0 {
        packet.set_flags(PacketFlag::RECURSION_DESIRED);
    }
    if code == RCODE::BADVERS {
        *packet.opt_mut() = Some(extension());
    }
    *packet.rcode_mut() = code;
    packet.build_bytes_vec().unwrap_or_default()
}

pub(super) fn extension() -> OPT<'static> {
    let udp_packet_size = u16::try_from(DATAGRAM_MAX).unwrap_or(u16::MAX);
    OPT { opt_codes: Vec::new(), udp_packet_size, version: 0 }
}

/// `None` for copies of a whole zone, which nobody gets.
fn kind(asked: QTYPE) -> Option<QueryType> {
    Some(match asked {
        QTYPE::TYPE(TYPE::A) => QueryType::A,
        QTYPE::TYPE(TYPE::AAAA) => QueryType::Aaaa,
        QTYPE::TYPE(TYPE::CNAME) => QueryType::Cname,
        QTYPE::TYPE(TYPE::NS) => QueryType::Ns,
        QTYPE::TYPE(TYPE::PTR) => QueryType::Ptr,
        QTYPE::TYPE(TYPE::SOA) => QueryType::Soa,
        QTYPE::TYPE(TYPE::SRV) => QueryType::Srv,
        QTYPE::TYPE(TYPE::TXT) => QueryType::Txt,
        QTYPE::ANY => QueryType::Any,
        QTYPE::AXFR | QTYPE::IXFR => return None,
        _ => QueryType::Other,
    })
}

/// A name as text: in lower case, and with each byte that could be taken for another one spelled out.
pub(super) fn text(name: &Name<'_>) -> String {
    let mut text = String::new();
    for label in name.as_bytes() {
        if !text.is_empty() {
            text.push('.');
        }
        for byte in label {
            if byte.is_ascii_graphic() && !matches!(byte, b'.' | b'\\') {
                text.push(char::from(byte.to_ascii_lowercase()));
            } else {
                let _ = write!(text, "\\{byte:03}");
            }
        }
    }
    text
}

impl Request {
    /// Whether an address is asked for, so that other names on the way to it are worth following.
    pub(super) fn wants_address(&self) -> bool {
        matches!(self.kind, QueryType::A | QueryType::Aaaa)
    }

    /// The answer that says nothing but this.
    pub(super) fn code(&self, code: RCODE) -> Vec<u8> {
        self.finish(Reply::of(code))
    }

    /// The answer that says what the cluster knows.
    pub(super) fn known(&self, known: &Known) -> Vec<u8> {
        let records = |records: &[Record]| records.iter().filter_map(record).collect();
        self.finish(Reply {
            code: match known.code {
                Code::NoError => RCODE::NoError,
                Code::NameError => RCODE::NameError,
                Code::ServerFailure => RCODE::ServerFailure,
            },
            authoritative: true,
            answers: records(&known.answers),
            authority: records(&known.authority),
            additional: records(&known.additional),
        })
    }

    /// The message, no longer than the asker takes: first without what was not asked for, then with
    /// the note that a connection carries more.
    pub(super) fn finish(&self, reply: Reply) -> Vec<u8> {
        let mut packet = Packet::new_reply(self.id);
        packet.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if self.recursion_desired {
            packet.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        if reply.authoritative {
            packet.set_flags(PacketFlag::AUTHORITATIVE_ANSWER);
        }
        if self.extended {
            *packet.opt_mut() = Some(extension());
        }
        *packet.rcode_mut() = reply.code;
        packet.questions.push(self.question.clone());
        packet.answers = reply.answers;
        packet.name_servers = reply.authority;
        packet.additional_records = reply.additional;
        let mut message = packet.build_bytes_vec_compressed();
        if is_longer(&message, self.limit) {
            packet.additional_records.clear();
            message = packet.build_bytes_vec_compressed();
        }
        // Sixteen halves leave none of the records that a message can count.
        for _ in 0..=u16::BITS {
            if !is_longer(&message, self.limit) {
                break;
            }
            packet.set_flags(PacketFlag::TRUNCATION);
            packet.name_servers.clear();
            // Over a connection a part is of use; over UDP it would be taken for the whole.
            let rest = if self.limit == STREAM_MAX { packet.answers.len() / 2 } else { 0 };
            packet.answers.truncate(rest);
            message = packet.build_bytes_vec_compressed();
        }
        message.unwrap_or_else(|_| bare(self.id, 0, RCODE::ServerFailure))
    }
}

fn is_longer(message: &simple_dns::Result<Vec<u8>>, limit: usize) -> bool {
    message.as_ref().is_ok_and(|message| message.len() > limit)
}

/// A record of the cluster as it is sent; `None` when a name in it is none, such as an external name
/// that is too long.
fn record(record: &Record) -> Option<ResourceRecord<'static>> {
    let name = |text: &str| Name::new(text).map(Name::into_owned).ok();
    let data = match &record.data {
        Data::A(address) => RData::A(A { address: (*address).into() }),
        Data::Aaaa(address) => RData::AAAA(AAAA { address: (*address).into() }),
        Data::Cname(target) => RData::CNAME(CNAME(name(target)?)),
        Data::Ns(target) => RData::NS(NS(name(target)?)),
        Data::Ptr(target) => RData::PTR(PTR(name(target)?)),
        Data::Soa { server, mailbox, serial } => RData::SOA(SOA {
            mname: name(server)?,
            rname: name(mailbox)?,
            serial: *serial,
            refresh: REFRESH_S,
            retry: RETRY_S,
            expire: EXPIRE_S,
            minimum: TTL_S,
        }),
        Data::Srv { weight, port, target } => {
            RData::SRV(SRV { priority: 0, weight: *weight, port: *port, target: name(target)? })
        }
        Data::Txt(text) => RData::TXT(TXT::new().with_string(text).ok()?.into_owned()),
    };
    Some(ResourceRecord::new(name(&record.name)?, CLASS::IN, TTL_S, data))
}
