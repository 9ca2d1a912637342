use api::Span;

use super::*;
use crate::plugins::plugins;
use crate::profile::Profile;

fn file(fields: Value) -> Value {
    let mut file = json!({"apiVersion": API_VERSION, "kind": KIND});
    if let (Some(file), Value::Object(fields)) = (file.as_object_mut(), fields) {
        file.extend(fields);
    }
    file
}

fn of(fields: Value) -> Configuration {
    Configuration::of(&file(fields)).unwrap()
}

/// A profile with these plugins.
#[expect(clippy::needless_pass_by_value, reason = "callers write it in place")]
fn with(plugins: Value) -> Result<ProfileConfig, String> {
    let configuration = Configuration::of(&file(json!({"profiles": [{"plugins": plugins}]})));
    configuration.map_err(|e| e.to_string()).map(|mut c| c.scheduler.profiles.remove(0))
}

fn refused(fields: Value, expected: &str) {
    let error = Configuration::of(&file(fields)).err().unwrap().to_string();
    assert_eq!(error, expected);
}

#[test]
fn the_empty_file_is_the_default() {
    let configuration = of(json!({}));
    assert_eq!(configuration.scheduler, SchedulerConfig::default());
    assert_eq!((configuration.leader_elect, configuration.kubeconfig), (None, None));
    assert!(configuration.remarks.is_empty());
    let nothing = json!({"leaderElection": null, "profiles": [{"schedulerName": null,
        "plugins": {"filter": null, "score": {"enabled": null}}, "pluginConfig": null}]});
    assert_eq!(of(nothing).scheduler, SchedulerConfig::default());
}

#[test]
fn the_table_of_plugins_agrees_with_the_plugins() {
    for plugin in plugins(&PluginArgs::default()) {
        let known = Known::named(plugin.name()).unwrap();
        assert_eq!(plugin.weight(), known.weight, "{}", known.name);
        let filters = plugin.filtering() != crate::framework::Filtering::Never;
        let scores = plugin.scoring() != crate::framework::Scoring::Never;
        assert!(
            !filters
                || !with(json!({"filter": {"disabled": [{"name": known.name}]}}))
                    .unwrap()
                    .unfiltered
                    .is_empty()
                || !scores
        );
        // What VolumeBinding scores by is a feature that is off in 1.33; it has a weight all the same.
        assert_eq!(scores || known.name == "VolumeBinding", known.weight > 0, "{}", known.name);
    }
}

