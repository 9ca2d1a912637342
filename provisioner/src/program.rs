//! Programs on hosts: each generation in a file named by its content, and links that say which one
//! runs.
//!
//! A unit is moved to another generation by its own link, in its own turn; the generation before
//! stays on the host, so that going back copies nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// Where a host keeps programs. SELinux labels what is below a `bin` as something to run.
pub const DIRECTORY: &str = "/usr/local/lib/kprov/bin";

/// Digits of the digest in a file's name.
const DIGITS: usize = 16;

/// One build of a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Digest of its bytes.
    pub sha256: Digest,
    /// What it calls itself, such as `v1.33.0+kprov.0.1.0`, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

impl Program {
    /// Where a host keeps this build of the program `name`.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        let digits: String = self.sha256.to_string().chars().take(DIGITS).collect();
        format!("{DIRECTORY}/{name}-{digits}")
    }

    /// The version and enough of the digest to tell builds apart.
    #[must_use]
    pub fn label(&self) -> String {
        match &self.version {
            Some(version) => format!("{version} ({})", self.sha256.short()),
            None => self.sha256.short(),
        }
    }
}

/// Whether `path` is where programs are kept: nothing runs from there before a link leads to it.
#[must_use]
pub fn is_kept_at(path: &str) -> bool {
    path.strip_prefix(DIRECTORY).is_some_and(|rest| rest.starts_with('/'))
}

/// The generations of one program on a host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generations {
    /// The one that every unit of the host has run since a run was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current: Option<Program>,
    /// The one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Program>,
    /// The generation of the host that brought `current`: programs that came together go back
    /// together.
    #[serde(default)]
    pub since: u64,
    /// The one that a run has begun to bring and that some units may run already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<Program>,
}

impl Generations {
    /// What is written down before a unit gets `wanted`.
    #[must_use]
    pub fn claim(&self, wanted: &Program) -> Self {
        let mut next = self.clone();
        if !self.is_current(wanted) {
            next.pending = Some(wanted.clone());
        }
        next
    }

    /// What is written down when every unit has `wanted`, in the host's `generation`.
    #[must_use]
    pub fn finish(&self, wanted: &Program, generation: u64) -> Self {
        let (previous, since) = match self.is_current(wanted) {
            true => (self.previous.clone(), self.since),
            false => (self.current.clone(), generation),
        };
        Self { current: Some(wanted.clone()), previous, since, pending: None }
    }

    /// Whether the host runs `wanted` and nothing else.
    #[must_use]
    pub fn is_current(&self, wanted: &Program) -> bool {
        self.current.as_ref().is_some_and(|current| current.sha256 == wanted.sha256)
    }

    /// Whether the host keeps `wanted`, so that it need not be sent.
    #[must_use]
    pub fn keep(&self, wanted: &Program) -> bool {
        let mut kept = self.current.iter().chain(&self.previous);
        kept.any(|program| program.sha256 == wanted.sha256)
    }
}

