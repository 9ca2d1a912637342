use super::*;
use crate::schema::{Field, Shape, Type};
use proptest::prelude::*;
use serde_json::json;

/// A body that kubectl 1.33 sent, and the JSON that the same command prints with
/// `--dry-run=client -o json`, less its nulls.
macro_rules! captured {
    ($file:literal, $expected:tt) => {
        let bytes = include_bytes!(concat!("fixtures/", $file));
        let (meta, json) = to_json(bytes).unwrap();
        let value: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(value, json!($expected), "{}", $file);
        let object = api::codec::decode_any(&json).unwrap();
        assert_eq!(
            (object.kind().name(), object.kind().api_version()),
            (meta.kind.as_str(), meta.api_version.as_str())
        );
    };
}

#[test]
fn what_kubectl_creates() {
    // kubectl create job j1 --image=busybox
    captured!("job.bin", {
        "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j1"},
        "spec": {"template": {"metadata": {}, "spec": {"restartPolicy": "Never",
            "containers": [{"name": "j1", "image": "busybox", "resources": {}}]}}},
        "status": {},
    });
    // kubectl create deployment web --image=nginx:1 --replicas=3 --port=80 -n demo -- sleep 5
    captured!("deployment.bin", {
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "demo", "labels": {"app": "web"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "nginx", "image": "nginx:1",
                    "command": ["sleep", "5"], "ports": [{"containerPort": 80}],
                    "resources": {}}]},
            },
        },
        "status": {},
    });
    // kubectl create configmap cm --from-literal=a=1 --from-literal=b=
    captured!("configmap.bin", {
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"},
        "data": {"a": "1", "b": ""},
    });
    captured!("namespace.bin", {
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns1"}, "spec": {},
        "status": {},
    });
    // kubectl create secret generic s1 --from-literal=password=hunter2
    captured!("secret.bin", {
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s1"},
        "data": {"password": "aHVudGVyMg=="},
    });
    captured!("serviceaccount.bin", {
        "apiVersion": "v1", "kind": "ServiceAccount",
        "metadata": {"name": "sa1"},
    });
    // kubectl create service nodeport np --tcp=80:8080
    captured!("service.bin", {
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "np", "labels": {"app": "np"}},
        "spec": {"type": "NodePort", "selector": {"app": "np"}, "ports": [
            {"name": "80-8080", "port": 80, "protocol": "TCP", "targetPort": 8080}]},
        "status": {"loadBalancer": {}},
    });
    // kubectl create rolebinding rb1 --role=r1 --serviceaccount=default:sa1 --user=jane
    captured!("rolebinding.bin", {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
        "metadata": {"name": "rb1"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r1"},
        "subjects": [
            {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "jane"},
            {"kind": "ServiceAccount", "name": "sa1", "namespace": "default"}],
    });
    captured!("clusterrole.bin", {
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "cr1"},
        "rules": [{"nonResourceURLs": ["/healthz"], "verbs": ["get"]}],
    });
}

#[test]
fn what_kubectl_asks() {
    // kubectl create token default --duration=10m --audience=x
    captured!("token.bin", {
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "metadata": {},
        "spec": {"audiences": ["x"], "expirationSeconds": 600},
    });
    // kubectl auth can-i get pods
    captured!("selfsubjectaccessreview.bin", {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "metadata": {},
        "spec": {"resourceAttributes": {"namespace": "default", "resource": "pods", "verb": "get"}},
        "status": {"allowed": false},
    });
    captured!("selfsubjectrulesreview.bin", {
        "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectRulesReview", "metadata": {},
        "spec": {"namespace": "default"}, "status": {"incomplete": false},
    });
    captured!("selfsubjectreview.bin", {
        "apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview", "metadata": {},
        "status": {"userInfo": {}},
    });
}

