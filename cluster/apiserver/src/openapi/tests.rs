use super::*;

fn read(path: &str) -> Value {
    let document = find(path, "", "application/json").unwrap().unwrap();
    serde_json::from_slice(&document.body).unwrap()
}

fn all_references_resolve(document: &Value, definitions: &Value, prefix: &str) {
    match document {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                let name = reference.strip_prefix(prefix).unwrap();
                assert!(definitions.get(name).is_some(), "{name}");
            }
            fields.values().for_each(|v| all_references_resolve(v, definitions, prefix));
        }
        Value::Array(items) => {
            items.iter().for_each(|v| all_references_resolve(v, definitions, prefix));
        }
        _ => {}
    }
}

#[test]
fn the_index_leads_to_every_group() {
    let index = read("/openapi/v3");
    let paths = index["paths"].as_object().unwrap();
    assert_eq!(paths.len(), 1 + crate::discovery::groups().count());
    let mut bytes = 0;
    for (name, entry) in paths {
        let address = entry["serverRelativeURL"].as_str().unwrap();
        let (path, hash) = address.split_once("?hash=").unwrap();
        assert_eq!(path, format!("/openapi/v3/{name}"));
        let document = find(path, hash, "").unwrap().unwrap();
        assert!(document.immutable);
        assert!(!find(path, "other", "").unwrap().unwrap().immutable);
        bytes += document.body.len();
        let document = read(path);
        all_references_resolve(&document, &document["components"]["schemas"], REF);
    }
    assert!(bytes < 1_500_000, "{bytes} bytes stay in memory");
    assert!(find("/openapi/v3/apis/resource.k8s.io/v1", "", "").is_none());
}

#[test]
fn schemas_carry_what_clients_merge_by() {
    let document = read("/openapi/v3/apis/apps/v1");
    let schemas = &document["components"]["schemas"];
    let deployment = &schemas["io.k8s.api.apps.v1.Deployment"];
    assert_eq!(
        deployment["x-kubernetes-group-version-kind"],
        json!([{"group": "apps", "kind": "Deployment", "version": "v1"}])
    );
    assert_eq!(deployment.get("required"), None);
    let spec = &deployment["properties"]["spec"];
    assert_eq!(spec["allOf"], json!([{"$ref": format!("{REF}io.k8s.api.apps.v1.DeploymentSpec")}]));
    assert!(spec["description"].is_string());
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert_eq!(containers["x-kubernetes-list-type"], "map");
    assert_eq!(containers["x-kubernetes-list-map-keys"], json!(["name"]));
    let volumes = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["volumes"];
    assert_eq!(volumes["x-kubernetes-patch-strategy"], "merge,retainKeys");
    let env = &schemas["io.k8s.api.core.v1.EphemeralContainer"]["properties"]["env"];
    assert_eq!(env["x-kubernetes-patch-merge-key"], "name");
}

#[test]
fn patches_take_the_parameters_kubectl_looks_for() {
    let document = read("/openapi/v3/api/v1");
    let patch = &document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
    let kind = json!({"group": "", "kind": "Pod", "version": "v1"});
    assert_eq!(patch["x-kubernetes-group-version-kind"], kind);
    let names: Vec<_> =
        patch["parameters"].as_array().unwrap().iter().map(|p| p["name"].clone()).collect();
    assert_eq!(names, ["dryRun", "fieldManager", "fieldValidation", "force"]);
    let list = &document["paths"]["/api/v1/pods"]["get"];
    assert_eq!(list["x-kubernetes-action"], "list");
    assert!(document["paths"]["/api/v1/nodes/{name}"]["delete"].is_object());
    assert!(document["paths"]["/api/v1/namespaces"]["delete"].is_null());
}

#[test]
fn version_2_is_served_in_both_forms() {
    let document = read("/openapi/v2");
    assert_eq!(document["swagger"], "2.0");
    all_references_resolve(&document, &document["definitions"], "#/definitions/");
    let name = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";
    assert_eq!(document["definitions"][name]["type"], "string");
    assert_eq!(document["definitions"][name]["format"], "int-or-string");
    let proto = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let document = find("/openapi/v2", "", proto).unwrap().unwrap();
    assert_eq!(document.content_type, PROTOBUF);
    assert!(document.body.starts_with(b"\x0a\x032.0\x12"), "the version, then the title");
    assert!(document.body.len() < 600_000, "{} bytes stay in memory", document.body.len());
    let other = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
    assert_eq!(find("/openapi/v2", "", other).unwrap().unwrap_err().code, 406);
    assert_eq!(find("/openapi/v3", "", other).unwrap().unwrap_err().code, 406);
}
