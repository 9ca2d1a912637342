//! The files by which a package manager knows a repository of the inventory.
//!
//! Only the facts tell a host's distribution, and so which files these are: [`settled`] adds them
//! to the desired state when both are known.

use std::borrow::Cow;

use crate::distribution::{Distribution, Family};
use crate::facts::{DockerFact, Facts};
use crate::state::{Content, FileState, HostState, Mode, Owner, RepositoryState};

const APT_LIST: &str = "/etc/apt/sources.list.d/kprov.list";
const APT_KEY: &str = "/etc/apt/keyrings/kprov.asc";
const YUM_REPO: &str = "/etc/yum.repos.d/kprov.repo";
const YUM_KEY: &str = "/etc/pki/rpm-gpg/RPM-GPG-KEY-kprov";

/// All files that a host of any distribution may get.
pub(crate) const FILES: [&str; 4] = [APT_KEY, APT_LIST, YUM_KEY, YUM_REPO];

/// The desired state with all that depends on the host's distribution.
///
/// The repository is there for the engine's packages: a host that has an engine of its own gets
/// no file.
pub(crate) fn settled<'a>(state: &'a HostState, facts: &Facts) -> Cow<'a, HostState> {
    let (Some(repository), Ok(distribution)) =
        (&state.engine.repository, Distribution::of(&facts.os))
    else {
        return Cow::Borrowed(state);
    };
    let installed = facts.record.as_ref().is_some_and(|record| !record.packages.is_empty());
    if !state.docker || !(installed || facts.docker == DockerFact::Absent) {
        return Cow::Borrowed(state);
    }
    let mut settled = state.clone();
    settled.files.extend(files(repository, distribution.family()));
    settled.files.sort_by(|a, b| a.path.cmp(&b.path));
    Cow::Owned(settled)
}

fn files(repository: &RepositoryState, family: Family) -> Vec<FileState> {
    let file = |path: &str, text: String| FileState {
        path: path.to_owned(),
        mode: Mode::PUBLIC,
        owner: Owner::root(),
        content: Content::Text(text),
    };
    let (list, key, text) = match family {
        Family::Debian => (APT_LIST, APT_KEY, apt(repository)),
        Family::RedHat => (YUM_REPO, YUM_KEY, yum(repository)),
    };
    let key = repository.key.as_ref().map(|text| file(key, text.clone()));
    key.into_iter().chain([file(list, text)]).collect()
}

fn apt(repository: &RepositoryState) -> String {
    let trust = match repository.key {
        Some(_) => format!("signed-by={APT_KEY}"),
        None => "trusted=yes".to_owned(),
    };
    // A repository without suites has its lists right at its address.
    let suite = match repository.suite.is_empty() {
        true => "./".to_owned(),
        false => repository.suite.join(" "),
    };
    format!("{MADE}deb [{trust}] {} {suite}\n", repository.url)
}

fn yum(repository: &RepositoryState) -> String {
    let trust = match repository.key {
        Some(_) => format!("gpgcheck=1\ngpgkey=file://{YUM_KEY}\n"),
        None => "gpgcheck=0\n".to_owned(),
    };
    let url = &repository.url;
    let head = "[kprov]\nname=Packages of the kprov inventory";
    format!("{MADE}{head}\nbaseurl={url}\nenabled=1\n{trust}")
}

const MADE: &str = "# Made by kprov; changes made here are overwritten.\n";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;

    fn state(key: Option<&str>, suite: &[&str]) -> HostState {
        let mut state = HostState::new("lab", "n1");
        state.docker = true;
        state.engine.repository = Some(RepositoryState {
            url: "https://packages.example/docker".to_owned(),
            suite: suite.iter().map(|word| (*word).to_owned()).collect(),
            key: key.map(str::to_owned),
        });
        state
    }

    fn shown(state: &HostState, id: &str, docker: DockerFact) -> String {
        let mut facts = Facts { docker, ..Facts::default() };
        facts.os.id = id.to_owned();
        let settled = settled(state, &facts);
        let text = |file: &FileState| match &file.content {
            Content::Text(text) => format!("{}\n{text}", file.path),
            other => panic!("{other:?}"),
        };
        settled.files.iter().map(text).collect()
    }

    #[test]
    fn each_family_has_its_own_files() {
        let signed = state(Some("KEY\n"), &["bookworm", "stable"]);
        insta::assert_snapshot!(shown(&signed, "debian", DockerFact::Absent), @r"
        /etc/apt/keyrings/kprov.asc
        KEY
        /etc/apt/sources.list.d/kprov.list
        # Made by kprov; changes made here are overwritten.
        deb [signed-by=/etc/apt/keyrings/kprov.asc] https://packages.example/docker bookworm stable
        ");
        insta::assert_snapshot!(shown(&state(None, &[]), "centos", DockerFact::Absent), @r"
        /etc/yum.repos.d/kprov.repo
        # Made by kprov; changes made here are overwritten.
        [kprov]
        name=Packages of the kprov inventory
        baseurl=https://packages.example/docker
        enabled=1
        gpgcheck=0
        ");
        let signed = shown(&signed, "rocky", DockerFact::Absent);
        assert!(signed.contains("gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/"), "{signed}");
    }

    #[test]
    fn a_host_with_an_engine_of_its_own_needs_no_repository() {
        assert_eq!(shown(&state(None, &[]), "debian", DockerFact::Stopped), "");
        let mut facts = Facts { docker: DockerFact::Stopped, ..Facts::default() };
        facts.os.id = "debian".to_owned();
        let mut record = Record::new("lab", "n1");
        record.packages.insert("docker-ce".to_owned());
        facts.record = Some(record);
        assert_eq!(settled(&state(None, &[]), &facts).files.len(), 1);
    }
}
