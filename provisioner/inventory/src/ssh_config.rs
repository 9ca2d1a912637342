//! The operator's own configuration of ssh, as far as kprov heeds it.
//!
//! Source: ssh_config(5) of OpenSSH. `Host` with patterns, `Include` and `Match all` are
//! understood, and of the settings those of [`Keyword`]; others are skipped. As there, the first
//! value that applies wins.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Files that include files, at most this deep: OpenSSH's own limit.
const DEPTH_MAX: usize = 16;

/// A configuration: settings with the conditions under which they apply, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SshConfig {
    settings: Vec<Setting>,
    /// What could not be heeded, one line each.
    pub(crate) notes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    /// All must hold: an included file is under the conditions of its place.
    when: Vec<Condition>,
    keyword: Keyword,
    value: String,
}

/// Patterns of a `Host` line; one of them must match, and none with `!`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Condition(Vec<String>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Keyword {
    HostName,
    User,
    Port,
    IdentityFile,
    IdentitiesOnly,
    ProxyJump,
    ProxyCommand,
    UserKnownHostsFile,
}

impl Keyword {
    fn of(text: &str) -> Option<Self> {
        Some(match text {
            "hostname" => Self::HostName,
            "user" => Self::User,
            "port" => Self::Port,
            "identityfile" => Self::IdentityFile,
            "identitiesonly" => Self::IdentitiesOnly,
            "proxyjump" => Self::ProxyJump,
            "proxycommand" => Self::ProxyCommand,
            "userknownhostsfile" => Self::UserKnownHostsFile,
            _ => return None,
        })
    }
}

/// What a configuration says about one host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct HostConfig {
    pub(crate) host_name: Option<String>,
    pub(crate) user: Option<String>,
    pub(crate) port: Option<u16>,
    /// All that apply, in order.
    pub(crate) identity_files: Vec<PathBuf>,
    pub(crate) identities_only: bool,
    /// Jump hosts from the operator's machine on, as they are written; empty for `none`.
    pub(crate) proxy_jump: Option<Vec<String>>,
    /// Whether a program is to make the connection, which kprov does not start.
    pub(crate) proxy_command: bool,
    pub(crate) user_known_hosts_file: Option<PathBuf>,
}

impl SshConfig {
    /// Reads the file at `path` and what it includes; `home` is what `~/` stands for.
    ///
    /// # Errors
    /// When `path` itself cannot be read.
    pub(crate) fn read(path: &Path, home: Option<&Path>) -> io::Result<Self> {
        let mut config = Self::default();
        let text = fs::read_to_string(path)?;
        config.take(path, &text, &[], home, 0);
        Ok(config)
    }

    fn take(
        &mut self,
        path: &Path,
        text: &str,
        outer: &[Condition],
        home: Option<&Path>,
        depth: usize,
    ) {
        let mut when = outer.to_vec();
        for (number, line) in text.lines().enumerate() {
            let Some((keyword, values)) = words(line) else { continue };
            let place = || format!("{}:{}", path.display(), number + 1);
            match keyword.as_str() {
                "host" => {
                    when = outer.to_vec();
                    when.push(Condition(values));
                }
                "match" => {
                    when = outer.to_vec();
                    if values.iter().map(|v| v.to_ascii_lowercase()).ne(["all".to_owned()]) {
                        let text = values.join(" ");
                        self.notes.push(format!("{}: `Match {text}` is not heeded", place()));
                        when.push(Condition(Vec::new()));
                    }
                }
                "include" => {
                    for value in &values {
                        if depth >= DEPTH_MAX {
                            self.notes.push(format!("{}: too many files deep", place()));
                            break;
                        }
                        for file in included(value, home) {
                            match fs::read_to_string(&file) {
                                Ok(text) => self.take(&file, &text, &when, home, depth + 1),
                                Err(error) => self.notes.push(format!(
                                    "{}: {}: {error}",
                                    place(),
                                    file.display()
                                )),
                            }
                        }
                    }
                }
                keyword => {
                    let Some(keyword) = Keyword::of(keyword) else { continue };
                    let value = values.join(" ");
                    self.settings.push(Setting { when: when.clone(), keyword, value });
                }
            }
        }
    }

