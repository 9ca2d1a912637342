//! The answer to a question.

use std::net::IpAddr;

use super::directory::{Directory, Entry, Form, Port, Space, dashed};
use super::{
    Answer, CHAIN_MAX, Code, Data, Known, QueryType, Question, RECORDS_MAX, Record, SPECIFICATION,
};

/// An address behind a service's name.
struct Member<'a> {
    /// The name that it has of its own below that of the service.
    label: String,
    address: IpAddr,
    ports: &'a [Port],
}

/// What is at a name.
enum Node {
    Nothing,
    /// The name exists and has these records, and what goes with them.
    Records(Vec<Record>, Vec<Record>),
    /// The name stands for another one.
    Alias(String),
}

impl Node {
    /// It has none, but others are below it.
    const EMPTY: Self = Self::Records(Vec::new(), Vec::new());

    /// Empty where there is something, nothing where there is not.
    fn if_there(there: bool) -> Self {
        if there { Self::EMPTY } else { Self::Nothing }
    }
}

impl Directory {
    /// Decides about a question. `turn` says which of several addresses comes first; whoever counts it
    /// up spreads those who take the first one.
    #[must_use]
    pub fn answer(&self, question: &Question<'_>, turn: usize) -> Answer {
        if question.name.ends_with(".in-addr.arpa") {
            return self.reverse(question);
        }
        let mut name = question.name.to_owned();
        let mut chain = Vec::new();
        loop {
            let Some(labels) = self.labels(&name) else {
                if chain.is_empty() {
                    return Answer::Elsewhere;
                }
                let then = Some(name);
                return Answer::Known(Known { answers: chain, then, ..Known::default() });
            };
            match self.node(&name, &labels, question.kind) {
                Node::Nothing => {
                    let mut known = self.no_such_name(&self.zone.domain);
                    known.answers = chain;
                    return Answer::Known(known);
                }
                Node::Records(records, additional) => {
                    let mut known = self.found(question.kind, &self.zone.domain, records);
                    spread(&mut known.answers, turn);
                    if !known.answers.is_empty() {
                        known.additional = additional;
                        known.additional.truncate(RECORDS_MAX);
                    }
                    chain.append(&mut known.answers);
                    known.answers = chain;
                    return Answer::Known(known);
                }
                Node::Alias(target) => {
                    chain.push(Record { name, data: Data::Cname(target.clone()) });
                    if question.kind == QueryType::Cname {
                        return Answer::Known(Known { answers: chain, ..Known::default() });
                    }
                    if chain.len() > CHAIN_MAX {
                        let code = Code::ServerFailure;
                        return Answer::Known(Known { code, ..Known::default() });
                    }
                    name = target;
                }
            }
        }
    }

