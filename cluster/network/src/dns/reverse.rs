//! Names by address.

use std::net::{IpAddr, Ipv4Addr};

use super::directory::{Directory, Form};
use super::{Answer, Data, Question, Record};

const SUFFIX: &str = "in-addr.arpa";

/// The address that a name of the reverse tree stands for.
fn address(name: &str) -> Option<Ipv4Addr> {
    let mut bytes = [0; 4];
    let mut labels = name.strip_suffix(SUFFIX)?.strip_suffix('.')?.split('.');
    for byte in bytes.iter_mut().rev() {
        *byte = labels.next()?.parse().ok()?;
    }
    labels.next().is_none().then(|| Ipv4Addr::from(bytes))
}

impl Directory {
    /// The service that has the address; else the endpoints that have a name of their own there.
    pub(super) fn reverse(&self, question: &Question<'_>) -> Answer {
        let Some(address) = address(question.name) else { return Answer::Elsewhere };
        let names = self.names_of(IpAddr::V4(address));
        if names.is_empty() {
            let ours = self.zone.ranges.iter().any(|range| range.contains(&address));
            return if ours { Answer::Known(self.no_such_name(SUFFIX)) } else { Answer::Elsewhere };
        }
        let record = |name| Record { name: question.name.to_owned(), data: Data::Ptr(name) };
        let records = names.into_iter().map(record).collect();
        Answer::Known(self.found(question.kind, SUFFIX, records))
    }

    fn names_of(&self, address: IpAddr) -> Vec<String> {
        if let Some((namespace, name)) = self.services_by_address.get(&address) {
            return vec![self.name_of_service(namespace, name)];
        }
        let mut names = Vec::new();
        for (namespace, slice) in self.slices_by_address.get(&address).into_iter().flatten() {
            let Some(space) = self.spaces.get(namespace) else { continue };
            let Some(slice) = space.slice(slice) else { continue };
            let Some(service) = space.services.get(&slice.service) else { continue };
            let all = service.form == Form::Headless { with_unready: true };
            for endpoint in &slice.endpoints {
                let is_told = (all || endpoint.ready) && endpoint.addresses.contains(&address);
                // Without a name of its own an endpoint is one of many, and whoever asks for the
                // name of an address wants one that somebody gave.
                if let Some(hostname) = endpoint.hostname.as_ref().filter(|_| is_told) {
                    let service = self.name_of_service(namespace, &slice.service);
                    names.push(format!("{hostname}.{service}"));
                }
            }
        }
        names.sort_unstable();
        names.dedup();
        names
    }
}