    /// What holds for the host that goes by any of `names`; `address` and `user` are what it has
    /// where the configuration says nothing else.
    pub(crate) fn of(
        &self,
        names: &[&str],
        address: &str,
        user: &str,
        home: Option<&Path>,
    ) -> HostConfig {
        let mut seen = BTreeSet::new();
        let mut found = HostConfig::default();
        let mut identity_files = Vec::new();
        let mut known_hosts = None;
        for setting in &self.settings {
            let (keyword, value) = (setting.keyword, &setting.value);
            let applies = setting.when.iter().all(|condition| condition.holds(names));
            let again = keyword == Keyword::IdentityFile;
            if !applies || (!seen.insert(keyword) && !again) {
                continue;
            }
            match keyword {
                Keyword::HostName => found.host_name = Some(value.replace("%h", address)),
                Keyword::User => found.user = Some(value.clone()),
                Keyword::Port => found.port = value.parse().ok().filter(|port| *port != 0),
                Keyword::IdentityFile => identity_files.push(value.as_str()),
                Keyword::IdentitiesOnly => {
                    found.identities_only = value.eq_ignore_ascii_case("yes");
                }
                // Whichever comes first keeps the other from having an effect.
                Keyword::ProxyJump => {
                    let jumps = value.split(',').map(str::trim).filter(|jump| !jump.is_empty());
                    let jumps: Vec<_> = jumps.map(str::to_owned).collect();
                    let none = jumps.len() == 1 && jumps[0].eq_ignore_ascii_case("none");
                    if !found.proxy_command {
                        found.proxy_jump = Some(if none { Vec::new() } else { jumps });
                    }
                }
                Keyword::ProxyCommand => {
                    let none = value.eq_ignore_ascii_case("none");
                    found.proxy_command = !none && found.proxy_jump.is_none();
                }
                Keyword::UserKnownHostsFile => {
                    known_hosts = value.split_whitespace().next().map(str::to_owned);
                }
            }
        }
        let host = found.host_name.clone().unwrap_or_else(|| address.to_owned());
        let user = found.user.clone().unwrap_or_else(|| user.to_owned());
        let path = |text: &str| {
            let text = text.replace("%h", &host).replace("%r", &user);
            let text = text.replace("%n", names.first().unwrap_or(&address));
            let text = match home {
                Some(home) => text.replace("%d", &home.display().to_string()),
                None => text,
            };
            beneath(&text.replace("%%", "%"), home)
        };
        let is_none = |text: &str| text.eq_ignore_ascii_case("none");
        let files = identity_files.into_iter().filter(|text| !is_none(text));
        found.identity_files = files.map(path).collect();
        // Nowhere to keep keys is no reason to accept any: the cluster's own file is used then.
        let kept = known_hosts.filter(|text| !is_none(text) && text != "/dev/null");
        found.user_known_hosts_file = kept.map(|text| path(&text));
        found
    }
}

impl Condition {
    fn holds(&self, names: &[&str]) -> bool {
        let matches = |pattern: &str| {
            let pattern = pattern.to_ascii_lowercase();
            names.iter().any(|name| matches(&pattern, &name.to_ascii_lowercase()))
        };
        let (not, is): (Vec<_>, Vec<_>) = self.0.iter().partition(|text| text.starts_with('!'));
        is.iter().any(|text| matches(text)) && !not.iter().any(|text| matches(&text[1..]))
    }
}

/// Whether `pattern`, in which `*` stands for any text and `?` for any character, is `name`.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on when the text that the last `*` stands for has to be one longer.
    let mut star: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => (p, n) = (p + 1, n + 1),
            _ => match star {
                Some((at, from)) => {
                    star = Some((at, from + 1));
                    (p, n) = (at + 1, from + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

/// A line's keyword in small letters and its values, which may stand in quotes.
fn words(line: &str) -> Option<(String, Vec<String>)> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return None;
    }
    let end = line.find(|c: char| c.is_whitespace() || c == '=').unwrap_or(line.len());
    let (keyword, rest) = line.split_at(end);
    let rest = rest.trim_start();
    let mut rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let mut values = Vec::new();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (value, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => rest.split_once(char::is_whitespace).unwrap_or((rest, "")),
        };
        values.push(value.to_owned());
        rest = after.trim_start();
    }
    (!values.is_empty()).then(|| (keyword.to_ascii_lowercase(), values))
}

