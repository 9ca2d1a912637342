//! A host that kprov works on.
//!
//! The trait is at the level of operations, so that an in-memory host ([`fake`]) understands the
//! very same plans as a real one. [`ssh`] and [`local`] speak one protocol (`shell`): scripts for a
//! POSIX shell with line answers.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::facts::{Facts, FactsError, FactsQuery, LockRequest};
use crate::plan::Upload;
use crate::state::Blob;
use crate::step::Step;

pub mod fake;
pub mod https;
mod key_file;
pub mod known_hosts;
pub mod local;
mod packing;
mod script;
mod shell;
pub mod ssh;

use script::GUARD_S;

pub use https::{HttpsAnswer, HttpsEndpoint};

/// One host; all calls block until they are done or their deadline has passed.
pub trait Host: Send {
    /// The host's name in the inventory.
    fn name(&self) -> &str;

    /// Gathers facts; with `lock`, takes the host's lock first and holds it until the host value
    /// is dropped or the program dies.
    ///
    /// # Errors
    /// When the host cannot be asked, refuses, or is locked by somebody else.
    fn facts(&mut self, query: &FactsQuery, lock: Option<&LockRequest>)
    -> Result<Facts, HostError>;

    /// Reads small text files; those that are not there are left out.
    ///
    /// # Errors
    /// When the host cannot be asked.
    fn read(&mut self, paths: &[String]) -> Result<BTreeMap<String, String>, HostError>;

    /// Sends bytes to the staging area and has them checked there. Needs the lock. `sent` is told
    /// how many bytes have travelled so far.
    ///
    /// # Errors
    /// When sending fails or the bytes do not arrive as they were.
    fn push(
        &mut self,
        uploads: &BTreeMap<Digest, Upload>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), HostError>;

