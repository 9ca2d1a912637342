//! Builds `ksim` for speed: once to see which of its code a run goes through, and again with that
//! in mind. What is left over of a large run is mostly waiting for code and data to arrive, so
//! where the code lies is worth a fifth of the time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, ensure};

/// What is run to see: a bit of everything, and faults with every check.
const TRAINING: [&[&str]; 2] = [
    &["run", "simulator/scenarios/training.toml", "--no-checks", "--quiet", "--output", "json"],
    &[
        "soak",
        "simulator/scenarios/faulty-5.toml",
        "--seeds",
        "20",
        "--threads",
        "1",
        "--no-shrink",
        "--output",
        "json",
    ],
];

/// Has mimalloc ask the system for large pages: a run looks at memory all over the place, and with
/// small ones waits for where they are as well. Nobody needs privileges or settings for that.
const ALLOCATOR: &str = "-DMI_DEFAULT_ALLOW_LARGE_OS_PAGES=1";

/// For the processor at hand: who builds is who runs.
const PROCESSOR: &str = "-Ctarget-cpu=native";

/// A build of `ksim` for speed.
pub(crate) struct Built {
    /// The program: `target/sim/ksim`.
    pub(crate) path: PathBuf,
    /// Whether it was laid out by a profile.
    pub(crate) guided: bool,
}

/// Builds `target/sim/ksim`; without LLVM's tool for profiles as rustc thinks best, and says so.
#[expect(clippy::print_stderr, reason = "it is for who waits for the build")]
pub(crate) fn build(root: &Path) -> anyhow::Result<Built> {
    let path = root.join("target/sim/ksim");
    let rustc = Rustc::ask()?;
    let Some(merge) = rustc.profdata() else {
        let major = rustc.llvm_major;
        eprintln!(
            "note: there is no llvm-profdata of LLVM {major}: ksim is built without a profile and \
             will be slower by a fifth; install the package llvm-{major} to have it all"
        );
        cargo(root, &[], None)?;
        return Ok(Built { path, guided: false });
    };
    let folder = root.join("target/pgo");
    let profile = folder.join("ksim.profdata");
    let watched = in_folder(root, &rustc, "generate", "-Cprofile-generate=target/pgo/raw")?;
    if changed(&profile).is_none_or(|profile| changed(&watched) > Some(profile)) {
        train(root, &watched, &folder.join("raw"))?;
        let merged = Command::new(merge)
            .args(["merge", "--output"])
            .args([&profile, &folder.join("raw")])
            .status()
            .context("cannot start llvm-profdata")?;
        ensure!(merged.success(), "llvm-profdata could not merge target/pgo/raw");
        // Cargo does not know what a profile says: it must see that the build is a new one.
        let old = folder.join("use");
        if old.exists() {
            std::fs::remove_dir_all(old).context("cannot remove target/pgo/use")?;
        }
    }
    let flag = format!("-Cprofile-use={}", profile.display());
    let built = in_folder(root, &rustc, "use", &flag)?;
    std::fs::create_dir_all(root.join("target/sim")).context("cannot create target/sim")?;
    std::fs::copy(&built, &path).context("cannot write target/sim/ksim")?;
    Ok(Built { path, guided: true })
}

/// Builds with a flag for rustc, in a folder of its own: each flag makes everything anew.
fn in_folder(root: &Path, rustc: &Rustc, name: &str, flag: &str) -> anyhow::Result<PathBuf> {
    let folder = format!("target/pgo/{name}");
    // With a target named, build scripts and macros are compiled without the flag.
    cargo(root, &["--target", &rustc.host, "--target-dir", &folder], Some(flag))?;
    Ok(root.join(folder).join(&rustc.host).join("sim/ksim"))
}

fn cargo(root: &Path, arguments: &[&str], flag: Option<&str>) -> anyhow::Result<()> {
    let mut build = Command::new("cargo");
    build.args(["build", "--profile", "sim", "--package", "simulator", "--bin", "ksim"]);
    build.args(arguments).current_dir(root);
    let flags = std::env::var("CFLAGS").unwrap_or_default();
    build.env("CFLAGS", format!("{flags} {ALLOCATOR}").trim());
    build.env("RUSTFLAGS", format!("{PROCESSOR} {}", flag.unwrap_or_default()).trim());
    let status = build.status().context("cannot start cargo")?;
    ensure!(status.success(), "ksim could not be built");
    Ok(())
}

/// Runs what there is to see, into an empty folder.
fn train(root: &Path, ksim: &Path, raw: &Path) -> anyhow::Result<()> {
    if raw.exists() {
        std::fs::remove_dir_all(raw).context("cannot empty target/pgo/raw")?;
    }
    for arguments in TRAINING {
        let output = Command::new(ksim)
            .args(arguments)
            .env("LLVM_PROFILE_FILE", raw.join("%m-%p.profraw"))
            .current_dir(root)
            .output()
            .with_context(|| format!("cannot start {}", ksim.display()))?;
        ensure!(
            output.status.success(),
            "ksim {} ended with {} and said: {}",
            arguments.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

fn changed(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|m| m.modified()).ok()
}

/// What the compiler says of itself.
struct Rustc {
    host: String,
    llvm_major: String,
    sysroot: PathBuf,
}

impl Rustc {
    fn ask() -> anyhow::Result<Self> {
        let said = |arguments: &[&str]| -> anyhow::Result<String> {
            let output =
                Command::new("rustc").args(arguments).output().context("cannot start rustc")?;
            ensure!(output.status.success(), "rustc {} failed", arguments.join(" "));
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let version = said(&["-vV"])?;
        let line = |name: &str| version.lines().find_map(|line| line.strip_prefix(name));
        let llvm = line("LLVM version: ").context("rustc does not say which LLVM it has")?;
        Ok(Self {
            host: line("host: ").context("rustc does not say where it runs")?.to_owned(),
            llvm_major: llvm.split('.').next().unwrap_or(llvm).to_owned(),
            sysroot: said(&["--print", "sysroot"])?.trim().into(),
        })
    }

    /// LLVM's tool for profiles, of the compiler's own version: others cannot read them.
    fn profdata(&self) -> Option<PathBuf> {
        let own = self.sysroot.join(format!("lib/rustlib/{}/bin/llvm-profdata", self.host));
        let named = PathBuf::from(format!("llvm-profdata-{}", self.llvm_major));
        [own, named].into_iter().find(|tool| {
            Command::new(tool).arg("--version").output().is_ok_and(|o| o.status.success())
        })
    }
}
