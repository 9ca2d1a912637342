use proptest::prelude::*;

use super::*;

/// Every JSON pointer in the value.
pub(super) fn pointers(value: &Value, at: &str, out: &mut Vec<String>) {
    out.push(at.to_owned());
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                pointers(inner, &format!("{at}/{}", key.replace('/', "~1")), out);
            }
        }
        Value::Array(list) => {
            for (i, inner) in list.iter().enumerate() {
                pointers(inner, &format!("{at}/{i}"), out);
            }
        }
        _ => {}
    }
}

pub(super) fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        Just(json!([])),
        Just(json!({})),
        Just(json!("")),
        Just(json!("x")),
        Just(json!("None")),
        Just(json!(-1)),
        Just(json!(0)),
        Just(json!(i32::MAX)),
        Just(json!(i64::MIN)),
        Just(json!(true)),
        Just(json!([{}])),
        Just(json!({"a": "b"})),
        Just(json!(["é", "é"])),
        "\\PC{0,12}".prop_map(Value::from),
    ]
}

/// A manifest with a few values replaced by odd ones, if it still is an object of its kind.
fn mutated(kind: Kind, changes: &[(prop::sample::Index, Value)]) -> Option<Object> {
    let mut value = super::crud::minimal(kind);
    for (index, new) in changes {
        let mut all = Vec::new();
        pointers(&value, "", &mut all);
        let pointer = &all[index.index(all.len())];
        *value.pointer_mut(pointer)? = new.clone();
    }
    codec::decode(kind, value.to_string().as_bytes()).ok().map(|(object, _)| object)
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::stored().collect::<Vec<_>>())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_panics_and_what_is_stored_is_stable(
        kind in kinds(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), odd_value()), 0..4),
        more in prop::collection::vec((any::<prop::sample::Index>(), odd_value()), 0..4),
    ) {
        let Some(object) = mutated(kind, &changes) else { return Ok(()) };
        let mut world = World::new();
        if world.run(&Operation::Create { object }).is_err() {
            return Ok(());
        }
        let stored: Vec<Object> = world.objects.values().cloned().collect();
        for object in &stored {
            // Defaults are applied once and for all.
            let mut again = object.clone();
            crate::defaults::apply(&mut again).unwrap();
            prop_assert_eq!(&again, object);
            // Writing back what was read is no write.
            let key = object.key();
            let same = Operation::Update { key, object: object.clone(), subresource: None };
            let unchanged = world.decide(&same);
            prop_assert!(matches!(unchanged, Ok(Mutation::Unchanged(_))), "{:?}", unchanged);
        }
        let Some(mut next) = mutated(kind, &more) else { return Ok(()) };
        next.meta_mut().resource_version = None;
        for subresource in [
            None,
            Some(Subresource::Status),
            Some(Subresource::Scale),
            Some(Subresource::Approval),
            Some(Subresource::Finalize),
        ] {
            let operation =
                Operation::Update { key: next.key(), object: next.clone(), subresource };
            let _ = world.run(&operation);
        }
        for object in stored {
            let options = DeleteOptions::default();
            let _ = world.run(&Operation::Delete { key: object.key(), options });
        }
    }

    #[test]
    fn addresses_never_collide(seeds in prop::collection::vec(any::<[u8; 16]>(), 1..40)) {
        let mut world = World::new();
        world.options.service_cidr = "10.9.0.0/26".parse().unwrap();
        let mut seen = std::collections::BTreeSet::new();
        for (i, entropy) in seeds.into_iter().enumerate() {
            let stamp = Stamp { now: world.now, entropy };
            let mut manifest = service(&format!("s{i}"));
            manifest["spec"]["type"] = json!("NodePort");
            let operation = Operation::Create { object: object(&manifest) };
            let made = super::super::admit(
                &operation, None, &world, &world.caller, &world.options, stamp,
            ).unwrap();
            let Mutation::Put { object, claims, .. } = made else { panic!("a create puts") };
            prop_assert_eq!(claims.take.len(), 2);
            for claim in claims.take {
                prop_assert!(seen.insert(claim));
            }
            world.objects.insert(object.key(), object);
        }
    }
}
