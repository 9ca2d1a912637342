//! [`Double`]: what may be written down of a machine that hands values of secrets on.
//!
//! A kubelet puts them into variables, arguments and files: emptied, they would make another run.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use controllers::bootstrap_signer::SIGNATURE;
use machine::Machine;
use machine::recording::Step;
use rand::RngExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{for_each_part, veil_secrets};

/// A second machine, which is told the same as the recorded one but for the values of secrets:
/// it has stand-ins for them. What it does is written down, and must be what the recorded machine
/// does, but for the stand-ins. So whatever depends on a secret is told by a stand-in, wherever it
/// stands, and nothing else is changed.
pub(super) struct Double<M> {
    machine: M,
    stand_ins: StandIns,
    /// Whether the first line is still to come, which tells of the component and no step.
    begins: bool,
}

impl<M> Double<M>
where
    M: Machine<Input: DeserializeOwned, Effect: Serialize>,
{
    /// `machine` is in the same state as the recorded one, before its first step.
    pub(super) fn new(machine: M) -> Self {
        Self { machine, stand_ins: StandIns::default(), begins: true }
    }

    /// The line that is written down for a line of the recorded machine.
    ///
    /// # Errors
    /// The double did something else. What the recorded machine did cannot be told, then: nobody
    /// knows which of it is secret.
    pub(super) fn tell(&mut self, line: &str) -> io::Result<String> {
        if std::mem::take(&mut self.begins) {
            return Ok(line.to_owned());
        }
        let Step { now, mut input, effects } = serde_json::from_str::<Step<Value, Value>>(line)?;
        self.stand_ins.replace(&mut input);
        let mut done = Vec::new();
        self.machine.step(now, serde_json::from_str(&input.to_string())?, &mut done);
        let done = serde_json::to_value(&done)?;
        if let Some(place) = self.stand_ins.difference(&Value::Array(effects), &done) {
            return Err(io::Error::other(format!(
                "at {now}, with other values of secrets other things are done (effects{place})"
            )));
        }
        let Value::Array(effects) = done else { return Err(io::ErrorKind::InvalidData.into()) };
        Ok(serde_json::to_string(&Step { now, input, effects })?)
    }
}

/// What stands for each value: random, so that nothing can be learned from it, and the same
/// whenever the value is the same.
#[derive(Default)]
struct StandIns {
    by_value: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl StandIns {
    /// Replaces all values of secrets and all tokens in what a machine is told.
    fn replace(&mut self, value: &mut Value) {
        veil_secrets(value, &mut |_, _, value| self.replace_base64(value));
        match (value["apiVersion"].as_str(), value["kind"].as_str()) {
            (Some("authentication.k8s.io/v1"), Some("TokenRequest")) => {
                if let Some(token) = value.pointer_mut("/status/token") {
                    self.replace_text(token);
                }
            }
            (Some("v1"), Some("ConfigMap")) => {
                let entries = value.get_mut("data").and_then(Value::as_object_mut);
                let entries = entries.into_iter().flatten();
                for (_, signature) in entries.filter(|(key, _)| key.starts_with(SIGNATURE)) {
                    self.replace_text(signature);
                }
            }
            _ => {}
        }
        for_each_part(value, &mut |part| self.replace(part));
    }

    fn replace_base64(&mut self, value: &mut Value) {
        // What is no base64 reaches no container.
        let bytes = value.as_str().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        *value = STANDARD.encode(self.of(bytes)).into();
    }

    fn replace_text(&mut self, value: &mut Value) {
        let bytes = value.as_str().unwrap_or_default().as_bytes().to_vec();
        *value = String::from_utf8_lossy(self.of(bytes)).into();
    }

    /// The stand-in for a value; nothing stands for nothing. It is text if the value is, since
    /// variables must be.
    fn of(&mut self, value: Vec<u8>) -> &[u8] {
        let is_text = std::str::from_utf8(&value).is_ok();
        let is_empty = value.is_empty();
        self.by_value.entry(value).or_insert_with(|| {
            if is_empty {
                return Vec::new();
            }
            let mut stand_in = format!("secret-{:032x}", rand::rng().random::<u128>()).into_bytes();
            if !is_text {
                stand_in.push(u8::MAX);
            }
            stand_in
        })
    }

    /// Where the two differ by more than stand-ins, if they do.
    fn difference(&self, real: &Value, told: &Value) -> Option<String> {
        match (real, told) {
            (Value::String(real), Value::String(told)) => {
                (real != told && !self.means(told, real)).then(String::new)
            }
            (Value::Array(real), Value::Array(told)) if real.len() == told.len() => {
                let mut pairs = real.iter().zip(told).enumerate();
                pairs.find_map(|(i, (r, t))| Some(format!("[{i}]{}", self.difference(r, t)?)))
            }
            (Value::Object(real), Value::Object(told)) if real.len() == told.len() => {
                let mut pairs = real.iter().map(|(key, r)| (key, r, told.get(key)));
                pairs.find_map(|(key, r, t)| {
                    Some(format!(".{key}{}", self.difference(r, t.unwrap_or(&Value::Null))?))
                })
            }
            _ => (real != told).then(String::new),
        }
    }

    /// Whether the text is the other one, as it stands or in base64, with values in the place of
    /// their stand-ins.
    fn means(&self, told: &str, real: &str) -> bool {
        let text = |bytes| String::from_utf8_lossy(bytes);
        let pairs = || self.by_value.iter().filter(|(value, _)| !value.is_empty());
        let shown = pairs().fold(Cow::Borrowed(told), |told, (value, stand_in)| {
            let stand_in = text(stand_in);
            if !told.contains(&*stand_in) {
                return told;
            }
            told.replace(&*stand_in, &text(value)).into()
        });
        if shown == real {
            return true;
        }
        let (Ok(told), Ok(real)) = (STANDARD.decode(told), STANDARD.decode(real)) else {
            return false;
        };
        real == pairs().fold(told, |told, (value, stand_in)| replaced(&told, stand_in, value))
    }
}

/// The bytes with `to` in the place of each `from`.
fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some(at) = rest.windows(from.len()).position(|window| window == from) {
        out.extend_from_slice(&rest[..at]);
        out.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    out.extend_from_slice(rest);
    out
}

#[cfg(test)]
mod tests;