    /// Runs steps in order and stops at the first that fails. Needs the lock.
    ///
    /// # Errors
    /// The failed step with its output, or the loss of the connection or the lock.
    fn run(&mut self, steps: &[Step], seen: &mut dyn FnMut(StepEvent<'_>))
    -> Result<(), HostError>;

    /// Asks an HTTPS endpoint as seen from the host.
    ///
    /// # Errors
    /// When there is no valid answer.
    fn get(&mut self, endpoint: &HttpsEndpoint) -> Result<HttpsAnswer, HostError>;

    /// Merges JSON into what an HTTPS endpoint holds, as seen from the host.
    ///
    /// # Errors
    /// When there is no valid answer.
    fn merge_patch(
        &mut self,
        endpoint: &HttpsEndpoint,
        json: &str,
    ) -> Result<HttpsAnswer, HostError>;

    /// Sends JSON to an HTTPS endpoint as seen from the host, and waits up to `patience` for each
    /// piece of the answer.
    ///
    /// # Errors
    /// When there is no valid answer.
    fn post(
        &mut self,
        endpoint: &HttpsEndpoint,
        json: &str,
        patience: Duration,
    ) -> Result<HttpsAnswer, HostError>;

    /// Sends JSON to an HTTPS endpoint and hands the body of a good answer on as it comes, however
    /// long it is.
    ///
    /// # Errors
    /// When the answer is not good, breaks off, or `sink` fails.
    fn download(
        &mut self,
        endpoint: &HttpsEndpoint,
        json: &str,
        sink: &mut dyn io::Write,
    ) -> Result<(), HostError>;

    /// The certificates (DER) that a server shows, its own first, whoever signed them and however
    /// old they are.
    ///
    /// # Errors
    /// When no TLS server answers.
    fn served(&mut self, endpoint: &HttpsEndpoint) -> Result<Vec<Vec<u8>>, HostError>;
    /// Deletes what an HTTPS endpoint holds, as seen from the host.
    ///
    /// # Errors
    /// When there is no valid answer.
    fn delete(&mut self, endpoint: &HttpsEndpoint) -> Result<HttpsAnswer, HostError>;

    /// Runs a command of the operator's as root and kills it, with all that it started, when
    /// `limit` has passed. Needs the lock.
    ///
    /// # Errors
    /// The loss of the connection or the lock; the command's own failure is none.
    fn command(&mut self, command: &str, limit: Duration) -> Result<CommandEnd, HostError>;

    /// Runs a measurement of `host-probe` and gives what it printed; sends the program first where
    /// the host does not have it. Needs no lock: nothing but a file below `/var/tmp` is written.
    ///
    /// # Errors
    /// When the program cannot be sent, or fails.
    fn probe(&mut self, probe: &Probe<'_>) -> Result<String, HostError>;

    /// Ends what [`Host::probe`] left running, and removes what it sent.
    ///
    /// # Errors
    /// When the host cannot be asked.
    fn end_probe(&mut self) -> Result<(), HostError>;

    /// Numbers the writes that follow: a host refuses those of a lower generation than it has
    /// seen. See [`crate::lock`].
    fn set_generation(&mut self, generation: u64);

    /// The last `lines` lines of a unit's journal.
    ///
    /// # Errors
    /// When the host cannot be asked.
    fn journal(&mut self, unit: &str, lines: u32) -> Result<String, HostError>;

    /// Kills the process that holds the host's lock, if there is one, and says who it was.
    ///
    /// # Errors
    /// When the host cannot be asked.
    fn break_lock(&mut self) -> Result<Option<String>, HostError>;
}

/// A measurement on a host.
#[derive(Debug, Clone, Copy)]
pub struct Probe<'a> {
    /// The program `hyperkube`.
    pub program: &'a Blob,
    /// Arguments of its `host-probe`.
    pub arguments: &'a [String],
    /// Whether it goes on after its first line, until its time is over or [`Host::end_probe`].
    pub stays: bool,
}

/// How a command of the operator's ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandEnd {
    /// Its exit code, `-1` for a signal; none when it was killed at its limit.
    pub code: Option<i32>,
    /// What it printed, on both of its outputs.
    pub output: String,
}

/// What [`Host::run`] tells while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepEvent<'a> {
    /// This step begins.
    Begin(&'a Step),
    /// Something that the operator should know and that is no failure.
    Note(&'a str),
}

/// Why an operation on a host failed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// This machine cannot be used as a host.
    #[error("cannot run commands on this machine")]
    Local(#[source] io::Error),
    /// No TCP connection.
    #[error("cannot connect to {address}")]
    Unreachable {
        /// Address and port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The connection is there, but SSH did not come up.
    #[error("the SSH handshake with {address} failed")]
    Handshake {
        /// Address and port.
        address: String,
        /// Why.
        #[source]
        source: ssh2::Error,
    },
    /// The host shows another key than the one it had.
    #[error("the host key of {address} has changed: known {known}, shown {shown}")]
    HostKeyChanged {
        /// Name in the known-hosts file.
        address: String,
        /// Fingerprint of the known key.
        known: String,
        /// Fingerprint of the shown key.
        shown: String,
        /// The known-hosts file.
        file: PathBuf,
    },
    /// The host shows another key than the inventory says.
    #[error(
        "the host key of {address} is not the one in the inventory: {pinned} there, shown {shown}"
    )]
    HostKeyNotPinned {
        /// Address and port.
        address: String,
        /// Fingerprint of the inventory's key.
        pinned: String,
        /// Fingerprint of the shown key.
        shown: String,
    },
    /// A host that connections go through cannot be used.
    #[error("cannot go through the jump host {jump}")]
    Jump {
        /// User, address and port.
        jump: String,
        /// Why; the same for all hosts behind it.
        #[source]
        source: Arc<Self>,
    },
    /// A key file cannot be decrypted.
    #[error("the passphrase of {path} is wrong")]
    Passphrase {
        /// The private key.
        path: PathBuf,
    },
    /// The strict policy knows no key of this host.
    #[error("no host key of {address} is known, and it shows {shown}")]
    HostKeyUnknown {
        /// Name in the known-hosts file.
        address: String,
        /// Fingerprint of the shown key.
        shown: String,
        /// The known-hosts file.
        file: PathBuf,
    },
    /// The known-hosts file cannot be used.
    #[error("cannot use the known-hosts file {file}")]
    KnownHosts {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// No key was accepted.
    #[error("{user}@{address} accepted none of: {tried}")]
    Authentication {
        /// The user.
        user: String,
        /// Address and port.
        address: String,
        /// What was tried, and how each attempt failed.
        tried: String,
    },
    /// The user may not become root without a password.
    #[error("{user} cannot become root without a password: {output}")]
    Sudo {
        /// The user.
        user: String,
        /// What sudo said.
        output: String,
    },
    /// sudo did not take the password.
    #[error("sudo on the host does not take the password of {user}: {output}")]
    SudoPassword {
        /// The user.
        user: String,
        /// What sudo said.
        output: String,
    },
    /// The facts were refused or incomplete.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// The connection broke or fell silent.
    #[error("the connection was lost while trying to {doing}")]
    Lost {
        /// What was being done.
        doing: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Bytes to send cannot be read here.
    #[error("cannot read {path}")]
    Source {
        /// The file on the operator's machine.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Somebody else took the lock.
    #[error("another run has taken over this host's lock")]
    LockLost,
    /// A step failed.
    #[error("could not {step} (exit code {code}){}", indented(.output))]
    Step {
        /// What was being done.
        step: String,
        /// Exit code of its command.
        code: i32,
        /// The last lines of its output.
        output: String,
        /// The unit whose journal may say more.
        unit: Option<String>,
    },
    /// A changed firewall keeps new connections out.
    #[error(
        "no new connection is possible since the firewall was changed: the host takes the change \
         back within {GUARD_S} s"
    )]
    ShutOut {
        /// How the new connection failed.
        #[source]
        source: Box<Self>,
    },
    /// An HTTPS endpoint did not answer as it should.
    #[error("no valid answer from https://{endpoint}")]
    Https {
        /// Address, port and path.
        endpoint: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn indented(output: &str) -> String {
    output.lines().map(|line| format!("\n    | {line}")).collect()
}

impl HostError {
    /// What the operator can do about it.
    #[must_use]
    pub fn advice(&self) -> String {
        match self {
            Self::Local(_) => "check that the program id can be run".to_owned(),
            Self::Unreachable { source, .. } if source.to_string().contains("prohibited") => {
                "allow it on the jump host: AllowTcpForwarding and PermitOpen in its sshd_config"
                    .to_owned()
            }
            Self::Unreachable { .. } => {
                "check that the host is up, its address and port, and firewalls between".to_owned()
            }
            Self::Handshake { .. } => {
                "check that an SSH server answers there; one that is slow may be short of entropy \
                 or have too many logins under way (MaxStartups): see connect_timeout_s in [ssh]"
                    .to_owned()
            }
            Self::HostKeyChanged { address, file, .. } => format!(
                "if the host was reinstalled, remove the line of {address} from {} and apply again; \
                 if not, somebody may be in between",
                file.display()
            ),
            Self::HostKeyNotPinned { .. } => {
                "if the host was reinstalled, compare the shown fingerprint on its console and \
                 change `host_key` in the inventory; if not, somebody may be in between"
                    .to_owned()
            }
            Self::Jump { source, .. } => source.advice(),
            Self::Passphrase { .. } => {
                "correct KPROV_SSH_PASSPHRASE, type it again, or add the key to the agent with \
                 ssh-add"
                    .to_owned()
            }
            Self::HostKeyUnknown { address, file, .. } => format!(
                "compare the fingerprint on the host's console, then add the key: \
                 ssh-keyscan {address} >> {}",
                file.display()
            ),
            Self::KnownHosts { .. } => "check that the file can be read and written".to_owned(),
            Self::Authentication { .. } => {
                "check the user and the key of the inventory's [ssh] section, and the user's \
                 authorized_keys on the host"
                    .to_owned()
            }
            Self::Sudo { user, .. } => {
                format!(
                    "allow it on the host: echo '{user} ALL=(ALL) NOPASSWD: ALL' \
                         > /etc/sudoers.d/{user}; or give the password: --ask-sudo-password, or \
                         KPROV_SUDO_PASSWORD"
                )
            }
            Self::SudoPassword { user, .. } => format!(
                "give the right one by --ask-sudo-password or KPROV_SUDO_PASSWORD, and see that \
                 {user} is in the host's /etc/sudoers"
            ),
            Self::Facts(FactsError::Locked { .. }) => {
                "wait for the other run; if its operator is gone for good, use kprov unlock"
                    .to_owned()
            }
            Self::Facts(FactsError::Busy) => "wait for it, then try again".to_owned(),
            Self::Facts(_) => {
                "run the same command with -vv to see all that the host said".to_owned()
            }
            Self::Lost { .. } => {
                "apply again: what was done is kept, what was not will be done".to_owned()
            }
            Self::Source { .. } => {
                "the file changed or vanished since the plan; apply again".to_owned()
            }
            Self::LockLost => {
                "find out who runs kprov on this cluster, then apply again".to_owned()
            }
            Self::Step { unit: Some(unit), .. } => {
                format!("see journalctl -u {unit} on the host, then apply again")
            }
            Self::Step { .. } => "correct it on the host, then apply again".to_owned(),
            Self::ShutOut { .. } => {
                "see what the host's firewall says about SSH; with `firewall = \"none\"` in \
                 [system] kprov leaves it alone"
                    .to_owned()
            }
            Self::Https { .. } => "see the unit's journal on the host".to_owned(),
        }
    }
}
