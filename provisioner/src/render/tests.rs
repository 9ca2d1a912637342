//! Templates and their replacements.

use std::error::Error;

use serde_json::json;

use super::*;

#[test]
fn every_file_of_the_directory_is_embedded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates");
    let mut files: Vec<String> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, Templates::names().collect::<Vec<_>>());
}

#[test]
fn a_variable_that_does_not_exist_is_an_error() {
    let templates = Templates::embedded().unwrap();
    let error = templates.render("token.csv", &json!({ "tokn": "x" })).unwrap_err();
    assert_eq!(error.to_string(), "template token.csv cannot be filled in");
    let source = error.source().unwrap().to_string();
    assert!(source.contains("token"), "{source}");
    // Also inside of a filter, and as a field.
    for (text, values) in [
        ("{% filter options(extra=extra) %}--a={{ b }}{% endfilter %}", json!({ "extra": {} })),
        ("{{ a.b }}", json!({ "a": {} })),
        ("{% for x in xs %}{{ x }}{% endfor %}", json!({})),
        ("{% filter options(extra=extra) %}--a=1{% endfilter %}", json!({})),
    ] {
        let templates = Templates::parse(vec![("t", text.to_owned())]).unwrap();
        assert!(templates.render("t", &values).is_err(), "{text}");
    }
}

#[test]
fn nothing_is_escaped() {
    let text = "{{ a }}".to_owned();
    let templates = Templates::parse(vec![("t.html", text)]).unwrap();
    assert_eq!(templates.render("t.html", &json!({ "a": "<\"&'" })).unwrap(), "<\"&'");
}

#[test]
fn a_file_replaces_its_namesake_only() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("token.csv"), "{{ token }}!").unwrap();
    let templates = Templates::with_overrides(dir.path()).unwrap();
    assert_eq!(templates.render("token.csv", &json!({ "token": "x" })).unwrap(), "x!");
    assert!(templates.render("sysctl.conf", &json!({ "sysctls": [] })).is_ok());

    std::fs::write(dir.path().join("tokens.csv"), "").unwrap();
    let error = Templates::with_overrides(dir.path()).unwrap_err();
    assert!(matches!(error, RenderError::Unknown { .. }), "{error}");
    std::fs::remove_file(dir.path().join("tokens.csv")).unwrap();

    std::fs::write(dir.path().join("token.csv"), "{{ token").unwrap();
    let error = Templates::with_overrides(dir.path()).unwrap_err();
    assert!(matches!(error, RenderError::Parse(_)), "{error}");
    assert!(Templates::with_overrides(&dir.path().join("none")).is_err());
}
