//! [`EffectLog`]: one number for everything that all components did, in order.

use api::{Kind, Object, Request};
use machine::ApiEffect;
use serde::Serialize;

/// A running hash over effects.
#[derive(Clone)]
pub(super) struct EffectLog {
    hash: u64,
    contents: bool,
}

impl EffectLog {
    pub(super) const fn new(contents: bool) -> Self {
        Self { hash: 0x9e37_79b9_7f4a_7c15, contents }
    }

    /// Mixes in a number. Every bit of it changes about half the bits of the hash.
    pub(super) const fn number(&mut self, value: u64) {
        let mixed = (self.hash ^ value).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        self.hash = (mixed ^ (mixed >> 29)).wrapping_mul(0x94d0_49bb_1331_11eb) ^ (mixed >> 32);
    }

    /// Mixes in a text.
    pub(super) fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.number(u64::from_le_bytes(word));
        }
    }

    /// Mixes in what a component does: its names, or all of it.
    pub(super) fn effect(&mut self, time: u64, process: u32, effect: &ApiEffect) {
        self.number(time);
        self.number(u64::from(process));
        if self.contents {
            self.contents(effect);
            return;
        }
        match effect {
            ApiEffect::Call { request, .. } => {
                let (verb, kind, namespace, name) = subject(request);
                self.number((verb << 8) | kind as u64);
                self.text(namespace);
                self.text(name);
            }
            ApiEffect::Record(report) => {
                let regarding = &report.record.regarding;
                self.text(&report.record.reason);
                self.text(&regarding.namespace);
                self.text(&regarding.name);
            }
        }
    }

    /// Mixes in all of a value, if contents are asked for.
    pub(super) fn contents<T: Serialize>(&mut self, value: &T) {
        if self.contents {
            let text = serde_json::to_string(value).unwrap_or_default();
            self.text(&text);
        }
    }

    pub(super) fn to_hex(&self) -> String {
        format!("{:016x}", self.hash)
    }
}

/// What a request does, to what.
fn subject(request: &Request) -> (u64, Kind, &str, &str) {
    fn of_object(verb: u64, object: &Object) -> (u64, Kind, &str, &str) {
        let meta = object.meta();
        let name = meta.name.as_deref().or(meta.generate_name.as_deref());
        let namespace = meta.namespace.as_deref().unwrap_or_default();
        (verb, object.kind(), namespace, name.unwrap_or_default())
    }
    match request {
        Request::Create(object) => of_object(1, object),
        Request::Update { object, .. } => of_object(2, object),
        Request::Patch { key, .. } => (3, key.kind, &key.namespace, &key.name),
        Request::Delete { key, .. } => (4, key.kind, &key.namespace, &key.name),
        Request::Bind { pod, node, .. } => (5, pod.kind, node, &pod.name),
        Request::Get(key) => (6, key.kind, &key.namespace, &key.name),
        Request::ReadRevision(kind) => (7, *kind, "", ""),
        Request::List { kind, namespace, selector } => (9, *kind, namespace, selector),
        Request::Sign(key) => (8, key.kind, &key.namespace, &key.name),
        Request::Extend { body, .. } => (10, Kind::Pod, "", body),
    }
}
