//! [`ContainerRuntime`]: a model of the container runtime of one node, for simulated and hollow
//! nodes.
//!
//! It stands where the shell and Docker stand in production: it is given the kubelet's
//! [`RuntimeRequest`]s and gives back [`RuntimeInput`]s, in one total order. It knows nothing of
//! the API. What a container does, its arguments say (see [`ContainerRuntime`]).

mod addresses;
mod agenda;
mod behaviour;
mod container;
mod containers;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::runtime::{ContainerRecord, ContainerState, ImageRecord, NodeFacts, ProbeAction};
use crate::runtime::{ProbeOutcome, RuntimeInput, RuntimeReply, RuntimeRequest};
use crate::{Labels, RuntimeError, RuntimeErrorKind, RuntimeEvent};
use api::{Time, hash, uid};
use machine::CallId;

use addresses::Addresses;
use agenda::{Action, Agenda, Due};
use behaviour::Behaviour;
use container::Container;
use containers::Containers;

pub use container::ContainerSummary;

/// How long the runtime takes; nanoseconds.
pub trait Durations {
    /// Creating and starting a pause container.
    fn sandbox_start(&mut self) -> u64;
    /// Creating and starting a container whose image is there.
    fn container_start(&mut self) -> u64;
    /// From the signal that asks a container to end until it has ended. The container obeys
    /// `obeys_after` nanoseconds after the signal (`u64::MAX`: never), and is killed after
    /// `grace_seconds`.
    fn stop(&mut self, grace_seconds: u32, obeys_after: u64) -> u64;
    /// Fetching an image that is not there.
    fn pull(&mut self, image: &str) -> u64;
    /// Everything else: looking something up, removing, writing volumes, a probe's connection.
    fn other(&mut self) -> u64;
}

/// What a node's hardware offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeShape {
    /// CPUs.
    pub cpus: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Bytes of disk.
    pub disk_bytes: u64,
}

/// Every image is this large; what it costs to fetch is for [`Durations::pull`] to say.
const IMAGE_BYTES: u64 = 64 << 20;
/// How a container ended that was killed.
const KILLED: i32 = 137;
/// How a container ended that died with its host, as Docker says it afterwards.
const DIED_WITH_HOST: i32 = 255;
/// Never: what nobody answers is due then.
const NEVER: Time = Time(u64::MAX);

/// The folder of a pod.
#[derive(Clone)]
struct Folder {
    begin: u64,
    uid: Box<str>,
}

#[derive(Clone)]
struct Image {
    name: Arc<str>,
    /// Its identity, as the API shows it.
    shown: Arc<str>,
    pulled: bool,
}

/// The container runtime of one node.
///
/// A container's arguments say what it does; a duration is an integer with `ns`, `us`, `ms`, `s`,
/// `m` or `h`, or several of them (`1m30s`). Other arguments mean nothing.
///
/// | argument             | meaning                                                            |
/// |----------------------|--------------------------------------------------------------------|
/// | `--run=600s`         | it ends by itself after that time, with the code of `--exit`       |
/// | `--exit=1`           | the exit code, 0 if not given                                      |
/// | `--crash-after=30s`  | it ends after that time with 1                                     |
/// | `--oom-after=30s`    | the kernel kills it after that time for want of memory             |
/// | `--ready-after=5s`   | probes fail before                                                 |
/// | `--hang-after=1m`    | probes fail from then on, each after its timeout                   |
/// | `--stop-after=3s`    | it needs that long to end when it is asked to                      |
/// | `--ignore-term`      | it does not end when it is asked to                                |
///
/// Without arguments it runs until it is stopped; it then exits with 0, or 137 when it was killed.
/// All probes of a container succeed or fail alike: a runtime does not know what one is for.
///
/// Unlike Docker it tells of a container only when it ends by itself: that one started, was
/// stopped or removed is said by the reply alone.
#[derive(Clone)]
pub struct ContainerRuntime {
    shape: NodeShape,
    devices: BTreeMap<String, u64>,
    ids: u64,
    /// The number that the next container gets.
    next_container: u32,
    boots: u32,
    up: bool,
    containers: Containers,
    images: Vec<Image>,
    /// In order.
    folders: Vec<Folder>,
    addresses: Addresses,
    agenda: Agenda,
}

