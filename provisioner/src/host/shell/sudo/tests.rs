//! Against a script that asks as sudo does.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use super::super::{Stream, Sudo, Transport};
use super::*;
use crate::facts::FactsQuery;
use crate::host::local::Local;
use crate::host::shell::ShellHost;
use crate::host::{Host, HostError};

/// A lecture, three questions, and the command with what is left of the input.
const ASKS: &str = r#"#!/bin/sh
[ "$1 $2 $4" = "-S -p --" ] || exit 9
prompt=$3
shift 4
echo "With great power comes great responsibility."
for attempt in 1 2 3; do
    echo "$attempt" > "$0.attempts"
    printf %s "$prompt"
    IFS= read -r password || exit 1
    [ "$password" = "open sesame" ] && exec "$@"
    echo "Sorry, try again."
done
exit 1
"#;
/// As for a user with NOPASSWD.
const ASKS_NOT: &str = "#!/bin/sh\nshift 4\nexec \"$@\"\n";
const DENIES: &str = "#!/bin/sh\necho \"me is not in the sudoers file.\"\nexit 1\n";

/// This machine, with a program `sudo` of ours.
struct Asked {
    folder: tempfile::TempDir,
    password: Secret,
}

impl Asked {
    fn new(sudo: &str, password: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sudo");
        fs::write(&path, sudo).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder, password: Secret::new(password) }
    }
}

impl Transport for Asked {
    fn exec(&mut self, command: &str, silence_max: Duration) -> io::Result<Box<dyn Process>> {
        assert!(!command.contains(self.password.expose()), "everybody sees a process' arguments");
        let path = format!("PATH={}:$PATH", self.folder.path().display());
        Local { user: None }.exec(&format!("{path}; {command}"), silence_max)
    }

    fn connect(&mut self, _: &str, _: u16, _: Duration) -> io::Result<Box<dyn Stream>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn again(&self) -> Result<Self, HostError> {
        unreachable!("nothing is confirmed")
    }

    fn sudo(&self) -> Option<Sudo<'_>> {
        Some(Sudo { user: "me", password: Some(&self.password) })
    }
}

fn root_reads(sudo: &str, password: &str) -> (Result<String, io::Error>, String) {
    let mut asked = Asked::new(sudo, password);
    let folder = asked.folder.path().to_owned();
    let mut process = asked.exec(&command("cat"), Duration::from_secs(10)).unwrap();
    let answer = become_root(process.as_mut(), &asked.password).and_then(|()| {
        process.write_all(b"what is sent\n")?;
        process.end_input()?;
        let mut output = String::new();
        process.read_to_string(&mut output)?;
        Ok(output)
    });
    drop(process);
    (answer, fs::read_to_string(folder.join("sudo.attempts")).unwrap_or_default())
}

#[test]
fn the_password_is_sent_when_it_is_asked_for() {
    let (answer, attempts) = root_reads(ASKS, "open sesame");
    assert_eq!(answer.unwrap(), "what is sent\n");
    assert_eq!(attempts, "1\n");
}

#[test]
fn who_is_not_asked_sends_no_password() {
    let (answer, _) = root_reads(ASKS_NOT, "open sesame");
    assert_eq!(answer.unwrap(), "what is sent\n");
}

/// Somebody who tries all three times is soon locked out.
#[test]
fn a_wrong_password_is_tried_once() {
    let (answer, attempts) = root_reads(ASKS, "wrong");
    let told = answer.unwrap_err().to_string();
    assert!(told.contains("Sorry, try again.") && !told.contains("wrong"), "{told}");
    // The second question is asked, and not answered.
    assert_eq!(attempts, "2\n");
}

#[test]
fn a_refusal_names_the_user_and_the_way_out() {
    let ask = |sudo: &str, password: &str| {
        let mut host = ShellHost::new("n1", Asked::new(sudo, password));
        host.facts(&FactsQuery::default(), None).unwrap_err()
    };
    for error in [ask(DENIES, "open sesame"), ask(ASKS, "wrong")] {
        assert!(error.to_string().contains("does not take the password of me"), "{error}");
        assert!(error.advice().contains("--ask-sudo-password"), "{}", error.advice());
    }
}