#[test]
fn unknown_types_and_bad_envelopes_are_refused() {
    let check = |bytes: &[u8], message: &str| {
        let status = to_json(bytes).unwrap_err();
        assert_eq!((status.code, status.message.as_str()), (400, message));
    };
    let mut unknown = include_bytes!("fixtures/job.bin").to_vec();
    let at = unknown.windows(4).position(|w| w == b"\x03Job").unwrap();
    unknown[at + 2] = b'a';
    check(&unknown, r#"no kind "Jab" is registered for version "batch/v1""#);
    check(
        b"{}",
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]",
    );
    check(b"k8s\0", r#"no kind "" is registered for version """#);
    check(b"k8s\0\x0a", "protobuf body: unexpected EOF");
    check(b"k8s\0\x0b", "protobuf body: illegal wireType 3");
    check(b"k8s\0\x1a\x04gzip", r#"content encoding "gzip" is not supported"#);
}

/// A length-delimited field.
fn bytes(number: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = number_and_type(number, 2);
    put(&mut out, u64::try_from(payload.len()).unwrap());
    out.extend(payload);
    out
}

fn int(number: u32, value: i64) -> Vec<u8> {
    let mut out = number_and_type(number, 0);
    put(&mut out, value.cast_unsigned());
    out
}

fn number_and_type(number: u32, wire: u64) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, u64::from(number) << 3 | wire);
    out
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(u8::try_from(value & 0x7f).unwrap() | 0x80);
        value >>= 7;
    }
    out.push(u8::try_from(value).unwrap());
}

fn envelope(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [bytes(1, api_version.as_bytes()), bytes(2, kind.as_bytes())].concat();
    [MAGIC.to_vec(), bytes(1, &meta), bytes(2, raw), bytes(3, b""), bytes(4, b"")].concat()
}

fn decoded(api_version: &str, kind: &str, raw: &[u8]) -> Value {
    let (_, json) = to_json(&envelope(api_version, kind, raw)).unwrap();
    serde_json::from_slice(&json).unwrap()
}

