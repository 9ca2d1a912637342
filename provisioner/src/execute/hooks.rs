//! The operator's own commands around the phases of a run.

use std::collections::BTreeSet;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::{Execution, Hosts, Progress, Report, in_parallel};
use crate::host::CommandEnd;
use crate::inventory::{Hook, HookMoment, HookPlace, Phase};
use crate::state::Stage;

/// What events of a hook on the operator's machine have for a host.
const OPERATOR: &str = "operator";

/// A longer output is cut: it is for a person to read.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;

/// How often a hook is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long output is waited for when the hook is dead: a process that it left behind may hold
/// the pipe for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Lines of output in an error.
const LINES_SHOWN: usize = 20;

impl Execution<'_> {
    /// Runs the hooks of one side of `phase`, in order; the first that fails ends the run.
    pub(super) fn hooks(
        &self,
        hosts: &mut Hosts,
        moment: HookMoment,
        phase: Phase,
        report: &mut Report,
    ) {
        let (hooks, _) = self.hooks;
        for hook in hooks.iter().filter(|hook| hook.moment == moment && hook.phase == phase) {
            let concerned = self.concerned(phase, report);
            let error = |name: &str| report.hosts.get(name).and_then(|o| o.error.as_ref());
            let spared = |name: &String| {
                error(name).is_none_or(|error| self.limits.allow_unreachable && error.is_lost())
            };
            // A hook after a phase may rely on its success.
            let due = moment == HookMoment::Before || concerned.iter().all(spared);
            let names: BTreeSet<_> =
                concerned.into_iter().filter(|name| error(name).is_none()).collect();
            if names.is_empty() || !due || self.halted(report, None).is_some() {
                return;
            }
            let began = Instant::now();
            self.observer.phase(&format!("hook {}", hook.name));
            let ended = match hook.on {
                HookPlace::Operator => self.on_operator(hook, &names),
                HookPlace::Hosts => self.on_chosen(hook, hosts, &names, report),
            };
            report.phases.push((format!("hook {}", hook.name), began.elapsed()));
            report.hook_failure = ended.err();
        }
    }

    /// The hosts that `phase` changes.
    fn concerned(&self, phase: Phase, report: &Report) -> BTreeSet<String> {
        let stage = match phase {
            Phase::Apply => None,
            Phase::Host => Some(Stage::HostPrep),
            Phase::Etcd => Some(Stage::Etcd),
            Phase::ControlPlane => Some(Stage::ControlPlane),
            Phase::Node => Some(Stage::Node),
        };
        let concerned = |name: &&String| {
            let plan = self.plan.host(name);
            plan.is_some_and(|plan| stage.is_none_or(|stage| plan.batches.contains_key(&stage)))
        };
        report.hosts.keys().filter(concerned).cloned().collect()
    }

    fn on_operator(&self, hook: &Hook, names: &BTreeSet<String>) -> Result<(), String> {
        self.observer.event(OPERATOR, &Progress::Hook(&hook.name));
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        let environment = [
            ("KPROV_CLUSTER", self.hooks.1.to_owned()),
            ("KPROV_PHASE", hook.phase.as_str().to_owned()),
            ("KPROV_HOSTS", names.join(" ")),
        ];
        let limit = hook.timeout.min(self.limits.deadline.duration_since(Instant::now()));
        let ended = local(&hook.command, &environment, limit, self.stop)
            .map_err(|error| format!("the hook {} cannot be run: {error}", hook.name))?;
        ended.output.lines().for_each(|l| self.observer.event(OPERATOR, &Progress::Output(l)));
        self.observer.event(OPERATOR, &Progress::Idle);
        judged(hook, OPERATOR, limit, &ended)
    }

    fn on_chosen(
        &self,
        hook: &Hook,
        hosts: &mut Hosts,
        names: &BTreeSet<String>,
        report: &Report,
    ) -> Result<(), String> {
        let alive =
            |name: &String| report.hosts.get(name).is_none_or(|outcome| outcome.error.is_none());
        let chosen: Vec<_> = (hosts.iter_mut())
            .filter(|(name, _)| match hook.hosts.is_empty() {
                true => names.contains(*name),
                false => hook.hosts.contains(*name),
            })
            .filter(|(name, _)| alive(name))
            .collect();
        let limit = hook.timeout.min(self.limits.deadline.duration_since(Instant::now()));
        let ends = in_parallel(chosen, self.limits.at_once, |(name, host)| {
            self.observer.event(name, &Progress::Hook(&hook.name));
            let ended = match host.command(&hook.command, limit) {
                Ok(ended) => {
                    let lines = ended.output.lines();
                    lines.for_each(|l| self.observer.event(name, &Progress::Output(l)));
                    judged(hook, name, limit, &ended)
                }
                Err(error) => {
                    Err(format!("the hook {} on {name}: {}", hook.name, super::chain(&error)))
                }
            };
            self.observer.event(name, &Progress::Idle);
            ended
        });
        ends.into_iter().collect()
    }
}