#[test]
fn everything_that_a_file_can_say() {
    let configuration = of(json!({
        "parallelism": 4,
        "leaderElection": {"leaderElect": false, "resourceName": "second",
            "resourceNamespace": "batch", "leaseDuration": "1m30s", "renewDeadline": "60.5s",
            "retryPeriod": "0s", "resourceLock": "leases"},
        "clientConnection": {"kubeconfig": "/etc/second.conf", "qps": 100, "burst": 200},
        "percentageOfNodesToScore": 40,
        "podInitialBackoffSeconds": 2,
        "podMaxBackoffSeconds": 30,
        "profiles": [
            {"schedulerName": "spread"},
            {"schedulerName": "pack", "percentageOfNodesToScore": 0,
             "pluginConfig": [
                {"name": "NodeResourcesFit", "args": {
                    "apiVersion": API_VERSION, "kind": "NodeResourcesFitArgs",
                    "ignoredResources": ["example.com/foo"],
                    "ignoredResourceGroups": ["example.org"],
                    "scoringStrategy": {"type": "RequestedToCapacityRatio",
                        "resources": [{"name": "nvidia.com/gpu", "weight": 3}, {"name": "cpu"}],
                        "requestedToCapacityRatio": {"shape": [
                            {"utilization": 0, "score": 0}, {"utilization": 100, "score": 10}]}}}},
                {"name": "NodeAffinity", "args": {"addedAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
                        {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["a"]}]}]}}}},
                {"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": 5}},
                {"name": "PodTopologySpread", "args": {"defaultingType": "List",
                    "defaultConstraints": [{"maxSkew": 1, "topologyKey": "zone",
                        "whenUnsatisfiable": "ScheduleAnyway"}]}},
                {"name": "NodeResourcesBalancedAllocation",
                 "args": {"resources": [{"name": "cpu"}, {"name": "nvidia.com/gpu", "weight": 1}]}},
                {"name": "DefaultPreemption", "args": {"minCandidateNodesPercentage": 20}},
                {"name": "VolumeBinding", "args": {"bindTimeoutSeconds": 60}}],
             "plugins": {
                "score": {"disabled": [{"name": "NodeResourcesBalancedAllocation"}],
                          "enabled": [{"name": "NodeResourcesFit", "weight": 7}]},
                "multiPoint": {"disabled": [{"name": "ImageLocality"}]}}}]}));
    let scheduler = &configuration.scheduler;
    assert_eq!(configuration.leader_elect, Some(false));
    assert_eq!(configuration.kubeconfig.as_deref(), Some("/etc/second.conf"));
    assert_eq!((scheduler.initial_backoff_seconds, scheduler.max_backoff_seconds), (2, 30));
    let expected = Election {
        namespace: "batch".to_owned(),
        lease_duration: Span::secs(90),
        renew_deadline: Span::millis(60_500),
        ..Election::of("second")
    };
    assert_eq!(configuration.election, expected);
    assert_eq!(of(configuration.complete().clone()).election, expected);
    let [spread, pack] = &scheduler.profiles[..] else { panic!("two profiles") };
    let expected = ProfileConfig {
        name: "spread".into(),
        percentage_of_nodes_to_score: Some(40),
        ..ProfileConfig::default()
    };
    assert_eq!(*spread, expected);
    assert_eq!((pack.name.as_str(), pack.percentage_of_nodes_to_score), ("pack", None));
    assert_eq!(pack.disabled, ["ImageLocality"]);
    let weights =
        [("NodeResourcesBalancedAllocation".to_owned(), 0), ("NodeResourcesFit".to_owned(), 7)];
    assert_eq!(pack.weights, weights.into());
    let args = &pack.args;
    assert_eq!(args.default_preemption.min_candidate_nodes_percentage, 20);
    assert_eq!(args.default_preemption.min_candidate_nodes_absolute, 100);
    assert_eq!(args.inter_pod_affinity.hard_pod_affinity_weight, 5);
    assert_eq!(args.fit.scoring_strategy.resources[1].weight(), 1);
    assert_eq!(args.topology_spread.default_constraints.len(), 1);
    assert_eq!(args.volume_binding.bind_timeout_seconds, 60);
    insta::assert_snapshot!(configuration.remarks.join("\n"), @r"
    parallelism 4 has no effect: decisions are taken one after the other
    clientConnection.qps and burst have no effect: requests are bounded by how many are under way
    ");
    // What a machine is made of can be written down, as a recording does, and read again.
    let written = serde_json::to_value(scheduler).unwrap();
    assert_eq!(serde_json::from_value::<SchedulerConfig>(written).unwrap(), *scheduler);
    // And so can the file.
    let again = Configuration::of(configuration.complete()).unwrap();
    assert_eq!(again.scheduler, *scheduler);
    assert_eq!(again.complete(), configuration.complete());
}

