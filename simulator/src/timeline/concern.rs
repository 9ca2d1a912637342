//! Which lines of a timeline concern a violation: those about what it names, about the owners of
//! that and what else they own, and about what went wrong in the world.

use std::collections::BTreeSet;

use api::{Key, Kind, Object};

use super::{About, Line, Owners, Timeline};

/// Names with fewer letters could be any word of a sentence.
const NAME_MIN: usize = 4;

/// The objects that own one.
pub(super) fn owners(object: &Object) -> Vec<Key> {
    let key = object.key();
    let owners = object.meta().owner_references.iter().flatten();
    let owners = owners.filter_map(|owner| {
        let kind = Kind::of_manifest(&owner.api_version, &owner.kind)?;
        let namespace = if kind.namespaced() { &*key.namespace } else { "" };
        Some(Key::new(kind, namespace, &owner.name))
    });
    owners.collect()
}

impl Timeline {
    /// The lines that concern what a message names, oldest first. Faults always do; if it names
    /// nothing, all lines may.
    pub fn concerning(&self, message: &str) -> Vec<&str> {
        let named: BTreeSet<&str> = words(message).collect();
        let objects = self.relatives(&named);
        if objects.is_empty() && !self.lines.iter().any(|line| mentions(&line.text, &named)) {
            return self.lines().collect();
        }
        let kinds: BTreeSet<Kind> = objects.iter().map(|key| key.kind).collect();
        let names: BTreeSet<&str> = objects.iter().map(|key| &*key.name).collect();
        // What is read and who starts before any of the objects was there is how every run begins.
        let begun = |line: &Line| matches!(&line.about, About::Object(k) if objects.contains(k));
        let begins = self.lines.iter().position(begun).unwrap_or(0);
        let concerns = |(index, line): &(usize, &Line)| match &line.about {
            About::World => true,
            About::Object(key) => objects.contains(key) || mentions(&line.text, &named),
            About::List(kind) => *index > begins && kinds.contains(kind),
            About::Process => *index > begins,
            About::Refusal => words(&line.text).any(|word| names.contains(word)),
        };
        let lines = self.lines.iter().enumerate().filter(concerns);
        lines.map(|(_, line)| line.text.as_str()).collect()
    }

    /// The objects of the names, those that own them, and all that these own.
    fn relatives(&self, named: &BTreeSet<&str>) -> BTreeSet<&Key> {
        let keys = self.lines.iter().filter_map(|line| match &line.about {
            About::Object(key) => Some(key),
            _ => None,
        });
        let is_named = |key: &&Key| {
            let (whole, path) = (key.to_string(), key.path());
            named.contains(&*whole) || named.contains(&*path) || is_name(&key.name, named)
        };
        let mut found: BTreeSet<&Key> = keys.filter(is_named).collect();
        let mut next: Vec<&Key> = found.iter().copied().collect();
        while let Some(key) = next.pop() {
            let owners = self.owners.get(key).into_iter().flat_map(|owners| &owners.of);
            next.extend(owners.filter(|owner| found.insert(owner)));
        }
        loop {
            let is_owned = |owners: &Owners| owners.of.iter().any(|owner| found.contains(owner));
            let owned = self.owners.iter().filter(|(_, owners)| is_owned(owners));
            let new: Vec<&Key> = owned.map(|(k, _)| k).filter(|k| !found.contains(k)).collect();
            if new.is_empty() {
                return found;
            }
            found.extend(new);
        }
    }
}

/// Whether a bare name is one of the words, and no word of the language.
fn is_name(name: &str, words: &BTreeSet<&str>) -> bool {
    let telling = name.len() >= NAME_MIN || name.contains(|c: char| c.is_ascii_digit());
    telling && words.contains(name)
}

/// Whether a line has one of the names that are no objects' keys: nodes and components.
fn mentions(line: &str, named: &BTreeSet<&str>) -> bool {
    let telling = |word: &&str| word.contains(|c: char| c.is_ascii_digit()) && word.contains('-');
    words(line).filter(telling).any(|word| named.contains(word))
}

/// The words of a text, without what stands around them.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let apart = |c: char| c.is_whitespace() || "()[]{},;\"'`=".contains(c);
    text.split(apart).map(|word| word.trim_matches(['.', ':'])).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use crate::world::World;

    fn timeline(of: &World) -> &Timeline {
        of.timeline().expect("it is kept")
    }

    #[test]
    fn what_is_named_concerns_with_its_owners_and_what_they_own() {
        let text = "[settings]\nsafety = \"40s\"\n[[nodes]]\nname = \"node-{i}\"\ncount = 2\n\
                    [[operations]]\nat = \"5s\"\ndo = \"create-deployment\"\nname = \"web\"\n\
                    template = \"t\"\nreplicas = 2\n[[operations]]\nat = \"6s\"\n\
                    do = \"create-pod\"\nname = \"alone\"\ntemplate = \"t\"\n[templates.t]\n\
                    cpu = \"1\"\n[[faults]]\nat = \"20s\"\nlasts = \"5s\"\nfault = \"host-crash\"\n\
                    node = \"node-1\"\n";
        let scenario = Scenario::parse(std::path::Path::new("t.toml"), text)
            .unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut world = World::new(scenario.expand(1).unwrap()).unwrap();
        world.keep_timeline();
        world.run();
        let pods: Vec<String> = world.objects(Kind::Pod).map(|pod| pod.key().to_string()).collect();
        let of_web = pods.iter().find(|pod| pod.contains("/web-")).expect("web has pods");
        let lines = timeline(&world).concerning(&format!("{of_web} is one too many"));
        let has = |part: &str| lines.iter().any(|line| line.contains(part));
        for pod in pods.iter().filter(|pod| pod.contains("/web-")) {
            assert!(has(&format!("creates {pod} ")), "{pod}: {lines:#?}");
        }
        assert!(has("creates deployments/default/web ") && has("updates replicasets/default/web-"));
        assert!(has("fault begins") && has("kubelet/node-1           dies"), "{lines:#?}");
        // Neither other pods nor how every run begins.
        assert!(!has("default/alone") && !has("scheduler-0              starts"));
        assert!(!has("lists 0 ") && !has("creates nodes/"), "{lines:#?}");
        let lines = timeline(&world).concerning("pods that ask for much are bound to node-1");
        let has = |part: &str| lines.iter().any(|line| line.contains(part));
        assert!(has("creates nodes/node-1 ") && has(" on node-1)"), "{lines:#?}");
        assert!(!has("nodes/node-0"), "{lines:#?}");
        let all = timeline(&world).lines().count();
        assert_eq!(timeline(&world).concerning("the cluster still writes").len(), all);
        let lines = timeline(&world).concerning("alone: the words of a sentence name nothing");
        assert!(lines.iter().any(|line| line.contains("creates pods/default/alone ")));
        assert!(!lines.iter().any(|line| line.contains("deployments")), "{lines:#?}");
    }
}
