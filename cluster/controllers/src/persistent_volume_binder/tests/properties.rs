//! Random claims and volumes, users that delete and reserve, and binders that crash between any two
//! writes.

use std::collections::BTreeMap;

use api::meta;
use api::volume::VOLUME_FINALIZER;
use machine::WatchEvent;
use proptest::prelude::*;

use super::*;
use crate::finalizer;

/// The same objects seen by a process that has just started.
fn restarted(from: &Bench) -> Bench {
    let mut bench = Fixture::new(PersistentVolumeBinder);
    bench.store.now = from.store.now;
    bench.store.revision = from.store.revision;
    bench.store.objects = from.store.objects.clone();
    for object in from.store.objects.values() {
        bench.deliver_event(WatchEvent::Changed(object.clone()));
    }
    bench.progress();
    bench
}

/// Carries out so many writes of the key's plan, as if the process then ended.
fn act(bench: &mut Bench, key: &Key, writes: usize) {
    let plan = bench.reconcile(key);
    for request in plan.requests.into_iter().take(writes) {
        // A volume that another claim took meanwhile is a conflict.
        let _ = bench.store.request(request);
    }
    let news = std::mem::take(&mut bench.store.news);
    for (_, event) in news {
        bench.deliver_event(event);
    }
    bench.progress();
}

/// Plays the kubelet, and who lets volumes go.
fn obey(bench: &mut Bench) {
    let volumes: Vec<Object> = bench.store.kind(Kind::PersistentVolume).cloned().collect();
    for volume in volumes.iter().filter(|v| meta::is_terminating(v.meta())) {
        bench.request(finalizer::removed(volume, VOLUME_FINALIZER));
    }
    let key = Key::cluster(Kind::Node, "a");
    let mut node = value(bench, &key);
    let Some(annotations) = node["metadata"]["annotations"].as_object_mut() else { return };
    for value in annotations.values_mut() {
        *value = json!("removed");
    }
    bench.put(node);
}

/// No volume serves two claims, and each bound claim's volume is its own.
fn check(bench: &Bench) -> Result<(), TestCaseError> {
    let claims = bench.store.kind(Kind::PersistentVolumeClaim);
    let mut holders: BTreeMap<String, String> = BTreeMap::new();
    for claim in claims.filter_map(Object::get::<PersistentVolumeClaim>) {
        let name = api::volume::volume_name(claim);
        if name.is_empty() {
            continue;
        }
        let own = claim.metadata.name.clone().unwrap();
        let other = holders.insert(name.to_owned(), own.clone());
        prop_assert!(other.is_none(), "{name} serves {own} and {other:?}");
        if api::volume::claim_phase(claim) == "Bound" {
            let object = bench.store.get(&volume_at(name)).unwrap();
            let found = object.get::<PersistentVolume>().unwrap();
            prop_assert!(api::volume::is_bound_to(found, claim), "{name} {own}");
        }
    }
    Ok(())
}

fn user(bench: &mut Bench, what: u8, which: u8) {
    let (claim_name, volume_name) = (format!("c{which}"), format!("v{which}"));
    match what {
        0 => {
            let mut made = claim(json!({"resources": {"requests":
                {"storage": format!("{}Gi", 1 + which % 2)}}}));
            made["metadata"]["name"] = json!(claim_name);
            made["metadata"]["uid"] = json!(format!("{claim_name}-{}", bench.store.revision));
            if which.is_multiple_of(3) {
                made["spec"]["storageClassName"] = json!("local");
                made["metadata"]["annotations"] =
                    json!({"volume.kubernetes.io/selected-node": "a"});
            }
            if bench.store.get(&claim_at(&claim_name)).is_none() {
                bench.put(made);
            }
        }
        1 => {
            let mut made = volume(json!({"capacity": {"storage": format!("{}Gi", 1 + which % 3)}}));
            made["metadata"]["name"] = json!(volume_name);
            if which.is_multiple_of(4) {
                made["spec"]["claimRef"] = json!({"namespace": "n", "name": claim_name});
            }
            if bench.store.get(&volume_at(&volume_name)).is_none() {
                bench.put(made);
            }
        }
        _ => {
            if bench.store.get(&claim_at(&claim_name)).is_some() {
                bench.remove(&claim_at(&claim_name));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn claims_and_volumes_are_one_to_one(
        steps in proptest::collection::vec((0..12_u8, 0..5_u8, 0..3_usize), 0..80),
    ) {
        let mut bench = bench(&[local(), node("a")]);
        for (what, which, writes) in steps {
            match what {
                0..3 => user(&mut bench, what, which),
                3 => bench = restarted(&bench),
                4 => obey(&mut bench),
                5..9 => act(&mut bench, &claim_at(&format!("c{which}")), writes),
                _ => {
                    let volumes = bench.store.kind(Kind::PersistentVolume).map(Object::key);
                    let keys: Vec<Key> = volumes.collect();
                    if let Some(key) = keys.get(usize::from(which) % keys.len().max(1)) {
                        act(&mut bench, key, writes);
                    }
                }
            }
            bench.progress();
            check(&bench)?;
        }
        for _ in 0..6 {
            settle(&mut bench);
            obey(&mut bench);
        }
        settle(&mut bench);
        check(&bench)?;
        for object in bench.store.kind(Kind::PersistentVolume) {
            let found = object.get::<PersistentVolume>().unwrap();
            let phase = api::volume::volume_phase(found);
            // What was made for a claim that is gone is gone, and nothing is left half done.
            prop_assert!(matches!(phase, "Available" | "Bound" | "Released"), "{phase}");
            prop_assert!(phase != "Released" || local::node_of(found).is_none());
        }
        let mut other = restarted(&bench);
        prop_assert_eq!(settle(&mut other), Vec::<String>::new());
    }
}
