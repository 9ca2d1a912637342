//! `KubeSchedulerConfiguration` files, YAML or JSON, for kube-scheduler's `--config`.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, ensure};
use scheduler::Configuration;
use serde_json::Value;

/// No configuration is larger; another file was meant.
const BYTES_MAX: u64 = 1 << 20;

/// Reads and checks a file.
pub(crate) fn load(path: &Path) -> anyhow::Result<Configuration> {
    let cannot = || format!("cannot read {}", path.display());
    let size = std::fs::metadata(path).with_context(cannot)?.len();
    ensure!(size <= BYTES_MAX, "{} has {size} bytes, which no configuration has", path.display());
    let text = std::fs::read_to_string(path).with_context(cannot)?;
    parse(&text).with_context(|| path.display().to_string())
}

pub(crate) fn parse(text: &str) -> anyhow::Result<Configuration> {
    let value: Value = serde_saphyr::from_str(text)?;
    Ok(Configuration::of(&value)?)
}

/// The file with everything that it leaves out.
pub(crate) fn complete(configuration: &Configuration) -> anyhow::Result<String> {
    Ok(serde_saphyr::to_string(configuration.complete())?)
}

/// Writes that file. It may hold keys of extenders: only its owner may read it.
pub(crate) fn write(path: &Path, configuration: &Configuration) -> anyhow::Result<()> {
    let text = complete(configuration)?;
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "apiVersion: kubescheduler.config.k8s.io/v1\n\
                        kind: KubeSchedulerConfiguration\n";

    #[test]
    fn yaml_and_json() {
        let yaml = format!("{HEAD}profiles:\n- schedulerName: pack\n");
        let json = r#"{"apiVersion": "kubescheduler.config.k8s.io/v1",
            "kind": "KubeSchedulerConfiguration", "profiles": [{"schedulerName": "pack"}]}"#;
        let [yaml, json] = [&yaml, json].map(|text| parse(text).unwrap().scheduler);
        assert_eq!(yaml, json);
        assert_eq!(yaml.profiles[0].name, "pack");
    }

    #[test]
    fn a_complete_file_means_the_same() {
        let text = format!(
            "{HEAD}podMaxBackoffSeconds: 30\nprofiles:\n- plugins:\n    score:\n      disabled:\n      \
             - name: ImageLocality\n"
        );
        let configuration = parse(&text).unwrap();
        let again = parse(&complete(&configuration).unwrap()).unwrap();
        assert_eq!(again.scheduler, configuration.scheduler);
        assert_eq!(again.scheduler.max_backoff_seconds, 30);
    }

    /// The examples of the manual are configurations, and say what the text says.
    #[test]
    fn the_examples_of_the_manual() {
        let manual = include_str!("../../../docs/scheduling.md");
        let blocks =
            manual.split("```yaml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
        let parsed: Vec<_> = blocks.map(|text| parse(text).unwrap().scheduler).collect();
        let [two, one, groups, extended] = &parsed[..] else { panic!("four examples") };
        let [spread, pack] = &two.profiles[..] else { panic!("two profiles") };
        assert_eq!(*spread, scheduler::ProfileConfig::default());
        assert_eq!((pack.name.as_str(), pack.weights["NodeResourcesFit"]), ("packing", 5));
        assert_eq!(pack.args.fit.scoring_strategy.kind, "MostAllocated");
        assert_eq!(one.profiles[0].name, "batch");
        assert_eq!(groups.profiles[0].args.coscheduling.permit_waiting_time_seconds, 120);
        assert_ne!(groups.profiles[0], scheduler::ProfileConfig::default());
        let [extender] = &extended.extenders[..] else { panic!("one extender") };
        assert_eq!((extender.weight, extender.timeout_milliseconds), (5, 500));
        assert!(extender.node_cache_capable && !extender.ignorable);
        for profile in [two, one, groups].into_iter().flat_map(|config| &config.profiles) {
            scheduler::Profile::new(profile).unwrap();
        }
    }

    #[test]
    fn mistakes_are_told_with_their_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler.yaml");
        let check = |text: &str, expected: &str| {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", load(&path).unwrap_err());
            assert!(error.contains(expected) && error.contains("scheduler.yaml"), "{error}");
        };
        check(
            &format!("{HEAD}profiles:\n- schedulerNam: x\n"),
            "strict decoding error: unknown field \"profiles[0].schedulerNam\"",
        );
        check(&format!("{HEAD}parallelism: 1\nparallelism: 2\n"), "parallelism");
        check(
            &format!("{HEAD}extenders:\n- urlPrefix: x\n"),
            "extenders[0].urlPrefix: Invalid value: \"x\"",
        );
        check("a: [", "line");
        check(&" ".repeat(2 << 20), "2097152 bytes");
        std::fs::remove_file(&path).unwrap();
        check_missing(&path);
    }

    fn check_missing(path: &Path) {
        let error = format!("{:#}", load(path).unwrap_err());
        assert!(error.starts_with("cannot read "), "{error}");
    }
}
