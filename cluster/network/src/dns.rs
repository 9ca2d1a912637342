//! What the cluster's DNS answers: services, their endpoints and pods by name, and names by address.
//!
//! [`Directory`] holds what answers are made of and is told each change; [`Directory::answer`] decides
//! one question. Messages, sockets and the resolvers that other names are asked of are the business
//! of the crate `node`.
//!
//! Source: Kubernetes DNS-Based Service Discovery, version 1.1.0; RFC 1034 and 2308.

mod answer;
mod directory;
mod reverse;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnet::Ipv4Net;

pub use directory::Directory;

/// The version of the specification that is followed, as `dns-version` tells it.
pub const SPECIFICATION: &str = "1.1.0";
/// How long answers about the cluster may be kept, in seconds. The server is on the asker's own node
/// and answers from memory, so a short time costs little, and a moved endpoint is found soon.
pub const TTL_S: u32 = 5;
/// Most records of an answer: a longer list fits into no message. Which ones are given changes from
/// one answer to the next.
pub const RECORDS_MAX: usize = 1_000;
/// Most names that an `ExternalName` may lead through within the cluster.
const CHAIN_MAX: usize = 8;

/// Which names are the cluster's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone {
    /// The domain of the cluster in lower case, without a final stop: `cluster.local`.
    pub domain: String,
    /// Addresses of services and pods. Nobody else knows names of theirs.
    pub ranges: Vec<Ipv4Net>,
}

/// What is asked of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "types of records, by their names in RFC 1035")]
pub enum QueryType {
    A,
    Aaaa,
    Cname,
    Ns,
    Ptr,
    Soa,
    Srv,
    Txt,
    /// Everything.
    Any,
    /// A type of which the cluster has no records.
    Other,
}

/// A question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question<'a> {
    /// The name in lower case, without a final stop.
    pub name: &'a str,
    /// What is asked of it.
    pub kind: QueryType,
}

/// What to do about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The cluster knows.
    Known(Known),
    /// The name is none of the cluster's: somebody else is to be asked.
    Elsewhere,
}

/// What the cluster knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// How it went.
    pub code: Code,
    /// The answer.
    pub answers: Vec<Record>,
    /// Why there is none, and for how long.
    pub authority: Vec<Record>,
    /// What will be asked next.
    pub additional: Vec<Record>,
    /// A name outside of the cluster whose records complete the answer.
    pub then: Option<String>,
}

/// How it went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Code {
    /// The name exists, if perhaps without records of the type.
    #[default]
    NoError,
    /// There is no such name.
    NameError,
    /// Names lead in a circle.
    ServerFailure,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Whose it is, without a final stop.
    pub name: String,
    /// What it says.
    pub data: Data,
}

/// What a record says; names are without a final stop.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "types of records, by their names in RFC 1035")]
pub enum Data {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    Cname(String),
    Ns(String),
    Ptr(String),
    /// The zone: its first server, and the number of changes so far.
    Soa {
        server: String,
        mailbox: String,
        serial: u32,
    },
    Srv {
        weight: u16,
        port: u16,
        target: String,
    },
    Txt(String),
}

impl Data {
    /// Whether a question of this type asks for it.
    fn is_asked(&self, kind: QueryType) -> bool {
        let own = match self {
            Self::A(_) => QueryType::A,
            Self::Aaaa(_) => QueryType::Aaaa,
            Self::Cname(_) => QueryType::Cname,
            Self::Ns(_) => QueryType::Ns,
            Self::Ptr(_) => QueryType::Ptr,
            Self::Soa { .. } => QueryType::Soa,
            Self::Srv { .. } => QueryType::Srv,
            Self::Txt(_) => QueryType::Txt,
        };
        kind == own || kind == QueryType::Any
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.name)?;
        match &self.data {
            Data::A(address) => write!(f, "A {address}"),
            Data::Aaaa(address) => write!(f, "AAAA {address}"),
            Data::Cname(name) => write!(f, "CNAME {name}"),
            Data::Ns(name) => write!(f, "NS {name}"),
            Data::Ptr(name) => write!(f, "PTR {name}"),
            Data::Soa { server, mailbox, serial } => write!(f, "SOA {server} {mailbox} {serial}"),
            Data::Srv { weight, port, target } => write!(f, "SRV 0 {weight} {port} {target}"),
            Data::Txt(text) => write!(f, "TXT {text:?}"),
        }
    }
}