#[test]
fn a_plugin_can_be_set_at_each_extension_point() {
    let config = |plugins| with(plugins).unwrap();
    let name = |name: &str| json!({"name": name});
    assert_eq!(
        config(json!({"multiPoint": {"disabled": [name("NodePorts")]}})).disabled,
        ["NodePorts"]
    );
    let unfiltered = config(json!({"filter": {"disabled": [name("TaintToleration")]}}));
    assert_eq!((unfiltered.unfiltered.len(), unfiltered.disabled.len()), (1, 0));
    // All scores but one; a weight that is not said is one.
    let only =
        config(json!({"score": {"disabled": [name("*")], "enabled": [name("NodeAffinity")]}}));
    assert_eq!(only.weights["NodeAffinity"], 1);
    assert!(only.weights.iter().all(|(name, weight)| name == "NodeAffinity" || *weight == 0));
    // What is said of the scores counts before what is said of all.
    let both = config(json!({"score": {"enabled": [{"name": "NodeAffinity", "weight": 4}]},
        "multiPoint": {"enabled": [{"name": "NodeAffinity", "weight": 9},
            {"name": "TaintToleration", "weight": 5}]}}));
    let weights = [("NodeAffinity".to_owned(), 4), ("TaintToleration".to_owned(), 5)];
    assert_eq!(both.weights, weights.into());
    // Nothing but what is named.
    let bare = config(json!({"multiPoint": {"disabled": [name("*")], "enabled":
        [name("PrioritySort"), name("DefaultBinder"), name("NodeResourcesFit")]}}));
    assert_eq!(bare.disabled.len(), 15);
    assert_eq!(Profile::new(&bare).unwrap().plugins().len(), 1);
    assert!(!Profile::new(&bare).unwrap().gates);
}