    /// The labels of a name below the domain, the last one first; `None` for names elsewhere.
    fn labels<'a>(&self, name: &'a str) -> Option<Vec<&'a str>> {
        let rest = name.strip_suffix(&*self.zone.domain)?;
        if rest.is_empty() {
            return Some(Vec::new());
        }
        Some(rest.strip_suffix('.')?.rsplit('.').collect())
    }

    fn node(&self, name: &str, labels: &[&str], kind: QueryType) -> Node {
        let space = |name: &str| self.spaces.get(name);
        match *labels {
            [] => {
                let server = Data::Ns(self.server());
                let records = [server, self.soa()];
                Node::Records(records.map(|data| record(name, data)).into(), Vec::new())
            }
            ["dns-version"] => {
                let version = Data::Txt(SPECIFICATION.to_owned());
                Node::Records(vec![record(name, version)], Vec::new())
            }
            ["svc" | "pod"] => Node::EMPTY,
            // Services come before their namespace only while lists do.
            ["svc", namespace] => Node::if_there(space(namespace).is_some()),
            ["pod", namespace] => Node::if_there(space(namespace).is_some_and(|s| s.exists)),
            ["pod", namespace, pod] if space(namespace).is_some_and(|s| s.exists) => {
                pod_address(pod)
                    .map_or(Node::Nothing, |ip| Node::Records(vec![address(name, ip)], Vec::new()))
            }
            ["svc", namespace, service, ref below @ ..] => {
                let Some(space) = space(namespace) else { return Node::Nothing };
                let Some(entry) = space.services.get(service) else { return Node::Nothing };
                let at = Place { space, service, entry };
                match *below {
                    [] => self.service(name, namespace, &at, kind),
                    [protocol] if protocol.starts_with('_') => {
                        let has = |port: &Port| protocol[1..] == port.protocol;
                        Node::if_there(entry.ports.iter().any(has))
                    }
                    [label] => endpoint(name, &at, label),
                    [protocol, port] => {
                        let (Some(protocol), Some(port)) =
                            (protocol.strip_prefix('_'), port.strip_prefix('_'))
                        else {
                            return Node::Nothing;
                        };
                        let is_meant = |p: &Port| p.protocol == protocol && p.name == port;
                        if !entry.ports.iter().any(is_meant) {
                            return Node::Nothing;
                        }
                        self.ports(name, namespace, &at, is_meant)
                    }
                    _ => Node::Nothing,
                }
            }
            _ => Node::Nothing,
        }
    }

    /// The name of a service itself.
    fn service(&self, name: &str, namespace: &str, at: &Place<'_>, kind: QueryType) -> Node {
        if kind == QueryType::Srv && !matches!(at.entry.form, Form::External(_)) {
            return self.ports(name, namespace, at, |_| true);
        }
        match &at.entry.form {
            Form::External(target) => Node::Alias(target.clone()),
            Form::Cluster(addresses) => {
                let records = addresses.iter().map(|ip| address(name, *ip)).collect();
                Node::Records(records, Vec::new())
            }
            Form::Headless { .. } => {
                let mut addresses: Vec<IpAddr> = at.members().map(|m| m.address).collect();
                // An endpoint with several ports may be in several slices.
                addresses.sort_unstable();
                addresses.dedup();
                let records = addresses.into_iter().map(|ip| address(name, ip)).collect();
                Node::Records(records, Vec::new())
            }
        }
    }

    /// Where the ports that are meant are found.
    fn ports(
        &self,
        name: &str,
        namespace: &str,
        at: &Place<'_>,
        is_meant: impl Fn(&Port) -> bool,
    ) -> Node {
        let service = self.name_of_service(namespace, at.service);
        let mut records: Vec<(u16, String)> = Vec::new();
        let mut additional = Vec::new();
        match &at.entry.form {
            Form::External(_) => return Node::Nothing,
            Form::Cluster(addresses) => {
                let ports = at.entry.ports.iter().filter(|port| is_meant(port));
                records.extend(ports.map(|port| (port.number, service.clone())));
                additional.extend(addresses.iter().map(|ip| address(&service, *ip)));
            }
            Form::Headless { .. } => {
                for member in at.members() {
                    let target = format!("{}.{service}", member.label);
                    let ports = member.ports.iter().filter(|port| is_meant(port));
                    let before = records.len();
                    records.extend(ports.map(|port| (port.number, target.clone())));
                    if records.len() > before {
                        additional.push(address(&target, member.address));
                    }
                }
            }
        }
        // None of them goes before another.
        let weight = u16::try_from(100 / records.len().max(1)).unwrap_or(0).max(1);
        let record = |(port, target)| record(name, Data::Srv { weight, port, target });
        Node::Records(records.into_iter().map(record).collect(), additional)
    }

    pub(super) fn name_of_service(&self, namespace: &str, service: &str) -> String {
        format!("{service}.{namespace}.svc.{}", self.zone.domain)
    }

    /// The name by which this server is known, whoever answers.
    fn server(&self) -> String {
        self.name_of_service("kube-system", "kube-dns")
    }

    fn soa(&self) -> Data {
        let mailbox = format!("hostmaster.{}", self.zone.domain);
        Data::Soa { server: self.server(), mailbox, serial: self.serial }
    }

    /// The records that are asked for; without any, who says so.
    pub(super) fn found(&self, kind: QueryType, apex: &str, records: Vec<Record>) -> Known {
        let answers: Vec<Record> =
            records.into_iter().filter(|record| record.data.is_asked(kind)).collect();
        let none = answers.is_empty().then(|| record(apex, self.soa()));
        Known { answers, authority: none.into_iter().collect(), ..Known::default() }
    }

    pub(super) fn no_such_name(&self, apex: &str) -> Known {
        let authority = vec![record(apex, self.soa())];
        Known { code: Code::NameError, authority, ..Known::default() }
    }
}

/// A service where it is.
struct Place<'a> {
    space: &'a Space,
    service: &'a str,
    entry: &'a Entry,
}

impl<'a> Place<'a> {
    /// The endpoints that the names of this service lead to.
    fn members(&self) -> impl Iterator<Item = Member<'a>> {
        let all = self.entry.form == Form::Headless { with_unready: true };
        let slices = self.space.slices_of(self.service);
        slices.flat_map(move |slice| {
            let endpoints = slice.endpoints.iter().filter(move |e| all || e.ready);
            endpoints.flat_map(move |endpoint| {
                endpoint.addresses.iter().map(move |ip| Member {
                    label: endpoint.label(*ip),
                    address: *ip,
                    ports: &slice.ports,
                })
            })
        })
    }
}

/// The endpoints of a service with that name of their own.
fn endpoint(name: &str, at: &Place<'_>, label: &str) -> Node {
    let mut addresses: Vec<IpAddr> =
        at.members().filter(|m| m.label == label).map(|m| m.address).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        return Node::Nothing;
    }
    Node::Records(addresses.into_iter().map(|ip| address(name, ip)).collect(), Vec::new())
}

/// The address that the name of a pod spells out.
fn pod_address(label: &str) -> Option<IpAddr> {
    let address: IpAddr = label.replace('-', ".").parse().ok()?;
    // No second name for the same pod.
    (dashed(address) == label).then_some(address)
}

fn record(name: &str, data: Data) -> Record {
    Record { name: name.to_owned(), data }
}

fn address(name: &str, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(address) => Data::A(address),
        IpAddr::V6(address) => Data::Aaaa(address),
    };
    record(name, data)
}

/// Turns the records so that another one is the first each time, and leaves out what is too many.
fn spread(records: &mut Vec<Record>, turn: usize) {
    if let Some(first) = turn.checked_rem(records.len()) {
        records.rotate_left(first);
    }
    records.truncate(RECORDS_MAX);
}
