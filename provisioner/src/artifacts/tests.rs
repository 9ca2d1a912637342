use super::*;

fn archive(dir: &Path, entries: &[(&str, &[u8])]) -> PathBuf {
    let path = dir.join("image.tar");
    let mut builder = tar::Builder::new(File::create(&path).unwrap());
    for (name, bytes) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *bytes).unwrap();
    }
    builder.finish().unwrap();
    path
}

#[test]
fn an_archive_tells_names_and_ids() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = br#"[{"Config":"abc.json","RepoTags":["a:1","b:2"],"Layers":[]}]"#;
    let path = archive(dir.path(), &[("abc.json", b"{}"), ("manifest.json", manifest)]);
    let found = images(&path).unwrap();
    let names: Vec<&str> = found.iter().map(|i| i.reference.as_str()).collect();
    assert_eq!(names, ["a:1", "b:2"]);
    assert_eq!(found[0].id, format!("sha256:{}", Digest::of(b"{}")));
    assert_eq!(found[0].archive.len, fs::metadata(&path).unwrap().len());
}

#[test]
fn the_pause_image_comes_with_kprov_or_is_missed_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let error = own_pause(dir.path()).unwrap_err().to_string();
    assert!(error.starts_with("the pause image: there is no file"), "{error}");
    assert!(error.ends_with("name an archive that holds it in `cluster.images`"), "{error}");
    fs::create_dir(dir.path().join("images")).unwrap();
    let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["{PAUSE_IMAGE}"]}}]"#);
    let made = archive(dir.path(), &[("c.json", b"{}"), ("manifest.json", manifest.as_bytes())]);
    fs::rename(made, dir.path().join(PAUSE_ARCHIVE)).unwrap();
    assert_eq!(own_pause(dir.path()).unwrap()[0].reference, PAUSE_IMAGE);
}

#[test]
fn what_is_no_archive_is_refused_with_the_reason() {
    let dir = tempfile::tempdir().unwrap();
    let check = |entries: &[(&str, &[u8])], expected: &str| {
        let error = images(&archive(dir.path(), entries)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&[("a", b"b")], "it has no manifest.json");
    check(&[("manifest.json", b"[")], "manifest.json: EOF");
    check(&[("manifest.json", br#"[{"Config":"x.json","RepoTags":["a:1"]}]"#)], "it has no x.json");
    check(
        &[("x.json", b"{}"), ("manifest.json", br#"[{"Config":"x.json","RepoTags":null}]"#)],
        "none of its images has a name",
    );
}

#[test]
fn missing_programs_are_told_with_a_hint() {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    let package = Some("etcd-server".to_owned());
    let file = ArtifactSource::File { path: at.join("etcd"), package };
    let error = program("etcd", &file, at, at).unwrap_err().to_string();
    assert!(error.ends_with("etcd; the package etcd-server brings it"), "{error}");
    let beside = ArtifactSource::Beside("hyperkube".to_owned());
    let error = program("hyperkube", &beside, at, at).unwrap_err().to_string();
    assert!(error.contains("put it beside kprov, or set `artifacts.hyperkube`"), "{error}");
    fs::write(at.join("hyperkube"), "program").unwrap();
    let blob = program("hyperkube", &beside, at, at).unwrap();
    assert_eq!((blob.sha256, blob.len), (Digest::of(b"program"), 7));
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again() {
    let dir = tempfile::tempdir().unwrap();
    let wanted = Digest::of(b"etcd");
    fs::write(dir.path().join(wanted.to_string()), "etcd").unwrap();
    // Nothing answers at this address: a fetch would fail.
    let blob = fetched("etcd", "https://127.0.0.1:1/etcd", wanted, dir.path()).unwrap();
    assert_eq!(blob.sha256, wanted);
    let other = Digest::of(b"other");
    let error = fetched("etcd", "https://127.0.0.1:1/etcd", other, dir.path()).unwrap_err();
    assert!(matches!(error, ArtifactError::Fetch { .. }), "{error}");
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 1, "a failed fetch leaves nothing behind");
}

#[test]
fn a_program_tells_its_version_wherever_its_note_stands() {
    let version = |bytes: &[u8], split: usize| {
        let (first, second) = bytes.split_at(split);
        let mut finder = NoteFinder::new(first.chain(second));
        let read = io::copy(&mut finder, &mut io::sink()).unwrap();
        assert_eq!(read, bytes.len() as u64);
        finder.version
    };
    let mut program = vec![1_u8; 70_000];
    program
        .extend_from_slice(b"\x01kprov-program-version=\x01kprov-program-version=v1.33.0+x\nrest");
    for split in 69_990..program.len() {
        assert_eq!(version(&program, split).as_deref(), Some("v1.33.0+x"), "{split}");
    }
    assert_eq!(version(b"\x01kprov-program-version=v1 2\n", 3), None, "a version has no blanks");
    assert_eq!(
        version(&[VERSION_NOTE, &[b'v'; 200], b"\n"].concat(), 0),
        None,
        "nor is it so long"
    );
    assert_eq!(version(b"\x01kprov-program-version=v1.33.0", 0), None, "it is cut");
}
