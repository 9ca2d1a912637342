//! What an answer of the DNS costs in a large cluster. Run with `cargo bench -p network`.

use divan::{Bencher, black_box};
use network::dns::{Directory, QueryType, Question, Zone};
use serde_json::json;

const SERVICES: usize = 10_000;
/// A slice is full.
const ENDPOINTS: usize = 100;

fn main() {
    divan::main();
}

fn directory() -> Directory {
    let mut directory =
        Directory::new(Zone { domain: "cluster.local".to_owned(), ranges: Vec::new() });
    directory.put_namespace("default");
    for n in 0..SERVICES {
        let metadata = json!({"namespace": "default", "name": format!("service-{n}")});
        let address = format!("10.254.{}.{}", n / 256, n % 256);
        let spec = json!({"clusterIP": address, "ports": [{"name": "http", "port": 80}]});
        let service = json!({"metadata": metadata, "spec": spec});
        directory.put_service(&serde_json::from_value(service).expect("a service"));
    }
    let metadata = json!({"namespace": "default", "name": "each"});
    let service = json!({"metadata": metadata, "spec": {"clusterIP": "None"}});
    directory.put_service(&serde_json::from_value(service).expect("a service"));
    let endpoints: Vec<_> =
        (0..ENDPOINTS).map(|n| json!({"addresses": [format!("10.244.0.{n}")]})).collect();
    let slice = json!({
        "metadata": {"namespace": "default", "name": "each-1",
            "labels": {"kubernetes.io/service-name": "each"}},
        "addressType": "IPv4", "endpoints": endpoints,
    });
    directory.put_slice(&serde_json::from_value(slice).expect("a slice"));
    directory
}

/// A service, what the search path asks for before it, an outside name, and a headless service.
#[divan::bench(args = [
    "service-4711.default.svc.cluster.local",
    "service-4711.default.svc.cluster.local.default.svc.cluster.local",
    "example.com",
    "each.default.svc.cluster.local",
])]
fn answer(bencher: Bencher<'_, '_>, name: &str) {
    let directory = directory();
    let question = Question { name, kind: QueryType::A };
    bencher.bench_local(|| directory.answer(black_box(&question), 1));
}