#[test]
fn special_values() {
    let time = bytes(8, &[int(1, 1_700_000_000), int(2, 5)].concat());
    let owner = bytes(13, &[bytes(1, b"Pod"), bytes(3, b"n"), int(6, 0), int(7, 1)].concat());
    let fields = bytes(7, &bytes(1, br#"{"f:a":{}}"#));
    let managed = bytes(17, &[bytes(1, b"m"), bytes(4, b""), fields].concat());
    let label = bytes(11, &[bytes(1, b"k"), bytes(2, b"")].concat());
    let meta = bytes(1, &[bytes(1, b"x"), int(7, 0), time, owner, managed, label].concat());
    let expected = json!({"name": "x", "creationTimestamp": "2023-11-14T22:13:20Z",
        "labels": {"k": ""},
        "ownerReferences": [{"kind": "Pod", "name": "n", "controller": false,
            "blockOwnerDeletion": true}],
        "managedFields": [{"manager": "m", "fieldsV1": {"f:a": {}}}]});
    assert_eq!(decoded("v1", "ConfigMap", &meta)["metadata"], expected);

    // Lease.spec.renewTime to the microsecond; transitions is a pointer, its zero stays.
    let renewed = bytes(4, &[int(1, 1), int(2, 2000)].concat());
    let spec = bytes(2, &[bytes(3, b""), renewed, int(5, 0)].concat());
    let expected = json!({"renewTime": "1970-01-01T00:00:01.000002Z", "leaseTransitions": 0});
    assert_eq!(decoded("coordination.k8s.io/v1", "Lease", &spec)["spec"], expected);

    // Service: a named target port, then a number; no zero node port.
    let named = [bytes(1, b""), int(3, 80), bytes(4, &[int(1, 1), bytes(3, b"web")].concat())];
    let numbered = [int(3, 81), bytes(4, &[int(1, 0), int(2, 8)].concat()), int(5, 0)];
    let spec = bytes(2, &[bytes(1, &named.concat()), bytes(1, &numbered.concat())].concat());
    let expected = json!([{"port": 80, "targetPort": "web"}, {"port": 81, "targetPort": 8}]);
    assert_eq!(decoded("v1", "Service", &spec)["spec"]["ports"], expected);

    // Node.status.capacity, and taint effects.
    let cpu = bytes(1, &[bytes(1, b"cpu"), bytes(2, &bytes(1, b"250m"))].concat());
    assert_eq!(
        decoded("v1", "Node", &bytes(3, &cpu))["status"]["capacity"],
        json!({"cpu": "250m"})
    );

    // TokenReview.status.user.extra is a map of lists.
    let extra =
        bytes(4, &[bytes(1, b"k"), bytes(2, &[bytes(1, b"a"), bytes(1, b"b")].concat())].concat());
    let user = bytes(2, &[bytes(1, b"jane"), bytes(3, b"g"), extra].concat());
    let raw = bytes(3, &[int(1, 1), user].concat());
    let expected = json!({"username": "jane", "groups": ["g"], "extra": {"k": ["a", "b"]}});
    assert_eq!(
        decoded("authentication.k8s.io/v1", "TokenReview", &raw)["status"]["user"],
        expected
    );

    let raw = [int(1, 0), bytes(4, b"Foreground"), bytes(5, b"All"), int(99, 1)].concat();
    let expected = json!({"apiVersion": "apps/v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "propagationPolicy": "Foreground", "dryRun": ["All"]});
    assert_eq!(decoded("apps/v1", "DeleteOptions", &raw), expected);
}

#[test]
fn inlined_messages_stand_in_their_parent() {
    // Pod.spec.volumes[0]: name and an embedded source; containers[0].livenessProbe.
    let source = bytes(2, &bytes(2, &bytes(1, b"Memory")));
    let volume = bytes(1, &[bytes(1, b"v"), source].concat());
    let get = bytes(2, &[bytes(1, b"/"), bytes(2, &int(2, 80))].concat());
    let probe = bytes(10, &[bytes(1, &get), int(2, 0), int(3, 1)].concat());
    let container = bytes(2, &[bytes(1, b"c"), probe].concat());
    let spec = bytes(2, &[volume, container, int(11, 0), int(4, 0), int(25, -3)].concat());
    let expected = json!({
        "volumes": [{"name": "v", "emptyDir": {"medium": "Memory"}}],
        "containers": [{"name": "c",
            "livenessProbe": {"httpGet": {"path": "/", "port": 80}, "timeoutSeconds": 1}}],
        "terminationGracePeriodSeconds": 0,
        "priority": -3,
    });
    assert_eq!(decoded("v1", "Pod", &spec)["spec"], expected);
}

#[test]
fn repeated_numbers_may_be_packed() {
    let groups = [int(4, 1), bytes(4, &[2, 0xac, 0x02])].concat();
    let spec = bytes(2, &bytes(14, &groups));
    let expected = json!({"supplementalGroups": [1, 2, 300]});
    assert_eq!(decoded("v1", "Pod", &spec)["spec"]["securityContext"], expected);
}

#[test]
fn an_object_of_too_many_values_is_refused() {
    let raw: Vec<u8> = bytes(2, b"").repeat(600_000);
    let status = to_json(&envelope("v1", "ServiceAccount", &raw)).unwrap_err();
    assert_eq!(status.code, 413);
}

fn noise(len: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..len)
}

proptest! {
    #[test]
    fn never_panics_on_noise(noise in noise(200), kind in 0..Kind::ALL.len()) {
        let kind = Kind::ALL[kind];
        let _ = to_json(&envelope(kind.api_version(), kind.name(), &noise));
        let _ = to_json(&noise);
    }

    #[test]
    fn never_panics_on_damage(at in 0_usize..234, byte in any::<u8>(), cut in 0_usize..235) {
        let mut body = include_bytes!("fixtures/deployment.bin").to_vec();
        body[at] = byte;
        let _ = to_json(&body);
        let _ = to_json(&body[..cut.min(body.len())]);
    }

    #[test]
    fn whatever_decodes_is_json(
        fields in prop::collection::vec((1_u32..30, any::<bool>(), noise(20)), 0..20),
    ) {
        let field = |(number, text, data): &(u32, bool, Vec<u8>)| {
            if *text { bytes(*number, data) } else { int(*number, i64::from(data.len() > 3)) }
        };
        let raw: Vec<u8> = fields.iter().flat_map(field).collect();
        if let Ok((_, json)) = to_json(&envelope("v1", "Pod", &raw)) {
            prop_assert!(serde_json::from_slice::<Value>(&json).is_ok());
        }
    }
}

/// Objects made from the schema: every field is there or not by the bits of a seed.
struct Inventor {
    seed: u64,
}

impl Inventor {
    fn below(&mut self, limit: u64) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.seed >> 33) % limit
    }

    fn object(&mut self, message: &'static Message, depth: usize) -> Map<String, Value> {
        let mut object = Map::new();
        for field in message.fields {
            if let (Shape::Inline, Type::M(inner)) = (field.shape, &field.ty) {
                object.extend(self.object(inner, depth));
                continue;
            }
            let needed = field.shape == Shape::Required;
            if !needed && (depth == 0 || self.below(4) != 0) {
                continue;
            }
            let value = match field.shape {
                Shape::List => (0..=self.below(2)).map(|_| self.value(field, depth)).collect(),
                Shape::Map => json!({"k": self.value(field, depth), "": self.value(field, depth)}),
                Shape::Pointer if self.below(2) == 0 => match field.ty {
                    Type::S => json!(""),
                    Type::Bool => json!(false),
                    Type::Int => json!(0),
                    _ => self.value(field, depth),
                },
                _ => self.value(field, depth),
            };
            object.insert(field.name.to_owned(), value);
        }
        object
    }

    fn value(&mut self, field: &'static Field, depth: usize) -> Value {
        match &field.ty {
            Type::S => json!(["a", "ü", "x\"y"][usize::try_from(self.below(3)).unwrap()]),
            Type::Bytes => json!(["YQ==", "AP8="][usize::try_from(self.below(2)).unwrap()]),
            Type::Bool => json!(true),
            Type::Int => json!([1, -1, 300, i32::MAX][usize::try_from(self.below(4)).unwrap()]),
            Type::Time => json!("2023-11-14T22:13:20Z"),
            Type::MicroTime => json!("2023-11-14T22:13:20.000123Z"),
            Type::Quantity => json!("250m"),
            Type::IntOrString => {
                [json!(8), json!("web")][usize::try_from(self.below(2)).unwrap()].clone()
            }
            Type::Json => json!({"f:a": {"x": [1, null]}}),
            Type::Strings => json!(["a", "b"]),
            Type::M(inner) => Value::Object(self.object(inner, depth.saturating_sub(1))),
        }
    }
}

/// As Go writes it, but for the zeros that are no pointers.
fn encoded(object: &Map<String, Value>, message: &'static Message) -> Vec<u8> {
    let mut out = Vec::new();
    for field in message.fields {
        if let (Shape::Inline, Type::M(inner)) = (field.shape, &field.ty) {
            out.extend(bytes(field.number, &encoded(object, inner)));
            continue;
        }
        match (object.get(field.name), field.shape) {
            (None, _) => {}
            (Some(Value::Array(items)), Shape::List) => {
                out.extend(items.iter().flat_map(|v| encoded_value(v, field, field.number)));
            }
            (Some(Value::Object(entries)), Shape::Map) => {
                for (key, value) in entries {
                    let entry = [bytes(1, key.as_bytes()), encoded_value(value, field, 2)];
                    out.extend(bytes(field.number, &entry.concat()));
                }
            }
            (Some(value), _) => out.extend(encoded_value(value, field, field.number)),
        }
    }
    out
}

fn encoded_value(value: &Value, field: &'static Field, number: u32) -> Vec<u8> {
    use base64::Engine as _;
    let text = value.as_str().unwrap_or_default();
    let time = || {
        let time: jiff::Timestamp = text.parse().unwrap();
        [int(1, time.as_second()), int(2, i64::from(time.subsec_nanosecond()))].concat()
    };
    let payload = match &field.ty {
        Type::Bool => return int(number, i64::from(value == &json!(true))),
        Type::Int => return int(number, value.as_i64().unwrap()),
        Type::S => text.as_bytes().to_vec(),
        Type::Bytes => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
        Type::Time | Type::MicroTime => time(),
        Type::Quantity => bytes(1, text.as_bytes()),
        Type::IntOrString => match value.as_i64() {
            Some(value) => [int(1, 0), int(2, value), bytes(3, b"")].concat(),
            None => [int(1, 1), int(2, 0), bytes(3, text.as_bytes())].concat(),
        },
        Type::Json => bytes(1, value.to_string().as_bytes()),
        Type::Strings => value
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|v| bytes(1, v.as_str().unwrap().as_bytes()))
            .collect(),
        Type::M(inner) => encoded(value.as_object().unwrap(), inner),
    };
    bytes(number, &payload)
}

proptest! {
    /// Whatever fields an object has, they come through under names that the types know.
    #[test]
    fn every_field_of_every_kind_comes_through(seed in any::<u64>(), kind in 0..Kind::ALL.len()) {
        let kind = Kind::ALL[kind];
        let message = Message::of_kind(kind);
        let mut object = Inventor { seed }.object(message, 6);
        let raw = encoded(&object, message);
        let (_, json) = to_json(&envelope(kind.api_version(), kind.name(), &raw)).unwrap();
        object.insert("apiVersion".to_owned(), json!(kind.api_version()));
        object.insert("kind".to_owned(), json!(kind.name()));
        prop_assert_eq!(serde_json::from_slice::<Value>(&json).unwrap(), Value::Object(object));
        let (_, unknown) = api::codec::decode(kind, &json).unwrap();
        prop_assert_eq!(unknown, Vec::<String>::new());
    }
}
