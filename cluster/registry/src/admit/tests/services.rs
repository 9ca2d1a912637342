use super::*;

fn cluster_ip(value: &Value) -> String {
    value["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn defaults() {
    let mut world = World::new();
    let made = world.create(service("web")).unwrap();
    let ip = cluster_ip(&made);
    assert!(world.options.service_cidr.contains(&ip.parse::<std::net::IpAddr>().unwrap()));
    assert_eq!(
        made["spec"],
        json!({
            "clusterIP": ip, "clusterIPs": [ip], "internalTrafficPolicy": "Cluster",
            "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}],
            "selector": {"app": "x"}, "sessionAffinity": "None", "type": "ClusterIP"
        })
    );
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
}

#[test]
fn headless_services() {
    let mut world = World::new();
    let made = world.create(with(service("a"), "/spec/clusterIP", json!("None"))).unwrap();
    assert_eq!(made["spec"]["clusterIPs"], json!(["None"]));
    let mut free = with(service("b"), "/spec/clusterIP", json!("None"));
    free["spec"]["selector"] = Value::Null;
    let made = world.create(free).unwrap();
    assert_eq!(made["spec"]["ipFamilyPolicy"], "RequireDualStack");
    assert_eq!(made["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
    // Reading and writing back stays the same.
    let same = world.update(&made, None).unwrap();
    assert_eq!(same, made);
}

#[test]
fn addresses_are_unique_and_fixed() {
    let mut world = World::new();
    let mut seen = std::collections::BTreeSet::new();
    // 254 addresses: the whole range.
    for i in 0..254 {
        let made = world.create(service(&format!("s{i}"))).unwrap();
        assert!(seen.insert(cluster_ip(&made)));
    }
    let error = world.create(service("more")).unwrap_err();
    assert_eq!(
        error.message,
        "Internal error occurred: failed to allocate a serviceIP: range is full"
    );
    let held = seen.iter().next().unwrap().clone();
    let error = world.create(with(service("more"), "/spec/clusterIP", json!(held))).unwrap_err();
    assert_eq!(
        error.message,
        format!(
            "Service \"more\" is invalid: spec.clusterIPs: Invalid value: []string{{\"{held}\"}}: failed \
             to allocate IP {held}: provided IP is already allocated"
        )
    );
    let error =
        world.create(with(service("more"), "/spec/clusterIP", json!("1.2.3.4"))).unwrap_err();
    assert_eq!(
        error.message,
        "Service \"more\" is invalid: spec.clusterIPs: Invalid value: []string{\"1.2.3.4\"}: failed to \
         allocate IP 1.2.3.4: provided IP is not in the valid range. The range of valid IPs is \
         10.0.0.0/24"
    );
    let error = world.create(with(service("more"), "/spec/clusterIP", json!("ten"))).unwrap_err();
    assert_eq!(
        error.message,
        "Service \"more\" is invalid: spec.clusterIPs[0]: Invalid value: \"ten\": must be a \
         valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
    );
    let s0 = key(Kind::Service, "s0");
    let error = world.patch(&s0, json!({"spec": {"clusterIP": "10.0.0.250"}})).unwrap_err();
    assert!(error.message.contains("already allocated"), "{error}");
    world.delete(&key(Kind::Service, "s1"), DeleteOptions::default()).unwrap();
    let free = cluster_ip(&world.create(service("more")).unwrap());
    world.delete(&key(Kind::Service, "more"), DeleteOptions::default()).unwrap();
    let error = world.patch(&s0, json!({"spec": {"clusterIP": free}})).unwrap_err();
    assert_eq!(
        error.message,
        format!(
            "Service \"s0\" is invalid: spec.clusterIPs[0]: Invalid value: []string{{\"{free}\"}}: may not \
             change once set"
        )
    );
}

#[test]
fn node_ports() {
    let mut world = World::new();
    let two = json!([{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"},
        {"name": "h", "port": 80}]);
    let mut manifest = with(service("dns"), "/spec/ports", two);
    manifest["spec"]["type"] = json!("NodePort");
    let made = world.create(manifest).unwrap();
    let port = |i: usize| made["spec"]["ports"][i]["nodePort"].as_u64().unwrap();
    assert_eq!(port(0), port(1));
    assert_ne!(port(0), port(2));
    assert!((30_000..=32_767).contains(&port(0)));
    assert_eq!(made["spec"]["externalTrafficPolicy"], "Cluster");
    let mut other = with(service("other"), "/spec/ports/0/nodePort", json!(port(0)));
    other["spec"]["type"] = json!("NodePort");
    assert_eq!(
        world.create(other.clone()).unwrap_err().message,
        format!(
            "Service \"other\" is invalid: spec.ports[0].nodePort: Invalid value: {}: provided \
             port is already allocated",
            port(0)
        )
    );
    let far = with(other.clone(), "/spec/ports/0/nodePort", json!(80));
    assert_eq!(
        world.create(far).unwrap_err().message,
        "Service \"other\" is invalid: spec.ports[0].nodePort: Invalid value: 80: provided port \
         is not in the valid range. The range of valid ports is 30000-32767"
    );
    let plain = with(other, "/spec/type", json!("ClusterIP"));
    assert_eq!(
        world.create(plain).unwrap_err().message,
        "Service \"other\" is invalid: spec.ports[0].nodePort: Forbidden: may not be used when \
         `type` is 'ClusterIP'"
    );
}

#[test]
fn claims_follow_the_type() {
    let mut world = World::new();
    let made = world.create(with(service("web"), "/spec/type", json!("NodePort"))).unwrap();
    let ip = cluster_ip(&made);
    let port = made["spec"]["ports"][0]["nodePort"].as_u64().unwrap();
    let web = key(Kind::Service, "web");
    let claims = |world: &World, body: Value| {
        let patch = Patch { kind: PatchKind::Merge, body: body.into() };
        let operation =
            Operation::Patch { key: web.clone(), subresource: None, patch, strict: false };
        match world.decide(&operation).unwrap() {
            Mutation::Put { claims, object, .. } => (claims, codec::to_value(&object)),
            other => panic!("{other:?}"),
        }
    };
    let (kept, _) = claims(&world, json!({"metadata": {"labels": {"a": "b"}}}));
    assert!(kept.is_empty(), "{kept:?}");
    let (freed, plain) = claims(&world, json!({"spec": {"type": "ClusterIP"}}));
    assert_eq!(freed.free, [format!("nodeport/{port}")]);
    assert_eq!(plain["spec"]["ports"][0]["nodePort"], Value::Null);
    assert_eq!(plain["spec"]["externalTrafficPolicy"], Value::Null);
    let body = json!({"spec": {"type": "ExternalName", "externalName": "example.com"}});
    let (freed, named) = claims(&world, body);
    assert_eq!(freed.free, [format!("clusterip/{ip}"), format!("nodeport/{port}")]);
    assert_eq!(named["spec"]["clusterIP"], Value::Null);
    let removal = world
        .decide(&Operation::Delete { key: web.clone(), options: DeleteOptions::default() })
        .unwrap();
    let Mutation::Remove { claims, .. } = removal else { panic!("services go at once") };
    assert_eq!(claims.free.len(), 2);
    // A client that sends its own manifest again keeps what was allocated.
    let same = world.update(&with(service("web"), "/spec/type", json!("NodePort")), None).unwrap();
    assert_eq!(same["spec"], made["spec"]);
}

#[test]
fn what_is_refused() {
    let mut world = World::new();
    let mut check = |value: Value, expected: &str| {
        let error = world.create(value).unwrap_err();
        let expected = format!("Service \"s\" is invalid: {expected}");
        assert_eq!(error.message, expected);
    };
    check(with(service("s"), "/spec/ports", json!([])), "spec.ports: Required value");
    check(
        with(service("s"), "/spec/type", json!("Node")),
        "spec.type: Unsupported value: \"Node\": supported values: \"ClusterIP\", \
         \"ExternalName\", \"LoadBalancer\", \"NodePort\"",
    );
    check(
        with(service("s"), "/spec/ports/0/port", json!(0)),
        "[spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, \
         spec.ports[0].targetPort: Invalid value: 0: must be between 1 and 65535, inclusive]",
    );
    check(
        with(service("s"), "/spec/ports", json!([{"port": 1, "name": "a"}, {"port": 2}])),
        "spec.ports[1].name: Required value",
    );
    check(
        with(
            service("s"),
            "/spec/ports",
            json!([{"port": 1, "name": "a"}, {"port": 1, "name": "b"}]),
        ),
        "spec.ports[1]: Duplicate value: core.ServicePort{Name:\"\", Protocol:\"TCP\", \
         AppProtocol:(*string)(nil), Port:1, TargetPort:intstr.IntOrString{Type:0, IntVal:0, \
         StrVal:\"\"}, NodePort:0}",
    );
    check(
        with(service("s"), "/spec/sessionAffinity", json!("Sticky")),
        "spec.sessionAffinity: Unsupported value: \"Sticky\": supported values: \"ClientIP\", \
         \"None\"",
    );
    check(
        with(service("s"), "/spec/type", json!("ExternalName")),
        "spec.externalName: Required value",
    );
}