impl ContainerRuntime {
    /// A runtime that is up and has nothing; its first news is that it is connected.
    ///
    /// Pods get addresses of the range that `EnsureNetwork` names, and of `10.ip_prefix.0.0/16`
    /// before. `seed_of_ids` is part of all identifiers: nodes with different ones have no
    /// container identifier in common.
    pub fn new(shape: NodeShape, ip_prefix: u8, seed_of_ids: u64) -> Self {
        let mut runtime = Self {
            shape,
            devices: BTreeMap::new(),
            ids: seed_of_ids,
            next_container: 1,
            boots: 1,
            up: true,
            containers: Containers::default(),
            images: Vec::new(),
            folders: Vec::new(),
            addresses: Addresses::new(ip_prefix),
            agenda: Agenda::default(),
        };
        runtime.connect(Time::ZERO);
        runtime
    }

    /// Says how many devices the node has, by the name of their extended resource.
    pub fn set_devices(&mut self, devices: BTreeMap<String, u64>) {
        self.devices = devices;
    }

    /// Takes a request at `now`; it fails with `fail` if that is given. Returns when its reply is
    /// due: never when the host is down. The reply comes earlier when what it waits for happens
    /// earlier (two stops of one container), so ask [`ContainerRuntime::next_due`] what is next.
    pub fn request(
        &mut self,
        now: Time,
        id: CallId,
        request: RuntimeRequest,
        durations: &mut dyn Durations,
        fail: Option<RuntimeError>,
    ) -> Time {
        if !self.up {
            return NEVER;
        }
        let (takes, action) = self.begin(now, request, durations, fail);
        let at = Time(now.0.saturating_add(takes));
        self.agenda.add(at, Due::Reply { to: Some(id), action: Box::new(action) });
        at
    }

    /// Appends what is due at `now`, in order. What happens in it happened at its own time.
    pub fn due(&mut self, now: Time, out: &mut Vec<RuntimeInput>) {
        while let Some((at, due)) = self.agenda.pop(now) {
            match due {
                Due::Connected => out.push(RuntimeInput::Event(RuntimeEvent::Connected)),
                Due::Exit { container } => out.extend(self.exit(at, container)),
                Due::Reply { to, action } => {
                    let result = self.finish(at, *action);
                    out.extend(to.map(|id| RuntimeInput::Reply { id, result }));
                }
            }
        }
    }

    /// When [`ContainerRuntime::due`] has something; `None` when only a request can change
    /// anything.
    pub fn next_due(&self) -> Option<Time> {
        self.agenda.first()
    }

    /// Whether a container that runs will end by itself after `time`.
    pub fn exits_after(&self, time: Time) -> bool {
        let runs = |number: u32| {
            self.containers.find(number).is_some_and(|c| c.state == ContainerState::Running)
        };
        self.agenda.exits_after(time).any(runs)
    }

    /// Whether the kubelet waits for something that will not be done before `time`.
    pub fn works_after(&self, time: Time) -> bool {
        self.agenda.owes_after(time)
    }

    /// The host stops at once: containers die, nothing is answered. Images, pod folders and dead
    /// containers stay on its disk.
    pub fn crash(&mut self) {
        self.up = false;
        self.agenda = Agenda::default();
        for container in self.containers.iter_mut() {
            if container.state == ContainerState::Running {
                container.state = ContainerState::Exited;
                container.exit_code = DIED_WITH_HOST;
                container.finished_at = Time::ZERO;
                self.addresses.free(container.ip);
            }
        }
    }

    /// The host boots: what ran has ended, and the runtime says that it is connected.
    pub fn restart(&mut self, now: Time) {
        self.crash();
        self.up = true;
        self.boots = self.boots.saturating_add(1);
        self.addresses.forget_range();
        for container in self.containers.iter_mut() {
            if container.state == ContainerState::Exited && container.finished_at == Time::ZERO {
                container.finished_at = now;
            }
        }
        self.connect(now);
    }