#[test]
fn plugins_that_are_no_plugins() {
    let check = |plugins: Value, expected: &str| {
        let error = with(plugins).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    let enabled = |names: &[&str]| {
        let names: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
        json!({"enabled": names})
    };
    let disabled = |name: &str| json!({"disabled": [{"name": name}]});
    check(json!({"filter": enabled(&["Foo"])}), "FilterPlugin \"Foo\" does not exist; there are ");
    check(
        json!({"multiPoint": enabled(&["Foo"])}),
        "profiles[0].plugins.multiPoint.enabled[0]: creating profile for scheduler name \
         default-scheduler: PreFilterPlugin \"Foo\" does not exist",
    );
    check(
        json!({"score": enabled(&["NodeName"])}),
        "plugin \"NodeName\" does not extend ScorePlugin plugin",
    );
    check(
        json!({"filter": enabled(&["NodeName", "NodeName"])}),
        "plugin \"NodeName\" already registered as \"FilterPlugin\"",
    );
    check(
        json!({"filter": enabled(&["EBSLimits"])}),
        "profiles[0].plugins.filter.enabled[0]: Invalid value: \"EBSLimits\": was invalid in version \
         \"kubescheduler.config.k8s.io/v1\"",
    );
    check(
        json!({"queueSort": disabled("*")}),
        "only one queue sort plugin required for profile with scheduler name \
         \"default-scheduler\", but got 0",
    );
    check(
        json!({"multiPoint": disabled("DefaultBinder")}),
        "at least one bind plugin is needed for profile with scheduler name",
    );
    check(
        json!({"preFilter": disabled("NodePorts")}),
        "profiles[0].plugins.preFilter: Invalid value: \"NodePorts\": is disabled at preFilter and \
         not at filter, which needs it",
    );
    check(
        json!({"score": {"enabled": [{"name": "NodeAffinity", "weight": -1}]}}),
        "profiles[0].plugins.score.enabled[0].weight: Invalid value: -1: must be between 0 and 10000",
    );
    // Files may name what other versions have, as long as they do not want it.
    let file = file(json!({"profiles": [{"plugins": {"filter": disabled("EBSLimits")}}]}));
    let remarks = Configuration::of(&file).unwrap().remarks;
    let expected =
        "profiles[0].plugins.filter disables \"EBSLimits\", which does not exist; there ";
    assert!(remarks[0].starts_with(expected), "{remarks:?}");
}

#[test]
fn what_is_refused() {
    let kind = |value: Value| Configuration::of(&value).err().unwrap().to_string();
    insta::assert_snapshot!(
        kind(json!({"apiVersion": "kubescheduler.config.k8s.io/v1beta3", "kind": KIND})),
        @r#"this is "kubescheduler.config.k8s.io/v1beta3", "KubeSchedulerConfiguration"; "kubescheduler.config.k8s.io/v1", "KubeSchedulerConfiguration" is wanted"#
    );
    assert!(kind(json!("text")).starts_with("this is \"\""));
    refused(
        json!({"profilez": [], "profiles": [{"plugins": {"filter": {"enable": []}}}]}),
        "strict decoding error: unknown field \"profilez\", unknown field \
         \"profiles[0].plugins.filter.enable\"",
    );
    refused(
        json!({"profiles": [{}, {"pluginConfig": [
            {"name": "NodeAffinity", "args": {"addedAffinity": {"nodeSelector": {}}}}]}]}),
        "strict decoding error: unknown field \
         \"profiles[1].pluginConfig[0].args.addedAffinity.nodeSelector\"",
    );
    refused(
        json!({"profiles": [{"pluginConfig": [
            {"name": "InterPodAffinity", "args": {"hardPodAffinityWeight": "x"}}]}]}),
        "profiles[0].pluginConfig[0].args: invalid type: string \"x\", expected i32",
    );
    refused(
        json!({"parallelism": 0}),
        "parallelism: Invalid value: 0: should be an integer value greater than zero",
    );
    refused(
        json!({"podInitialBackoffSeconds": 20, "percentageOfNodesToScore": 101}),
        "[percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100], \
         podMaxBackoffSeconds: Invalid value: 10: must be greater than or equal to \
         PodInitialBackoffSeconds]",
    );
    refused(
        json!({"podInitialBackoffSeconds": 0}),
        "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0",
    );
    refused(
        json!({"leaderElection": {"resourceLock": "endpoints", "leaseDuration": "1m"}}),
        "leaderElection.resourceLock: Invalid value: \"endpoints\": resourceLock value must be \
         \"leases\"",
    );
    let times = json!({"leaseDuration": "5s", "renewDeadline": "5s", "retryPeriod": "5s",
        "resourceNamespace": "a.b"});
    refused(
        json!({"leaderElection": times}),
        "[leaderElection.leaseDuration: Invalid value: 5s: must be greater than `RenewDeadline`, \
         leaderElection.renewDeadline: Invalid value: 5s: must be greater than `RetryPeriod` * 1.2, \
         leaderElection.resourceNamespace: Invalid value: \"a.b\": must be the name of a \
         namespace]",
    );
    // Nobody competes.
    let mut alone = times;
    alone["leaderElect"] = json!(false);
    assert_eq!(of(json!({"leaderElection": alone})).leader_elect, Some(false));
    for wrong in ["-1s", "soon", "5"] {
        let place = "leaderElection.retryPeriod: Invalid value: ";
        let expected =
            format!("{place}{wrong:?}: must be a length of time greater than zero, such as 15s");
        refused(json!({"leaderElection": {"retryPeriod": wrong}}), &expected);
    }
}

#[test]
fn profiles_that_cannot_be() {
    refused(
        json!({"profiles": [{"schedulerName": "a"}, {"percentageOfNodesToScore": -1},
            {"schedulerName": "a", "plugins": {"queueSort": {"enabled": [{"name": "PrioritySort"}]}}}]}),
        "[profiles[1].schedulerName: Required value, profiles[1].percentageOfNodesToScore: Invalid \
         value: -1: not in valid range [0-100], profiles[2].schedulerName: Duplicate value: \
         \"profiles[0].schedulerName\", profiles[2].plugins.queueSort: Invalid value: \
         [\"PrioritySort\"]: must be the same for all profiles]",
    );
    let config = |list: Value| json!({"profiles": [{"pluginConfig": list}]});
    refused(
        config(json!([{"name": "NodeAffinity"}, {"name": "NodeAffinity"}])),
        "profiles[0].pluginConfig[1]: Duplicate value: \"NodeAffinity\"",
    );
    refused(
        config(json!([{"name": "NodeAffinity", "args": {"kind": "InterPodAffinityArgs"}}])),
        "decoding .profiles[0].pluginConfig[0]: args for plugin NodeAffinity were not of type \
         NodeAffinityArgs.kubescheduler.config.k8s.io, got InterPodAffinityArgs",
    );
    refused(
        config(json!([{"name": "Foo"}])),
        "profiles[0].pluginConfig[0].name: Invalid value: \"Foo\": takes no arguments; these do: \
         Coscheduling, DefaultPreemption, InterPodAffinity, NodeAffinity, \
         NodeResourcesBalancedAllocation, NodeResourcesFit, PodTopologySpread, VolumeBinding",
    );
}

#[test]
fn arguments_that_cannot_be() {
    let check = |name: &str, args: Value, expected: &str| {
        let fields = json!({"profiles": [{"pluginConfig": [{"name": name, "args": args}]}]});
        let error = Configuration::of(&file(fields)).err().unwrap().to_string();
        let at = "profiles[0].pluginConfig[0].args";
        assert_eq!(error.replace(&format!("{at}."), ""), expected);
    };
    check(
        "DefaultPreemption",
        json!({"minCandidateNodesPercentage": 0, "minCandidateNodesAbsolute": 0}),
        "[minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the same time as \
         minCandidateNodesAbsolute, minCandidateNodesAbsolute: Invalid value: 0: cannot be zero at \
         the same time as minCandidateNodesPercentage]",
    );
    check(
        "InterPodAffinity",
        json!({"hardPodAffinityWeight": 101}),
        "hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]",
    );
    check(
        "NodeResourcesFit",
        json!({"ignoredResourceGroups": ["a/b"], "scoringStrategy": {"type": "Best",
            "resources": [{"name": "cpu", "weight": 101}], "requestedToCapacityRatio": {}}}),
        "[ignoredResourceGroups[0]: Invalid value: \"a/b\": resource group name can't contain '/', \
         scoringStrategy.type: Unsupported value: \"Best\": supported values: \"LeastAllocated\", \
         \"MostAllocated\", \"RequestedToCapacityRatio\", scoringStrategy.resources[0].weight: \
         Invalid value: 101: resource weight of cpu not in valid range (0, 100], \
         scoringStrategy.requestedToCapacityRatio: Forbidden: must be nil when type is not \
         RequestedToCapacityRatio]",
    );
    check(
        "NodeResourcesFit",
        json!({"scoringStrategy": {"type": "RequestedToCapacityRatio"}}),
        "scoringStrategy.requestedToCapacityRatio: Required value: must be specified when type is \
         RequestedToCapacityRatio",
    );
    check(
        "NodeResourcesFit",
        json!({"scoringStrategy": {"type": "RequestedToCapacityRatio", "requestedToCapacityRatio":
            {"shape": [{"utilization": 50, "score": 11}, {"utilization": 50, "score": 0}]}}}),
        "[scoringStrategy.requestedToCapacityRatio.shape[1].utilization: Invalid value: 50: values \
         must be sorted in increasing order, \
         scoringStrategy.requestedToCapacityRatio.shape[0].score: Invalid value: 11: not in valid \
         range [0, 10]]",
    );
    check(
        "NodeResourcesBalancedAllocation",
        json!({"resources": [{"name": "cpu", "weight": 2}, {"name": "cpu"}]}),
        "[resources[0].weight: Invalid value: 2: must be 1, resources[1].name: Duplicate value: \
         \"cpu\"]",
    );
    check(
        "PodTopologySpread",
        json!({"defaultConstraints": [
            {"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Never", "labelSelector": {}},
            {"maxSkew": 1, "topologyKey": "", "whenUnsatisfiable": "Never"}]}),
        "[defaultingType: Invalid value: \"System\": when .defaultConstraints are not empty, \
         defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range (0, inf), \
         defaultConstraints[0].topologyKey: Required value: can not be empty, \
         defaultConstraints[0].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \
         \"DoNotSchedule\", \"ScheduleAnyway\", defaultConstraints[0].labelSelector: Forbidden: \
         constraint must not define a selector, as they deduced for each pod, \
         defaultConstraints[1].topologyKey: Required value: can not be empty, \
         defaultConstraints[1].whenUnsatisfiable: Unsupported value: \"Never\": supported values: \
         \"DoNotSchedule\", \"ScheduleAnyway\", defaultConstraints[1]: Duplicate value: \
         \"{, Never}\"]",
    );
    check(
        "VolumeBinding",
        json!({"bindTimeoutSeconds": -1}),
        "bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, should not be a \
         negative value",
    );
    check(
        "NodeAffinity",
        json!({"addedAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
            {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "a", "operator": "Is"}, {"key": "a", "operator": "Gt", "values": ["x"]}]}]}}}),
        "[addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
         matchExpressions[0].operator: Unsupported value: \"Is\": supported values: \"In\", \
         \"NotIn\", \"Exists\", \"DoesNotExist\", \"Gt\", \"Lt\", \
         addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].\
         matchExpressions[1].values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value \
         must be an integer]",
    );
}

