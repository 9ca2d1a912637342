//! A cluster of etcd in memory: as much of it as the members themselves are concerned.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The members; every [`super::FakeMachine`] of a test shares them.
#[derive(Debug, Default)]
pub struct FakeEtcd {
    /// In the order in which they came.
    pub members: Vec<FakeMember>,
    /// Every order that changed something, for assertions.
    pub orders: Vec<String>,
    /// How many promotions are refused because the learner has not caught up.
    pub behind: u32,
    /// What is kept, keys and values in base64 as they travel.
    kept: BTreeMap<String, String>,
}

/// A member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeMember {
    /// Its number.
    pub id: u64,
    /// Empty until it has started.
    pub name: String,
    /// Where it listens to the others.
    pub peer_url: String,
    /// Whether it has no vote yet.
    pub is_learner: bool,
}

impl FakeEtcd {
    /// A cluster of members with votes: names and addresses.
    #[must_use]
    pub fn of(members: &[(&str, &str)]) -> Self {
        let mut etcd = Self::default();
        for (name, address) in members {
            let id = etcd.next_id();
            let (name, peer_url) = ((*name).to_owned(), format!("https://{address}:2380"));
            etcd.members.push(FakeMember { id, name, peer_url, is_learner: false });
        }
        etcd
    }

    fn next_id(&self) -> u64 {
        1 + self.members.iter().map(|member| member.id).max().unwrap_or(0)
            + self.orders.len() as u64
    }

    /// What the member on `address` answers, which runs and is called `name`. `None` when it is no
    /// member: it would not come up.
    pub(super) fn answer(
        &mut self,
        address: &str,
        name: &str,
        path: &str,
        body: &str,
    ) -> Option<(u16, Value)> {
        let url = format!("https://{address}:2380");
        let own = self.members.iter_mut().find(|member| member.peer_url == url)?;
        name.clone_into(&mut own.name);
        let (own_id, is_learner) = (own.id, own.is_learner);
        let leader = self.members.iter().find(|member| !member.is_learner)?.id;
        let body: Value = serde_json::from_str(body).unwrap_or(Value::Null);
        let id = body["ID"].as_str().and_then(|id| id.parse::<u64>().ok()).unwrap_or(0);
        let answer = match path.rsplit('/').next()? {
            "status" => json!({
                "header": { "member_id": own_id.to_string() },
                "leader": leader.to_string(),
                "isLearner": is_learner,
            }),
            "list" => {
                let member = |member: &FakeMember| {
                    json!({
                        "ID": member.id.to_string(),
                        "name": member.name,
                        "peerURLs": [member.peer_url],
                        "isLearner": member.is_learner,
                    })
                };
                json!({ "members": self.members.iter().map(member).collect::<Vec<_>>() })
            }
            "add" => {
                let (id, url) = (self.next_id(), body["peerURLs"][0].as_str()?.to_owned());
                if self.members.iter().any(|member| member.is_learner) {
                    return Some((
                        400,
                        json!({ "message": "etcdserver: too many learner members" }),
                    ));
                }
                self.orders.push(format!("add {url}"));
                let (name, peer_url) = (String::new(), url.clone());
                self.members.push(FakeMember { id, name, peer_url, is_learner: true });
                json!({ "member": { "ID": id.to_string(), "peerURLs": [url] } })
            }
            "range" => {
                let value = self.kept.get(body["key"].as_str()?);
                let kvs: Vec<_> = value.iter().map(|value| json!({ "value": value })).collect();
                json!({ "kvs": kvs })
            }
            "put" => {
                let (key, value) = (body["key"].as_str()?, body["value"].as_str()?);
                self.kept.insert(key.to_owned(), value.to_owned());
                self.orders.push(format!("put {key}"));
                json!({})
            }
            "promote" if self.behind > 0 => {
                self.behind -= 1;
                let words =
                    "etcdserver: can only promote a learner member which is in sync with leader";
                return Some((400, json!({ "message": words })));
            }
            "promote" => {
                let learner = self.members.iter_mut().find(|member| member.id == id)?;
                learner.is_learner = false;
                self.orders.push(format!("promote {}", learner.name));
                json!({})
            }
            "remove" => {
                let gone = self.members.iter().position(|member| member.id == id)?;
                let gone = self.members.remove(gone);
                self.orders.push(format!("remove {}", gone.name));
                json!({})
            }
            _ => return Some((404, json!({}))),
        };
        Some((200, answer))
    }
}
