use std::net::Ipv4Addr;

use proptest::prelude::*;

use super::*;
use crate::ServiceName;
use crate::service_rules::diff;
use crate::service_rules::tests::{assorted, rule_sets};

fn config() -> ProxyConfig {
    ProxyConfig { cluster_cidr: Some("10.244.0.0/16".parse().unwrap()), masquerade_all: false }
}

#[test]
fn the_whole_table() {
    insta::assert_snapshot!(full(&config(), &assorted()));
}

#[test]
fn an_update_touches_only_what_changed() {
    let before = assorted();
    let mut after = before.clone();
    let web = after.services.get_mut(&ServiceName::new("ns", "web")).unwrap();
    let port = web.ports.get_mut("http").unwrap();
    port.cluster.retain(|endpoint| endpoint.address != Ipv4Addr::new(10, 244, 2, 2));
    after.services.remove(&ServiceName::new("ns", "edge"));
    let update = update(&config(), &diff(&before, &after));
    insta::assert_snapshot!(format!("{}---\n{}", update.change, update.cleanup), @r"
    delete element ip kube-proxy cluster-ips { 10.96.0.4 }
    delete element ip kube-proxy service-ips { 10.96.0.4 . tcp . 80 }
    delete element ip kube-proxy service-nodeports { tcp . 30081 }
    delete element ip kube-proxy no-endpoint-nodeports { tcp . 30081 }
    add chain ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http
    flush chain ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http
    add rule ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http ip daddr 10.96.0.10 tcp dport 80 ip saddr != 10.244.0.0/16 jump mark-for-masquerade
    add rule ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http ip saddr @affinity-L4LAMAAZ-ns/web/tcp/http__10.244.1.2/8080 goto endpoint-L4LAMAAZ-ns/web/tcp/http__10.244.1.2/8080
    add rule ip kube-proxy service-Y6QD5CCT-ns/web/tcp/http goto endpoint-L4LAMAAZ-ns/web/tcp/http__10.244.1.2/8080
    ---
    flush chain ip kube-proxy endpoint-GR2DLVIX-ns/edge/tcp/http__10.244.2.2/8080
    flush chain ip kube-proxy endpoint-OCPSZJTI-ns/web/tcp/http__10.244.2.2/8080
    flush chain ip kube-proxy external-MIVS7LSA-ns/edge/tcp/http
    flush chain ip kube-proxy service-MIVS7LSA-ns/edge/tcp/http
    delete chain ip kube-proxy endpoint-GR2DLVIX-ns/edge/tcp/http__10.244.2.2/8080
    delete chain ip kube-proxy endpoint-OCPSZJTI-ns/web/tcp/http__10.244.2.2/8080
    delete chain ip kube-proxy external-MIVS7LSA-ns/edge/tcp/http
    delete chain ip kube-proxy service-MIVS7LSA-ns/edge/tcp/http
    delete set ip kube-proxy affinity-OCPSZJTI-ns/web/tcp/http__10.244.2.2/8080
    ");
}

#[test]
fn a_refused_service_that_gets_an_endpoint_moves_between_maps() {
    let after = assorted();
    let mut before = after.clone();
    let dns = before.services.get_mut(&ServiceName::new("ns", "dns")).unwrap();
    for port in dns.ports.values_mut() {
        port.cluster.clear();
        port.any_endpoint = false;
    }
    let change = update(&config(), &diff(&before, &after)).change;
    assert!(change.contains(
        "delete element ip kube-proxy no-endpoint-services \
         { 10.96.0.2 . tcp . 53 , 10.96.0.2 . udp . 53 }"
    ));
    assert!(change.contains("add element ip kube-proxy service-ips { 10.96.0.2 . tcp . 53 : goto"));
    assert!(!change.contains("cluster-ips"), "the address stays known");
}

/// A kernel that understands what is written here: chains, sets and elements by name.
#[derive(Debug, Default, PartialEq)]
struct Model {
    chains: BTreeMap<String, Vec<String>>,
    sets: BTreeSet<String>,
    elements: BTreeMap<(String, String), String>,
}

impl Model {
    fn run(&mut self, text: &str) {
        for line in text.lines() {
            let line = line.replace("ip kube-proxy", "T");
            let words: Vec<&str> = line.splitn(5, ' ').collect();
            match words.as_slice() {
                ["add", "table", ..] => {}
                ["delete", "table", ..] => *self = Self::default(),
                ["add", "map" | "set", "T", name, ..] => {
                    self.sets.insert((*name).to_owned());
                }
                ["delete", "set", "T", name] => assert!(self.sets.remove(*name), "{line}"),
                ["add", "chain", "T", name, ..] => {
                    self.chains.entry((*name).to_owned()).or_default();
                }
                ["flush", "chain", "T", name] => self.chains.get_mut(*name).unwrap().clear(),
                ["delete", "chain", "T", name] => {
                    let rules = self.chains.remove(*name).unwrap();
                    assert!(rules.is_empty());
                }
                ["add", "rule", "T", name, rule] => {
                    self.chains.get_mut(*name).expect(&line).push((*rule).to_owned());
                }
                [verb, "element", "T", name, list] => {
                    assert!(self.sets.contains(*name));
                    for element in list.trim_matches(['{', '}', ' ']).split(" , ") {
                        let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
                        let key = ((*name).to_owned(), key.to_owned());
                        if *verb == "add" {
                            let old = self.elements.insert(key, value.to_owned());
                            assert_eq!(old, None, "{line}");
                        } else {
                            assert!(self.elements.remove(&key).is_some(), "{line}");
                        }
                    }
                }
                _ => panic!("{line}"),
            }
        }
        self.check_references();
    }

    /// Every chain and set that is named must exist, as the kernel demands.
    fn check_references(&self) {
        let texts = self.chains.values().flatten().chain(self.elements.values());
        for text in texts {
            let words: Vec<&str> = text.split_whitespace().collect();
            for pair in words.windows(2) {
                if matches!(pair[0], "goto" | "jump") {
                    assert!(self.chains.contains_key(pair[1]), "{text}");
                }
            }
            for set in words.iter().filter_map(|word| word.strip_prefix('@')) {
                assert!(self.sets.contains(set), "{text}");
            }
        }
    }
}

proptest! {
    #[test]
    fn an_update_gives_the_same_table_as_a_full_one(a in rule_sets(), b in rule_sets()) {
        let mut model = Model::default();
        model.run(&full(&config(), &a));
        let update = update(&config(), &diff(&a, &b));
        model.run(&update.change);
        model.run(&update.cleanup);
        let mut fresh = Model::default();
        fresh.run(&full(&config(), &b));
        prop_assert_eq!(model, fresh);
    }
}