/// The files that an `Include` means, sorted; wildcards may stand in the last part of the path.
fn included(value: &str, home: Option<&Path>) -> Vec<PathBuf> {
    let path = beneath(value, home);
    let path = match home {
        Some(home) if path.is_relative() => home.join(".ssh").join(path),
        _ => path,
    };
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return Vec::new() };
    let name = name.to_string_lossy();
    if !name.contains(['*', '?']) {
        return if path.is_file() { vec![path] } else { Vec::new() };
    }
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let entries = entries.filter_map(Result::ok).map(|entry| entry.path());
    let fits = |path: &PathBuf| {
        path.file_name().is_some_and(|file| matches(&name, &file.to_string_lossy()))
            && path.is_file()
    };
    let mut files: Vec<_> = entries.filter(fits).collect();
    files.sort();
    files
}

fn beneath(text: &str, home: Option<&Path>) -> PathBuf {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str, names: &[&str]) -> HostConfig {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("config");
        fs::write(&path, text).unwrap();
        let config = SshConfig::read(&path, Some(home.path())).unwrap();
        config.of(names, "10.0.0.1", "root", Some(Path::new("/home/op")))
    }

    #[test]
    fn patterns_are_those_of_ssh() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("n?", "n1", true),
            ("n?", "n", false),
            ("n*b*", "nabab", true),
            ("n*c", "nabab", false),
            ("10.0.*.1", "10.0.7.1", true),
            ("a**b", "ab", true),
        ] {
            assert_eq!(matches(pattern, name), fits, "{pattern} {name}");
        }
    }

    #[test]
    fn the_first_value_that_applies_wins() {
        let text = "Host n1 !n2\n  User ops\n  Port=2222\n\nhost 10.0.0.*\n user \"other\"\n\
                    IdentityFile ~/.ssh/a\n  IdentityFile /keys/%h-%r\n# Port 1\nMatch all\nPort 1\n\
                    ProxyJump ops@b1:2200, b2\nIdentitiesOnly yes\n\
                    UserKnownHostsFile ~/.ssh/known ~/.ssh/more\n";
        let found = of(text, &["n1", "10.0.0.1"]);
        let expected = HostConfig {
            host_name: None,
            user: Some("ops".to_owned()),
            port: Some(2222),
            identity_files: vec!["/home/op/.ssh/a".into(), "/keys/10.0.0.1-ops".into()],
            identities_only: true,
            proxy_jump: Some(vec!["ops@b1:2200".to_owned(), "b2".to_owned()]),
            proxy_command: false,
            user_known_hosts_file: Some("/home/op/.ssh/known".into()),
        };
        assert_eq!(found, expected);
        assert_eq!(of(text, &["n2"]).user, None);
    }

    #[test]
    fn a_host_may_be_elsewhere_and_reached_without_a_jump() {
        let text = "Host n1\nHostName %h.example.com\nProxyJump none\nHost *\nProxyJump b\n\
                    UserKnownHostsFile /dev/null\n";
        let found = of(text, &["n1", "10.0.0.1"]);
        assert_eq!(found.host_name.as_deref(), Some("10.0.0.1.example.com"));
        assert_eq!(found.proxy_jump, Some(Vec::new()));
        assert_eq!(found.user_known_hosts_file, None);
        let found = of("Host *\nProxyCommand nc %h %p\nProxyJump b\n", &["n1"]);
        assert!(found.proxy_command && found.proxy_jump.is_none());
    }

    #[test]
    fn files_are_included_under_the_conditions_of_their_place() {
        let home = tempfile::tempdir().unwrap();
        let ssh = home.path().join(".ssh");
        fs::create_dir_all(ssh.join("d")).unwrap();
        fs::write(ssh.join("config"), "Host n*\nInclude d/*.conf\nHost *\nUser last\n").unwrap();
        fs::write(ssh.join("d/1.conf"), "Host n1\nUser first\n").unwrap();
        fs::write(ssh.join("d/2.conf"), "Port 22022\nInclude d/2.conf\nMatch user x\nPort 1\n")
            .unwrap();
        let config = SshConfig::read(&ssh.join("config"), Some(home.path())).unwrap();
        let of = |name: &str| {
            let found = config.of(&[name], name, "root", Some(home.path()));
            (found.user.unwrap(), found.port)
        };
        assert_eq!(of("n1"), ("first".to_owned(), Some(22022)));
        assert_eq!(of("n2"), ("last".to_owned(), Some(22022)));
        assert_eq!(of("m1"), ("last".to_owned(), None));
        // A file that includes itself ends, and is told of.
        assert!(config.notes.iter().any(|note| note.contains("too many files deep")));
        assert!(config.notes.iter().any(|note| note.contains("`Match user x`")));
    }
}
