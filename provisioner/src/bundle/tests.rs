use super::*;
use crate::inventory;
use crate::state::ImageState;

/// The first bytes of a program for 64-bit x86.
const PROGRAM: &[u8] = b"\x7fELF\x02\x01\0\0\0\0\0\0\0\0\0\0\x02\0\x3e\0 program";

struct Case {
    scratch: tempfile::TempDir,
    artifacts: Artifacts,
}

impl Case {
    fn new() -> Self {
        let scratch = tempfile::tempdir().unwrap();
        let blob = |name: &str, bytes: &[u8], architecture| {
            let source = scratch.path().join(name);
            fs::write(&source, bytes).unwrap();
            let (sha256, len) = (Digest::of(bytes), bytes.len() as u64);
            Blob { sha256, len, source, architecture, version: None }
        };
        let x86 = Some(Architecture::X86_64);
        let image = |reference: &str| ImageState {
            reference: reference.to_owned(),
            id: String::new(),
            archive: blob("images.tar", b"images", None),
        };
        let artifacts = Artifacts {
            hyperkube: blob("hyperkube", PROGRAM, x86),
            etcd: blob("etcd", b"etcd", x86),
            hyperkube_image: None,
            images: vec![image("a:1"), image("b:1")],
            packages: Vec::new(),
            repository_keys: BTreeMap::new(),
        };
        Self { scratch, artifacts }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    fn create(&self, packages: &[&str]) -> Result<Contents, BundleError> {
        let file = |name: &&str| {
            fs::write(self.path(name), name).unwrap();
            self.path(name)
        };
        let packages: Vec<_> = packages.iter().map(file).collect();
        create(&self.path("b.kbundle"), &self.artifacts, &packages, None)
    }

    fn open(&self) -> Result<Bundle, BundleError> {
        open(&self.path("b.kbundle"), &self.path("cache"))
    }

    /// Replaces bytes of the bundle by as many others.
    fn edit(&self, from: &[u8], to: &[u8]) {
        assert_eq!(from.len(), to.len());
        let path = self.path("b.kbundle");
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(from.len()).rposition(|window| window == from).unwrap();
        bytes[at..at + to.len()].copy_from_slice(to);
        fs::write(&path, bytes).unwrap();
    }
}

#[test]
fn what_is_packed_takes_the_place_of_the_inventorys_sources() {
    let case = Case::new();
    let contents = case.create(&["docker.io_1_amd64.deb", "libc6_2_all.deb"]).unwrap();
    assert_eq!(contents.architecture, Architecture::X86_64);
    let names: Vec<_> = contents.entries.iter().map(|entry| entry.name.as_str()).collect();
    let expected = ["hyperkube", "etcd", "images.tar", "docker.io_1_amd64.deb", "libc6_2_all.deb"];
    assert_eq!(names, expected);
    // Nothing but the bundle is left to read from.
    for name in ["hyperkube", "etcd", "images.tar"] {
        fs::remove_file(case.path(name)).unwrap();
    }
    let bundle = case.open().unwrap();
    let path = case.path("c.toml");
    let text = "[cluster]\nname = \"c\"\n[[hosts]]\nname = \"a\"\naddress = \"10.0.0.1\"\n\
                roles = [\"etcd\", \"master\", \"node\"]\n";
    fs::write(&path, text).unwrap();
    let inventory = bundle.instead_of_sources(&inventory::load(&path).unwrap());
    let ArtifactSource::File { path, .. } = &inventory.hyperkube else { panic!("no file") };
    assert_eq!(fs::read(path).unwrap(), PROGRAM);
    assert_eq!(fs::read(&inventory.cluster.images[0]).unwrap(), b"images");
    let packages: Vec<_> = bundle.packages.iter().map(|p| p.name.as_str()).collect();
    assert_eq!(packages, ["docker.io", "libc6"]);
}

#[test]
fn a_wrong_digest_is_refused_by_name() {
    let case = Case::new();
    case.create(&[]).unwrap();
    case.edit(b" program", b" PROGRAM");
    let error = case.open().unwrap_err();
    assert!(matches!(&error, BundleError::Digest { name, kind: EntryKind::Program, .. }
        if name == "hyperkube"));
    let wanted = Digest::of(PROGRAM).to_string();
    assert!(error.to_string().ends_with(&format!("the bundle says {wanted}")), "{error}");
    assert!(error.advice().starts_with("nothing was changed on any host"));
    // Nothing that is wrong is kept.
    assert!(!case.path("cache").join(wanted).exists());
}

#[test]
fn what_is_cut_or_of_another_version_or_more_than_it_says_is_refused() {
    let case = Case::new();
    let check = |expected: &str| {
        let error = crate::execute::chain(&case.open().unwrap_err());
        assert!(error.contains(expected), "{error}");
    };
    check("cannot read");
    case.create(&[]).unwrap();
    let whole = fs::read(case.path("b.kbundle")).unwrap();
    fs::write(case.path("b.kbundle"), &whole[..4096]).unwrap();
    check("is no usable bundle");
    fs::write(case.path("b.kbundle"), b"hello").unwrap();
    check("is no usable bundle");
    fs::write(case.path("b.kbundle"), &whole).unwrap();
    let own = format!("\"version\": \"{}\"", env!("CARGO_PKG_VERSION"));
    let other = own.replace(|c: char| c.is_ascii_digit(), "9");
    case.edit(own.as_bytes(), other.as_bytes());
    check("is for kprov 9");
    fs::write(case.path("b.kbundle"), &whole).unwrap();
    let digest = Digest::of(b"images").to_string();
    case.edit(format!("blobs/{digest}").as_bytes(), format!("blubs/{digest}").as_bytes());
    check("is no usable bundle");
}

#[test]
fn programs_and_packages_are_for_one_architecture() {
    let mut case = Case::new();
    let error = case.create(&["docker.io_1_arm64.deb"]).unwrap_err();
    let text = "docker.io_1_arm64.deb is for arm64, and the bundle is to be for x86_64";
    assert_eq!(error.to_string(), text);
    case.artifacts.etcd.architecture = Some(Architecture::Aarch64);
    let error = case.create(&[]).unwrap_err();
    assert_eq!(error.to_string(), "etcd is for aarch64, and the bundle is to be for x86_64");
    let error = case.create(&["notes.txt"]).unwrap_err();
    assert!(matches!(error, BundleError::Architecture { .. }));
    case.artifacts.etcd.architecture = None;
    assert!(matches!(case.create(&["notes.txt"]).unwrap_err(), BundleError::Package { .. }));
}
