use super::fields::check;
use super::*;

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

#[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
fn refused(side: &str, term: Value, expected: &str) {
    let path = format!("spec.affinity.{side}.{REQUIRED}[0]");
    let expected = expected.replace('@', &path);
    check(pod("p"), "/spec/affinity", json!({side: {REQUIRED: [term]}}), &expected);
}

#[test]
fn terms_of_affinity() {
    let selector = json!({"matchLabels": {"app": "a"}});
    refused(
        "podAffinity",
        json!({"labelSelector": selector}),
        "[@.topologyKey: Required value: can not be empty, @.topologyKey: Invalid value: \"\": \
         name part must be non-empty, @.topologyKey: Invalid value: \"\": name part must consist \
         of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
         character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
         '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')]",
    );
    refused(
        "podAntiAffinity",
        json!({"topologyKey": "zone", "namespaces": ["A"]}),
        "@.namespace: Invalid value: \"A\": a lowercase RFC 1123 label must consist of lower case \
         alphanumeric characters or '-', and must start and end with an alphanumeric character \
         (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    );
    refused(
        "podAffinity",
        json!({"topologyKey": "zone", "namespaceSelector": {"matchExpressions":
            [{"key": "team", "operator": "In", "values": []}]}}),
        "@.namespaceSelector.matchExpressions[0].values: Required value: must be specified when \
         `operator` is 'In' or 'NotIn'",
    );
    let weighted = json!({"podAffinity": {PREFERRED: [
        {"weight": 101, "podAffinityTerm": {"topologyKey": "zone"}}]}});
    check(
        pod("p"),
        "/spec/affinity",
        weighted,
        &format!(
            "spec.affinity.podAffinity.{PREFERRED}[0].weight: Invalid value: 101: must be in the \
             range 1-100"
        ),
    );
}

#[test]
fn label_keys_of_terms() {
    let unset = "Forbidden: must not be specified when labelSelector is not set";
    refused(
        "podAffinity",
        json!({"topologyKey": "zone", "matchLabelKeys": ["a"], "mismatchLabelKeys": ["b"]}),
        &format!("[@.matchLabelKeys: {unset}, @.mismatchLabelKeys: {unset}]"),
    );
    let labelled = |term: Value, expected: &str| {
        let mut base = pod("p");
        base["metadata"]["labels"] = json!({"app": "a", "version": "1"});
        let path = format!("spec.affinity.podAntiAffinity.{REQUIRED}[0]");
        let affinity = json!({"podAntiAffinity": {REQUIRED: [term]}});
        check(base, "/spec/affinity", affinity, &expected.replace('@', &path));
    };
    labelled(
        json!({"topologyKey": "zone", "matchLabelKeys": ["version", "app"],
            "labelSelector": {"matchLabels": {"app": "a"}}}),
        "@[1]: Invalid value: \"app\": exists in both matchLabelKeys and labelSelector",
    );
    labelled(
        json!({"topologyKey": "zone", "matchLabelKeys": ["x"], "mismatchLabelKeys": ["x"],
            "labelSelector": {}}),
        "@.matchLabelKeys[0]: Invalid value: \"x\": exists in both matchLabelKeys and \
         mismatchLabelKeys",
    );
}

/// The labels of the pod get into the selectors of its terms, once, and no other labels.
#[test]
fn label_keys_are_written_into_selectors() {
    let mut world = World::new();
    let term = |selector: Value| {
        json!({"topologyKey": "zone", "matchLabelKeys": ["version", "unknown"],
            "mismatchLabelKeys": ["tenant"], "labelSelector": selector})
    };
    let mut pod = pod("p");
    pod["metadata"]["labels"] = json!({"app": "a", "version": "1", "tenant": "t"});
    pod["spec"]["affinity"] = json!({
        "podAffinity": {REQUIRED: [term(json!({"matchLabels": {"app": "a"}}))]},
        "podAntiAffinity": {PREFERRED: [{"weight": 1, "podAffinityTerm": term(json!({}))}]}});
    let stored = world.create(pod).unwrap();
    let merged = json!([{"key": "version", "operator": "In", "values": ["1"]},
        {"key": "tenant", "operator": "NotIn", "values": ["t"]}]);
    let affinity = &stored["spec"]["affinity"];
    let required = &affinity["podAffinity"][REQUIRED][0];
    assert_eq!(
        required["labelSelector"],
        json!({"matchLabels": {"app": "a"}, "matchExpressions": merged})
    );
    assert_eq!(required["matchLabelKeys"], json!(["version", "unknown"]));
    let preferred = &affinity["podAntiAffinity"][PREFERRED][0]["podAffinityTerm"];
    assert_eq!(preferred["labelSelector"], json!({"matchExpressions": merged}));
}

#[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
fn spread(constraint: Value, expected: &str) {
    let mut constraints = json!([{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"app": "a"}}}]);
    for (field, value) in constraint.as_object().unwrap() {
        constraints[0][field] = value.clone();
    }
    let expected = expected.replace('@', "spec.topologySpreadConstraints[0]");
    check(pod("p"), "/spec/topologySpreadConstraints", constraints, &expected);
}

#[test]
fn spread_constraints() {
    spread(json!({"maxSkew": 0}), "@.maxSkew: Invalid value: 0: must be greater than zero");
    spread(json!({"topologyKey": ""}), "@.topologyKey: Required value: can not be empty");
    spread(
        json!({"whenUnsatisfiable": "Never"}),
        "@.whenUnsatisfiable: Unsupported value: \"Never\": supported values: \"DoNotSchedule\", \
         \"ScheduleAnyway\"",
    );
    spread(json!({"minDomains": 0}), "@.minDomains: Invalid value: 0: must be greater than zero");
    spread(
        json!({"minDomains": 2, "whenUnsatisfiable": "ScheduleAnyway"}),
        "@.minDomains: Invalid value: 2: can only use minDomains if \
         whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway",
    );
    for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        spread(
            json!({field: "Perhaps"}),
            &format!(
                "@.{field}: Unsupported value: \"Perhaps\": supported values: \"Honor\", \"Ignore\""
            ),
        );
    }
    spread(
        json!({"matchLabelKeys": ["version", "app"]}),
        "@.matchLabelKeys[1]: Invalid value: \"app\": exists in both matchLabelKeys and \
         labelSelector",
    );
    spread(
        json!({"matchLabelKeys": ["version"], "labelSelector": null}),
        "@.matchLabelKeys: Forbidden: must not be specified when labelSelector is not set",
    );
    let twins = json!([
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"},
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"},
        {"maxSkew": 2, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]);
    check(
        pod("p"),
        "/spec/topologySpreadConstraints",
        twins,
        "spec.topologySpreadConstraints[0].{topologyKey, whenUnsatisfiable}: Duplicate value: \
         \"{zone, DoNotSchedule}\"",
    );
}

/// What is given is kept as it is: nothing is filled in.
#[test]
fn spread_constraints_have_no_defaults() {
    let mut pod = pod("p");
    let constraints = json!([{"maxSkew": 1, "topologyKey": "zone",
        "whenUnsatisfiable": "DoNotSchedule", "matchLabelKeys": ["version"],
        "labelSelector": {"matchLabels": {"app": "a"}}}]);
    pod["metadata"]["labels"] = json!({"version": "1"});
    pod["spec"]["topologySpreadConstraints"] = constraints.clone();
    let stored = World::new().create(pod).unwrap();
    assert_eq!(stored["spec"]["topologySpreadConstraints"], constraints);
}
