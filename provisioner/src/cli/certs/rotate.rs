//! `kprov certs rotate-ca`: stage by stage, each one an apply and a proof.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::connect::{Asking, connect, every_host};
use super::super::output::{Console, Failure};
use super::super::{ApplyArgs, Exit, Surroundings, apply, prepare};
use super::endpoints::{self, Served};
use super::{Opened, RotateArgs, Stage, failure};
use crate::execute::{Hosts, chain, in_parallel};
use crate::pki::{self, Rotation, RotationStage};
use crate::preflight::Problem;

/// Longest wait for a server to show a certificate of the new authority: a kubelet asks the cluster
/// for its own after it has started.
const PROOF_WAIT: Duration = Duration::from_secs(90);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(500);

const STAGES: &str = "\
1. trust: every component trusts the old authority and the new one
2. issue: the new authority signs, everything shows its certificates; service-account tokens of
   the old key and the new one are good
3. drop:  the old authority and the old service-account key are trusted no more
In each stage etcd members and masters restart one at a time, then nodes. Certificates and
kubeconfigs that were given away by hand, and service-account tokens that never end, stop working
with the third stage.";

pub(super) fn run(
    args: &RotateArgs,
    surroundings: &Surroundings,
    console: &Console,
) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.run.source, surroundings, console)?.existing()?;
    let access = opened.access();
    let known = pki::rotation(&access).map_err(|error| failure(&error))?;
    if !args.yes {
        let value = serde_json::json!({ "rotation": known });
        console.result(&value, || format!("{}{STAGES}\n", under_way(known.as_ref())))?;
        console.note("nothing was changed; say --yes to do this");
        return Ok(Exit::Ok);
    }
    let begun = pki::begin(&opened.inventory, &access, args.authority.into(), now());
    let mut rotation = begun.map_err(|error| failure(&error))?;
    loop {
        let stage = rotation.stage;
        console.note(&format!("stage {}", stage.word()));
        let whole = ApplyArgs::whole(args.run.clone());
        let exit = apply::run("certs rotate-ca", &whole, surroundings, console)?;
        if exit != Exit::Ok {
            console.note(&format!(
                "the rotation stays in stage {}; run the same command again to go on",
                stage.word()
            ));
            return Ok(exit);
        }
        if stage >= RotationStage::Issue {
            prove(args, &opened, surroundings)?;
            console.note("every port shows a certificate of the new authority");
        }
        let last = match args.stop_after {
            Some(Stage::Trust) => stage == RotationStage::Trust,
            Some(Stage::Issue) => stage == RotationStage::Issue,
            None => false,
        };
        if last {
            console.note("stopped as asked; the command without --stop-after goes on");
            return Ok(Exit::Ok);
        }
        match pki::advance(&access).map_err(|error| failure(&error))? {
            Some(next) => rotation = next,
            None => {
                console.note("done: the new authority has taken the old one's place");
                return Ok(Exit::Ok);
            }
        }
    }
}

fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}

fn under_way(rotation: Option<&Rotation>) -> String {
    match rotation {
        None => String::new(),
        Some(rotation) => {
            let titles: Vec<_> = rotation.to.keys().map(String::as_str).collect();
            let (titles, stage) = (titles.join(" and "), rotation.stage.word());
            format!("a rotation of {titles} is under way, in stage {stage}\n")
        }
    }
}

/// Makes sure that all servers of all hosts show certificates of the new authority.
fn prove(args: &RotateArgs, opened: &Opened, surroundings: &Surroundings) -> Result<(), Failure> {
    let (source, inventory) = (&args.run.source, &opened.inventory);
    let pki = prepare::certificates(source, surroundings, inventory, &opened.dir)?;
    let state_dir = &opened.dir;
    let asking = Asking { lock: None, force_unlock: false, source, surroundings, state_dir };
    let mut connected = connect(every_host(inventory), &asking);
    let servers = endpoints::all(inventory, &pki);
    let until = Instant::now() + PROOF_WAIT;
    let mut problems = std::mem::take(&mut connected.problems);
    problems.extend(unproven(&mut connected.hosts, &servers, source.parallel, until));
    if problems.is_empty() { Ok(()) } else { Err(Failure::Unfit(problems)) }
}

/// The servers that do not show a certificate of their authority by `until`.
fn unproven(hosts: &mut Hosts, servers: &[Served], at_once: usize, until: Instant) -> Vec<Problem> {
    let mut by_host: BTreeMap<&str, Vec<&Served>> = BTreeMap::new();
    for server in servers {
        by_host.entry(&server.host).or_default().push(server);
    }
    let asked: Vec<_> = hosts.iter_mut().collect();
    let answers = in_parallel(asked, at_once, |(name, host)| {
        let servers = by_host.get(name.as_str()).map_or(&[][..], Vec::as_slice);
        let mut problems = Vec::new();
        for server in servers {
            // Any answer over TLS will do: who may ask what is not the question here.
            while let Err(error) = host.get(&server.endpoint) {
                if Instant::now() < until {
                    std::thread::sleep(PAUSE);
                    continue;
                }
                problems.push(Problem {
                    host: name.clone(),
                    check: "served-certificate",
                    message: format!(
                        "the {} on port {} does not prove the new authority: {}",
                        server.kind,
                        server.endpoint.port,
                        chain(&error)
                    ),
                    advice: "see `kprov certs list`; run the same command again to go on"
                        .to_owned(),
                });
                break;
            }
        }
        problems
    });
    answers.into_iter().flatten().collect()
}