#[test]
fn a_plugin_beyond_the_default_set_acts_where_it_is_enabled() {
    let enabled = |plugins: Value| with(plugins).unwrap().enabled;
    assert_eq!(enabled(json!({})), [""; 0]);
    let named = json!({"enabled": [{"name": "Coscheduling"}]});
    for point in ["multiPoint", "permit", "preFilter"] {
        let config = with(json!({point: named})).unwrap();
        assert_eq!(config.enabled, ["Coscheduling"], "{point}");
        assert_eq!(config.disabled, [""; 0], "{point}");
    }
    let off = json!({"multiPoint": named, "permit": {"disabled": [{"name": "*"}]},
        "preFilter": {"disabled": [{"name": "Coscheduling"}]}});
    assert_eq!(enabled(off), [""; 0]);
    assert!(with(json!({"filter": named})).unwrap_err().contains("does not extend"));
    let args = |seconds: i64| {
        json!({"profiles": [{"plugins": {"multiPoint": named}, "pluginConfig": [
            {"name": "Coscheduling", "args": {"permitWaitingTimeSeconds": seconds}}]}]})
    };
    refused(
        args(0),
        "profiles[0].pluginConfig[0].args.permitWaitingTimeSeconds: Invalid value: 0: not in valid \
         range [1, 3600]",
    );
    let configuration = of(args(5));
    let profile = Profile::new(&configuration.scheduler.profiles[0]).unwrap();
    assert_eq!(profile.coscheduling, Some(std::time::Duration::from_secs(5)));
    // What is written with everything is read as the same.
    assert_eq!(
        Configuration::of(configuration.complete()).unwrap().scheduler,
        configuration.scheduler
    );
    let told = |configuration: &Configuration| {
        configuration.complete()["profiles"][0]["pluginConfig"].as_array().unwrap().len()
    };
    assert_eq!(told(&configuration), told(&of(json!({}))) + 1);
}