/// What a rollback from `wanted`, by program, makes of a host that has `known`: the builds that it
/// shall run, by program.
///
/// What a run has begun and not finished is undone; else the programs that came last, together,
/// give way to those before, if they are the wanted ones. A host that has nothing of `wanted` keeps
/// what it runs, and so does a program without a generation before.
#[must_use]
pub fn former(
    known: &BTreeMap<String, Generations>,
    wanted: &BTreeMap<String, Program>,
) -> BTreeMap<String, Program> {
    // A rollback that was broken off has something else begun: it goes on.
    let begun = |(name, wanted): (&String, &Program)| {
        let pending = known.get(name).and_then(|program| program.pending.as_ref());
        pending.is_some_and(|pending| pending.sha256 == wanted.sha256)
    };
    let begun = wanted.iter().any(begun);
    let last = known.values().map(|program| program.since).max();
    let target = |(name, wanted): (&String, &Program)| {
        let program = known.get(name)?;
        let goes = !begun && program.is_current(wanted) && Some(program.since) == last;
        let back = program.previous.as_ref().filter(|_| goes);
        Some((name.clone(), back.or(program.current.as_ref())?.clone()))
    };
    wanted.iter().filter_map(target).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(text: &str) -> Program {
        Program { sha256: Digest::of(text.as_bytes()), version: Some(text.to_owned()) }
    }

    #[test]
    fn one_generation_before_the_current_one_is_kept() {
        let (a, b, c) = (build("a"), build("b"), build("c"));
        let first = Generations::default().claim(&a);
        assert_eq!((&first.current, &first.pending), (&None, &Some(a.clone())));
        let first = first.finish(&a, 1);
        assert_eq!(first.claim(&a), first, "nothing to claim where nothing changes");
        let second = first.claim(&b).finish(&b, 2);
        assert_eq!((second.keep(&a), second.keep(&b)), (true, true));
        let third = second.claim(&c).finish(&c, 3);
        assert_eq!((third.keep(&a), third.keep(&b), third.keep(&c)), (false, true, true));
        assert_eq!(third.finish(&c, 4), third);
    }

    /// The builds after a rollback from `wanted`, a word a program.
    fn back(known: &[(&str, &Generations)], wanted: &[(&str, &str)]) -> String {
        let known = known.iter().map(|(name, known)| ((*name).to_owned(), (*known).clone()));
        let wanted = wanted.iter().map(|(name, text)| ((*name).to_owned(), build(text)));
        let former = former(&known.collect(), &wanted.collect());
        let word = |(name, program): (&String, &Program)| {
            format!("{name}={}", program.version.as_deref().unwrap_or("?"))
        };
        former.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_rollback_undoes_what_was_broken_off_and_leaves_others_alone() {
        let (a, b, c) = (build("a"), build("b"), build("c"));
        let two = Generations::default().finish(&a, 1).finish(&b, 2);
        assert_eq!(back(&[("h", &two)], &[("h", "b")]), "h=a");
        assert_eq!(back(&[("h", &two)], &[("h", "c")]), "h=b", "the host has never seen c");
        let broken_off = two.claim(&c);
        assert_eq!(back(&[("h", &broken_off)], &[("h", "c")]), "h=b");
        assert_eq!(broken_off.claim(&b).finish(&b, 3), two);
        let new = Generations::default().finish(&a, 1);
        assert_eq!(back(&[("h", &new)], &[("h", "a")]), "h=a");
        assert_eq!(back(&[("h", &Generations::default())], &[("h", "a")]), "");
        let returning = two.claim(&a);
        assert_eq!(back(&[("h", &returning)], &[("h", "b")]), "h=a", "a rollback goes on");
        // There and back again.
        let returned = two.finish(&a, 3);
        assert_eq!((&returned.current, &returned.previous), (&Some(a), &Some(b)));
        assert_eq!(back(&[("h", &returned)], &[("h", "b")]), "h=a", "it is back already");
    }

    #[test]
    fn programs_that_came_together_go_back_together() {
        let (a, b) = (build("a"), build("b"));
        let early = Generations::default().finish(&a, 1).finish(&b, 2);
        let late = Generations::default().finish(&a, 1).finish(&b, 5);
        let wanted = [("etcd", "b"), ("hyperkube", "b")];
        assert_eq!(back(&[("etcd", &early), ("hyperkube", &late)], &wanted), "etcd=b hyperkube=a");
        assert_eq!(back(&[("etcd", &late), ("hyperkube", &late)], &wanted), "etcd=a hyperkube=a");
        let begun = late.claim(&build("c"));
        let wanted = [("etcd", "b"), ("hyperkube", "c")];
        assert_eq!(back(&[("etcd", &late), ("hyperkube", &begun)], &wanted), "etcd=b hyperkube=b");
    }

    #[test]
    fn programs_are_kept_under_their_content() {
        let program = build("x");
        let path = program.path("etcd");
        assert!(path.starts_with("/usr/local/lib/kprov/bin/etcd-") && is_kept_at(&path));
        assert!(!is_kept_at("/usr/local/bin/etcd") && !is_kept_at(DIRECTORY));
    }
}