fn judged(hook: &Hook, place: &str, limit: Duration, ended: &CommandEnd) -> Result<(), String> {
    let name = &hook.name;
    let output = crate::facts::last_lines(&ended.output, LINES_SHOWN);
    let output: String = output.lines().map(|line| format!("\n    | {line}")).collect();
    match ended.code {
        Some(0) => Ok(()),
        Some(code) => Err(format!("the hook {name} failed on {place} (exit code {code}){output}")),
        None => Err(format!(
            "the hook {name} on {place} was killed: it ran longer than {} s{output}",
            limit.as_secs_f32()
        )),
    }
}

/// Runs a command on this machine, in a process group of its own, so that all of it can be killed.
fn local(
    command: &str,
    environment: &[(&str, String)],
    limit: Duration,
    stop: &AtomicBool,
) -> std::io::Result<CommandEnd> {
    let mut child = Command::new("sh")
        .args(["-c", &format!("exec 2>&1\n{command}")])
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()?;
    let output = child.stdout.take().expect("the child's output was asked to be a pipe");
    let (said, heard) = mpsc::channel();
    // Not joined: a process that outlives the hook may keep the pipe open.
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let mut output = output;
        let mut head = output.by_ref().take(OUTPUT_BYTES_MAX);
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = head.read(&mut piece) {
            bytes.extend_from_slice(&piece[..count]);
        }
        // The rest is read so that the hook does not block, and dropped.
        while matches!(output.read(&mut piece), Ok(1..)) {}
        _ = said.send(bytes);
    });
    let until = Instant::now() + limit;
    let code = loop {
        if let Some(status) = child.try_wait()? {
            break Some(status.code().unwrap_or(-1));
        }
        if Instant::now() >= until || stop.load(Ordering::Relaxed) {
            kill_group(&mut child);
            child.wait()?;
            break None;
        }
        std::thread::sleep(LOOK);
    };
    let bytes = heard.recv_timeout(LAST_WORDS).unwrap_or_default();
    Ok(CommandEnd { code, output: String::from_utf8_lossy(&bytes).into_owned() })
}

fn kill_group(child: &mut Child) {
    let group = format!("-{}", child.id());
    // The group's number is the child's, which is not reaped yet: it cannot be another's.
    let killed = Command::new("kill").args(["-KILL", "--", &group]).status();
    if !killed.is_ok_and(|status| status.success()) {
        _ = child.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_hangs_is_killed_with_all_that_it_started() {
        let stop = AtomicBool::new(false);
        let text = "echo begun; sleep 600 & echo $!; wait";
        let ended = local(text, &[], Duration::from_millis(200), &stop).unwrap();
        assert_eq!(ended.code, None);
        let mut lines = ended.output.lines();
        assert_eq!(lines.next(), Some("begun"));
        let pid = lines.next().unwrap();
        // The kernel may take a moment to bury what was killed.
        let is_dead = || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z")
        };
        assert!(
            (0..3000).any(|_| is_dead() || {
                std::thread::sleep(LOOK);
                false
            }),
            "process {pid} is still there"
        );
    }

    #[test]
    fn a_command_is_told_what_it_is_about_and_its_output_is_kept() {
        let stop = AtomicBool::new(false);
        let environment = [("KPROV_HOSTS", "n1 n2".to_owned())];
        let text = "echo $KPROV_HOSTS; echo bad >&2; exit 3";
        let ended = local(text, &environment, Duration::from_secs(60), &stop).unwrap();
        assert_eq!((ended.code, ended.output.as_str()), (Some(3), "n1 n2\nbad\n"));
    }

    #[test]
    fn an_interrupted_operator_does_not_wait_for_a_hook() {
        let stop = AtomicBool::new(true);
        let ended = local("sleep 600", &[], Duration::from_secs(600), &stop).unwrap();
        assert_eq!(ended.code, None);
    }
}