#[test]
fn extenders_are_understood() {
    let configuration = of(json!({"extenders": [
        {"urlPrefix": "https://gpu.example/v1/", "filterVerb": "filter", "prioritizeVerb": "score",
         "preemptVerb": "preempt", "bindVerb": "bind", "weight": 5, "enableHTTPS": true,
         "tlsConfig": {"caFile": "/ca.crt", "certFile": "/c.crt", "keyData": "c2VjcmV0"},
         "httpTimeout": "250ms", "nodeCacheCapable": true, "ignorable": true,
         "managedResources": [{"name": "a.com/foo", "ignoredByScheduler": true},
            {"name": "a.com/bar"}]},
        {"urlPrefix": "https://other.example", "filterVerb": "f", "enableHTTPS": true},
        {"urlPrefix": "http://plain.example:80/x", "tlsConfig": {"caFile": "/ca.crt"}}]}));
    let [gpu, other, plain] = &configuration.scheduler.extenders[..] else { panic!("three") };
    assert_eq!((gpu.url_prefix.as_str(), gpu.weight), ("https://gpu.example/v1/", 5));
    assert_eq!((gpu.timeout_milliseconds, other.timeout_milliseconds), (250, 5_000));
    assert!(gpu.node_cache_capable && gpu.ignorable && !other.ignorable);
    let managed = gpu.managed_resources.iter().map(|r| (r.name.as_str(), r.ignored_by_scheduler));
    assert_eq!(managed.collect::<Vec<_>>(), [("a.com/foo", true), ("a.com/bar", false)]);
    assert_eq!(plain.bind_verb, "");
    let [gpu, other, plain] = &configuration.extenders[..] else { panic!("three") };
    let gpu = gpu.as_ref().unwrap();
    assert_eq!((gpu.ca_file.as_str(), gpu.key_data.as_str()), ("/ca.crt", "c2VjcmV0"));
    assert!(!gpu.insecure && other.as_ref().is_some_and(|tls| tls.insecure) && plain.is_none());
    assert_eq!(configuration.remarks.len(), 1);
    assert!(
        configuration.remarks[0].starts_with("the certificate of extenders[1] is not verified")
    );
    // A key is for the connection alone: no recording and no log has it.
    let written = serde_json::to_string(&configuration.scheduler).unwrap();
    assert!(!written.contains("c2VjcmV0") && !format!("{gpu:?}").contains("c2VjcmV0"));
    let read: SchedulerConfig = serde_json::from_str(&written).unwrap();
    assert_eq!(read, configuration.scheduler);
    let again = Configuration::of(configuration.complete()).unwrap();
    assert_eq!(
        (&again.scheduler, &again.extenders),
        (&configuration.scheduler, &configuration.extenders)
    );
    assert_eq!(again.complete(), configuration.complete());
}

