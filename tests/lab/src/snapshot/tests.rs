use super::*;

fn check(before: &str, after: &str, expected: &[&str]) {
    let (before, after) = (Snapshot::parse(before), Snapshot::parse(after));
    let found: Vec<String> = before.diff(&after).iter().map(ToString::to_string).collect();
    assert_eq!(found, expected);
    assert_eq!(found.is_empty(), before == after);
}

#[test]
fn equal_snapshots_have_no_difference() {
    check("", "", &[]);
    check("== files\na\nb\n", "== files\na\nb\n", &[]);
}

#[test]
fn lines_come_and_go() {
    check(
        "== files\na\nb\n== links\nlo\n",
        "== files\nb\nc\n== links\nlo\nflannel.1\n",
        &["- files: a", "+ files: c", "+ links: flannel.1"],
    );
}

#[test]
fn repeated_lines_are_counted() {
    check("== r\nx\nx\n", "== r\nx\n", &["- r: x"]);
}

#[test]
fn order_means_something() {
    check("== r\nx\ny\n", "== r\ny\nx\n", &["- r: x", "- r: y", "+ r: y", "+ r: x"]);
}

#[test]
fn sections_come_and_go() {
    check("", "== docker\n", &["+ docker: (an empty section)"]);
}

#[test]
fn activations_are_keyed_by_unit() {
    let text = "MainPID=7\nNRestarts=0\nId=ssh.service\nActiveEnterTimestampMonotonic=5\n\n\
                Id=cron.service\nMainPID=0\n";
    let found = parse_activations(text);
    assert_eq!(found["ssh.service"], "MainPID=7 NRestarts=0 ActiveEnterTimestampMonotonic=5");
    assert_eq!(found["cron.service"], "MainPID=0");
}

#[test]
fn what_is_written_is_read_back() {
    let snapshot = Snapshot::parse("== files\na\n== docker\n== links\nlo\n");
    assert_eq!(Snapshot::parse(&snapshot.to_string()), snapshot);
}