    /// Another kubelet process connects: what the last one asked for is carried out and nobody
    /// is told; the new one hears that it is connected.
    pub fn connect(&mut self, now: Time) {
        self.agenda.forget_callers();
        if self.up {
            self.agenda.add(now, Due::Connected);
        }
    }

    /// Makes an image present that nobody fetched.
    pub fn load_image(&mut self, image: &str) {
        let index = self.image(image);
        self.images[index as usize].pulled = true;
    }

    /// Every container, pause containers among them, in the order in which they were made.
    pub fn containers(&self) -> impl Iterator<Item = ContainerSummary<'_>> {
        self.containers.iter().map(Container::summary)
    }

    // --- requests ---------------------------------------------------------------------------

    /// What a request begins now, how long it takes and what remains to be done then.
    fn begin(
        &mut self,
        now: Time,
        request: RuntimeRequest,
        durations: &mut dyn Durations,
        fail: Option<RuntimeError>,
    ) -> (u64, Action) {
        match request {
            RuntimeRequest::StartSandbox(spec) => {
                let ip = if spec.host_network { Ok(0) } else { self.free_address() };
                let labels = spec.labels;
                let takes = durations.sandbox_start();
                match ip {
                    Ok(ip) => {
                        let image = self.image(&spec.image);
                        (takes, self.create(now, labels, image, ip, None, fail))
                    }
                    Err(error) => (takes, Action::Fail(error)),
                }
            }
            RuntimeRequest::StartContainer(spec) => {
                let takes = durations.container_start();
                let refused = self.refusal(&spec.sandbox_id, &spec.image);
                match (Behaviour::parse(spec.args.as_deref().unwrap_or_default()), refused) {
                    (_, Some(error)) => (takes, Action::Fail(error)),
                    (Err(why), None) => (takes, Action::Fail(error(RuntimeErrorKind::Start, why))),
                    (Ok(behaviour), None) => {
                        let image = self.image(&spec.image);
                        // It has files of its own there.
                        self.make_folder(spec.pod_folder.rsplit('/').next().unwrap_or_default());
                        let labels = spec.labels;
                        (takes, self.create(now, labels, image, 0, behaviour, fail))
                    }
                }
            }
            RuntimeRequest::Stop { id, grace_seconds } => {
                self.begin_stop(&id, grace_seconds, durations, fail)
            }
            RuntimeRequest::Probe { container_id, action, timeout_seconds } => {
                let (takes, mut outcome) = self.begin_probe(now, &container_id, &action, durations);
                let timeout = u64::from(timeout_seconds).saturating_mul(1_000_000_000);
                if takes > timeout {
                    outcome = Err("context deadline exceeded");
                }
                let action = match fail {
                    Some(error) => Action::Fail(error),
                    None => Action::Probe(ProbeOutcome {
                        success: outcome.is_ok(),
                        output: outcome.err().unwrap_or_default().to_owned(),
                    }),
                };
                (takes.min(timeout), action)
            }
            RuntimeRequest::PullImage { image } => {
                let index = self.image(&image);
                let pulled = self.images[index as usize].pulled;
                // A fetch of what is there only asks whether it is current.
                let takes = if pulled { durations.other() } else { durations.pull(&image) };
                (takes, fail.map_or(Action::Pull(index), Action::Fail))
            }
            other => (durations.other(), fail.map_or_else(|| self.simple(other), Action::Fail)),
        }
    }

    fn simple(&mut self, request: RuntimeRequest) -> Action {
        match request {
            RuntimeRequest::List => Action::List,
            RuntimeRequest::ReadFacts => Action::Facts,
            RuntimeRequest::Inspect { id } => Action::Inspect(self.number(&id)),
            RuntimeRequest::Remove { id } => Action::Remove(self.number(&id)),
            RuntimeRequest::InspectImage { image } => Action::InspectImage(self.image(&image)),
            RuntimeRequest::EnsureNetwork { pod_cidr } => Action::Network(pod_cidr.into()),
            RuntimeRequest::PrepareVolumes { folder, .. } => {
                Action::MakeFolder(folder.rsplit('/').next().unwrap_or_default().into())
            }
            RuntimeRequest::RemovePod { containers, uid } => {
                let numbers = containers.iter().filter_map(|id| self.number(id)).collect();
                Action::RemovePod(numbers, uid.into())
            }
            // Volumes hold nothing here: there is no folder of that name.
            RuntimeRequest::RemovePodFolder { uid: name }
            | RuntimeRequest::RemoveLocalVolume { name } => Action::RemoveFolder(name.into()),
            RuntimeRequest::StartSandbox(_)
            | RuntimeRequest::StartContainer(_)
            | RuntimeRequest::Stop { .. }
            | RuntimeRequest::Probe { .. }
            | RuntimeRequest::PullImage { .. } => unreachable!("they have an arm of their own"),
        }
    }

    /// Why a container cannot be made, if so.
    fn refusal(&self, sandbox: &str, image: &str) -> Option<RuntimeError> {
        let there = self.images.iter().any(|i| *i.name == *image && i.pulled);
        if !there {
            let message = format!("No such image: {image}");
            return Some(error(RuntimeErrorKind::Create, message));
        }
        let joined = self.number(sandbox).and_then(|n| self.containers.find(n));
        if joined.is_none_or(|c| c.state != ContainerState::Running) {
            let message = format!("cannot join network of a non running container: {sandbox}");
            return Some(error(RuntimeErrorKind::Start, message));
        }
        None
    }

    fn free_address(&self) -> Result<u32, RuntimeError> {
        self.addresses.next().ok_or_else(|| {
            let message = "no available IPv4 addresses on this network's address pools".to_owned();
            error(RuntimeErrorKind::Start, message)
        })
    }

    fn create(
        &mut self,
        now: Time,
        labels: Labels,
        image: u32,
        ip: u32,
        behaviour: Option<Box<Behaviour>>,
        fail: Option<RuntimeError>,
    ) -> Action {
        // What is left over from an attempt that was interrupted has the same name.
        if let Some(old) = self.containers.labelled(&labels) {
            self.remove(now, old);
        }
        let number = self.next_container;
        self.next_container += 1;
        self.addresses.take(ip);
        self.containers.push(Container::new(number, labels, image, ip, behaviour, now));
        match fail {
            None => Action::Start(number),
            Some(error) => Action::FailStart(number, error),
        }
    }

    fn begin_stop(
        &self,
        id: &str,
        grace_seconds: u32,
        durations: &mut dyn Durations,
        fail: Option<RuntimeError>,
    ) -> (u64, Action) {
        if let Some(error) = fail {
            return (durations.other(), Action::Fail(error));
        }
        let number = self.number(id);
        let running = number
            .and_then(|n| self.containers.find(n))
            .filter(|c| c.state == ContainerState::Running);
        let Some(container) = running else {
            return (durations.other(), Action::Inspect(number));
        };
        let obeys_after = container.behaviour.as_ref().map_or(0, |b| b.obeys_after);
        let killed = obeys_after >= u64::from(grace_seconds).saturating_mul(1_000_000_000);
        let exit_code = if killed { KILLED } else { 0 };
        let takes = durations.stop(grace_seconds, obeys_after);
        (takes, Action::Stop { container: container.number, exit_code })
    }

    /// How long a probe's attempt takes, and how it ends.
    fn begin_probe(
        &self,
        now: Time,
        id: &str,
        action: &ProbeAction,
        durations: &mut dyn Durations,
    ) -> (u64, Result<(), &'static str>) {
        let takes = durations.other();
        if let ProbeAction::Sleep { seconds } = action {
            let slept = u64::from(*seconds).saturating_mul(1_000_000_000);
            return (takes.saturating_add(slept), Ok(()));
        }
        let container = self.number(id).and_then(|n| self.containers.find(n));
        let Some(container) = container.filter(|c| c.state == ContainerState::Running) else {
            return (takes, Err("connection refused"));
        };
        let Some(behaviour) = &container.behaviour else { return (takes, Ok(())) };
        let age = u64::try_from(now.since(container.started_at).as_nanos()).unwrap_or(u64::MAX);
        if age >= behaviour.hang_after {
            (u64::MAX, Ok(()))
        } else if age < behaviour.ready_after {
            (takes, Err("connection refused"))
        } else {
            (takes, Ok(()))
        }
    }

    // --- replies ----------------------------------------------------------------------------

    /// Carries out what a request comes to at the time of its reply.
    fn finish(&mut self, at: Time, action: Action) -> Result<RuntimeReply, RuntimeError> {
        match action {
            Action::Fail(error) => return Err(error),
            Action::FailStart(number, error) => {
                self.remove(at, number);
                return Err(error);
            }
            Action::Start(number) => {
                self.start(at, number);
                return Ok(self.reply(Some(number)));
            }
            Action::Inspect(number) => return Ok(self.reply(number)),
            Action::Stop { container, exit_code } => {
                self.end(at, container, exit_code);
                return Ok(self.reply(Some(container)));
            }
            Action::List => {
                return Ok(RuntimeReply::Listing {
                    containers: self.containers.iter().map(|c| self.record(c)).collect(),
                    folders: self.folders.iter().map(|f| f.uid.to_string()).collect(),
                });
            }
            Action::Facts => return Ok(RuntimeReply::Facts(Box::new(self.facts()))),
            Action::Probe(outcome) => return Ok(RuntimeReply::Probe(outcome)),
            Action::InspectImage(image) => {
                return Ok(RuntimeReply::Image(self.image_record(image)));
            }
            Action::Pull(image) => {
                self.images[image as usize].pulled = true;
                return Ok(RuntimeReply::Image(self.image_record(image)));
            }
            Action::Remove(number) => {
                if let Some(number) = number {
                    self.remove(at, number);
                }
            }
            Action::Network(cidr) => {
                self.addresses
                    .set_range(&cidr)
                    .map_err(|message| RuntimeError { kind: RuntimeErrorKind::Other, message })?;
            }
            Action::MakeFolder(uid) => self.make_folder(&uid),
            Action::RemoveFolder(uid) => self.remove_folder(&uid),
            Action::RemovePod(numbers, uid) => {
                for number in numbers {
                    self.remove(at, number);
                }
                self.remove_folder(&uid);
            }
        }
        Ok(RuntimeReply::Done)
    }

    fn make_folder(&mut self, uid: &str) {
        if let Err(at) = self.folder(uid) {
            let folder = Folder { begin: uid::beginning(uid), uid: uid.into() };
            self.folders.insert(at, folder);
        }
    }

    fn remove_folder(&mut self, uid: &str) {
        if let Ok(at) = self.folder(uid) {
            self.folders.remove(at);
        }
    }

    /// The place of a pod's folder, or where it would be.
    fn folder(&self, uid: &str) -> Result<usize, usize> {
        uid::place(&self.folders, uid::beginning(uid), |f| f.begin, |f| (*f.uid).cmp(uid))
    }

    fn start(&mut self, at: Time, number: u32) {
        let Some(container) = self.containers.find_mut(number) else { return };
        container.state = ContainerState::Running;
        container.started_at = at;
        let ends = container.behaviour.as_ref().and_then(|b| b.end);
        if let Some(end) = ends {
            let exit = at + Duration::from_nanos(end.after);
            self.agenda.add(exit, Due::Exit { container: number });
        }
    }

    /// A container ends by itself.
    fn exit(&mut self, at: Time, number: u32) -> Option<RuntimeInput> {
        let container = self.containers.find_mut(number)?;
        let end = container.behaviour.as_ref().and_then(|b| b.end)?;
        if container.state != ContainerState::Running {
            return None;
        }
        container.oom_killed = end.oom;
        let summary = container.summary();
        let (pod_uid, name) = (summary.pod_uid.to_owned(), summary.container.to_owned());
        self.end(at, number, end.exit_code);
        let container = self.containers.find(number)?;
        let record = Some(Box::new(self.record(container)));
        let id = self.id(number);
        let event = RuntimeEvent::ContainerChanged { id, pod_uid, container: name, record };
        Some(RuntimeInput::Event(event))
    }

    /// A container is no more running; whoever waits for that is answered.
    fn end(&mut self, at: Time, number: u32, exit_code: i32) {
        let Some(container) = self.containers.find_mut(number) else { return };
        if container.state != ContainerState::Running {
            return;
        }
        container.state = ContainerState::Exited;
        container.exit_code = exit_code;
        container.finished_at = at;
        self.addresses.free(container.ip);
        self.agenda.hasten_stops(at, number);
    }

    fn remove(&mut self, at: Time, number: u32) {
        self.end(at, number, KILLED);
        let removed = self.containers.remove(number);
        // One that ended gave its address back then, and another may have it; one that was never
        // started has held it until now.
        if let Some(container) = removed.filter(|c| c.state == ContainerState::Created) {
            self.addresses.free(container.ip);
        }
    }

    // --- what there is ----------------------------------------------------------------------

    fn id(&self, number: u32) -> String {
        let mut id = String::with_capacity(27);
        id.push_str(&hash::hex(self.ids, 1));
        id.push('-');
        push_decimal(&mut id, number);
        id
    }

    fn number(&self, id: &str) -> Option<u32> {
        id.rsplit_once('-')?.1.parse().ok()
    }

    /// The image's place in `images`; a node has few.
    fn image(&mut self, name: &str) -> u32 {
        let at = self.images.iter().position(|i| *i.name == *name).unwrap_or_else(|| {
            let shown = ["docker://", &image_id(name)].concat().into();
            self.images.push(Image { name: name.into(), shown, pulled: false });
            self.images.len() - 1
        });
        u32::try_from(at).expect("a node has fewer than 2^32 images")
    }

    fn image_record(&self, image: u32) -> Option<ImageRecord> {
        let image = self.images.get(image as usize).filter(|i| i.pulled)?;
        let id = image_id(&image.name);
        Some(ImageRecord { id, user: String::new(), size_bytes: IMAGE_BYTES })
    }

    fn reply(&self, number: Option<u32>) -> RuntimeReply {
        let container = number.and_then(|n| self.containers.find(n));
        RuntimeReply::Container(container.map(|c| Box::new(self.record(c))))
    }

    fn record(&self, container: &Container) -> ContainerRecord {
        let image = &self.images[container.image as usize];
        ContainerRecord {
            id: self.id(container.number),
            labels: container.labels.clone(),
            image: image.name.clone(),
            image_id: image.shown.clone(),
            state: container.state,
            created_at: container.created_at,
            started_at: container.started_at,
            finished_at: container.finished_at,
            exit_code: container.exit_code,
            oom_killed: container.oom_killed,
            message: String::new(),
            ip: container.address(),
        }
    }

    /// What the node measures of itself: the same from boot to boot, but for its images.
    fn facts(&self) -> NodeFacts {
        let pulled = self.images.iter().filter(|i| i.pulled);
        NodeFacts {
            cpus: self.shape.cpus,
            memory_bytes: self.shape.memory_bytes,
            memory_available_bytes: self.shape.memory_bytes / 4 * 3,
            disk_bytes: self.shape.disk_bytes,
            disk_available_bytes: self.shape.disk_bytes / 4 * 3,
            pids_available: 32_768,
            machine_id: format!("{:032x}", self.ids),
            system_uuid: format!("{:032x}", self.ids),
            boot_id: format!("{:x}-{}", self.ids, self.boots),
            kernel_version: "6.8.0".to_owned(),
            os_image: "Linux".to_owned(),
            architecture: "amd64".to_owned(),
            runtime_version: "docker://28.0.0".to_owned(),
            resolv_conf: "nameserver 10.0.0.2\n".to_owned(),
            images: pulled.map(|i| (vec![i.name.to_string()], IMAGE_BYTES)).collect(),
            devices: self.devices.clone(),
        }
    }
}

fn image_id(name: &str) -> String {
    ["sha256:", &*hash::hex(hash::fnv64(name.as_bytes()), 16)].concat()
}

fn error(kind: RuntimeErrorKind, message: String) -> RuntimeError {
    RuntimeError { kind, message }
}

/// Appends a number, many times in the life of each container: without the machinery that formats
/// anything.
fn push_decimal(text: &mut String, number: u32) {
    let mut digits = ['0'; 10];
    let mut left = number;
    let mut first = digits.len();
    while first == digits.len() || left > 0 {
        first -= 1;
        digits[first] = char::from_digit(left % 10, 10).unwrap_or('0');
        left /= 10;
    }
    text.extend(&digits[first..]);
}

#[cfg(test)]
mod tests;