#[test]
fn extenders_that_cannot_be() {
    let url = "http://x";
    refused(
        json!({"extenders": [
            {"urlPrefix": "x:80", "prioritizeVerb": "p", "bindVerb": "b", "httpTimeout": "-1s"},
            {"urlPrefix": url, "weight": 20_000, "bindVerb": "b", "managedResources": [
                {"name": "cpu"}, {"name": "a b"}, {"name": "a.com/foo"}, {"name": "a.com/foo"}]}]}),
        "[extenders[0].urlPrefix: Invalid value: \"x:80\": must be an http:// or https:// URL, \
         extenders[0].httpTimeout: Invalid value: \"-1s\": must be a positive duration such as 5s or \
         500ms, extenders[0].weight: Invalid value: 0: must have a positive weight applied to it, \
         extenders[1].weight: Invalid value: 20000: must not exceed 10000, \
         extenders[1].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended \
         resource name, extenders[1].managedResources[1].name: Invalid value: \"a b\": name part must \
         consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
         alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for \
         validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]'), \
         extenders[1].managedResources[3].name: Invalid value: \"a.com/foo\": duplicate extender \
         managed resource name, extenders: Invalid value: \"found 2 extenders implementing bind\": \
         only one extender can implement bind]",
    );
    refused(
        json!({"extenders": [{"urlPrefix": "https://x"},
            {"urlPrefix": "https://x", "tlsConfig": {"insecure": true, "caFile": "/ca"}},
            {"urlPrefix": "https://x", "tlsConfig": {"caFile": "/ca", "certFile": "/crt"}}]}),
        "[extenders[0].tlsConfig.caFile: Required value: name the authority that the extender's \
         certificate comes from: this scheduler knows no others, extenders[1].tlsConfig.insecure: \
         Forbidden: specifying a root certificates file with the insecure flag is not allowed, \
         extenders[2].tlsConfig: Forbidden: a certificate needs its key, and a key its certificate]",
    );
    refused(
        json!({"extenders": [{"urlPrefix": url}], "profiles": [{"plugins": {
            "multiPoint": {"enabled": [{"name": "Coscheduling"}]}}}]}),
        "extenders: Forbidden: profiles[0] enables Coscheduling: what extenders say of a pod is not \
         known when all pods of its group are placed at once",
    );
    refused(
        json!({"extenders": [{"urlPrefix": url, "filterverb": "x"}]}),
        "strict decoding error: unknown field \"extenders[0].filterverb\"",
    );
}
