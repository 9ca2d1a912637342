//! A host behind a POSIX shell: the protocol that SSH and local hosts share.

mod sudo;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::packing::{self, Packed};
use super::{
    CommandEnd, Host, HostError, HttpsAnswer, HttpsEndpoint, Probe, StepEvent, https, script,
};
use crate::digest::Digest;
use crate::facts::{self, Facts, FactsQuery, LockRequest};
use crate::plan::Upload;
use crate::quote::{quote, words};
use crate::secret::Secret;
use crate::state::Blob;
use crate::step::Step;

/// How commands reach the host and bytes come back.
pub(super) trait Transport: Send {
    /// Starts a command; its standard error comes with its standard output.
    fn exec(&mut self, command: &str, silence_max: Duration) -> io::Result<Box<dyn Process>>;

    /// Opens a TCP connection as seen from the host; it breaks when it is silent for longer than
    /// `silence_max`.
    fn connect(
        &mut self,
        address: &str,
        port: u16,
        silence_max: Duration,
    ) -> io::Result<Box<dyn Stream>>;

    /// Opens a connection besides this one to the same host.
    fn again(&self) -> Result<Self, HostError>
    where
        Self: Sized;

    /// How commands become root's, when the user is another one.
    fn sudo(&self) -> Option<Sudo<'_>>;
}

/// How commands become root's.
#[derive(Clone, Copy)]
pub(super) struct Sudo<'a> {
    /// The user that logs in.
    pub(super) user: &'a str,
    /// What sudo may be told when it asks.
    pub(super) password: Option<&'a Secret>,
}

/// A running command: write its input, read its output.
pub(super) trait Process: Read + Write + Send {
    /// Ends the command's input.
    fn end_input(&mut self) -> io::Result<()>;

    /// Waits for the end and gives the exit code; `-1` for a signal.
    fn wait(&mut self) -> io::Result<i32>;
}

/// A connection in both directions.
pub(super) trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// Longest silence of the facts command: it waits for an orphaned script, then works.
const FACTS_SILENCE: Duration = Duration::from_secs(120);
/// Longest silence of a running script: it says every five seconds that it is alive.
const STEP_SILENCE: Duration = Duration::from_secs(30);
/// Longest silence after all bytes were sent: they are written and their digests checked.
const PUSH_SILENCE: Duration = Duration::from_secs(120);
/// Longest silence of anything else.
const SHORT_SILENCE: Duration = Duration::from_secs(30);
/// Longest silence of a download: a server may have to make ready what it sends.
const DOWNLOAD_SILENCE: Duration = Duration::from_secs(60);
/// Size of the pieces in which uploads travel.
const UPLOAD_BUFFER: usize = 256 * 1024;
/// No answer of a host is longer.
const OUTPUT_BYTES_MAX: usize = 16 << 20;
/// Lines of a failed step's output that are shown.
const OUTPUT_LINES_SHOWN: usize = 20;

/// What is being done when a firewall is confirmed.
const CONFIRM: &str = "confirm the change of the firewall";

/// A host reached through `T`.
pub(super) struct ShellHost<T> {
    name: String,
    transport: T,
    /// The process that holds the lock and who it says it is; it ends with this value.
    lock: Option<(String, Box<dyn Process>)>,
    /// Of the run, 0 until it has one.
    generation: u64,
}

impl<T: Transport> ShellHost<T> {
    pub(super) fn new(name: impl Into<String>, transport: T) -> Self {
        Self { name: name.into(), transport, lock: None, generation: 0 }
    }

    /// Starts a shell as root that reads its script from standard input.
    fn shell(&mut self, text: &str, silence_max: Duration) -> io::Result<Box<dyn Process>> {
        let mut process = self.as_root("sh -s", silence_max)?;
        process.write_all(text.as_bytes())?;
        process.flush()?;
        Ok(process)
    }

    /// Starts a command as root.
    fn as_root(&mut self, command: &str, silence_max: Duration) -> io::Result<Box<dyn Process>> {
        let password = match self.transport.sudo() {
            None => return self.transport.exec(&format!("exec {command}"), silence_max),
            Some(Sudo { password: None, .. }) => {
                return self.transport.exec(&format!("exec sudo -n -- {command}"), silence_max);
            }
            Some(Sudo { password: Some(password), .. }) => password.clone(),
        };
        let mut process = self.transport.exec(&sudo::command(command), silence_max)?;
        sudo::become_root(process.as_mut(), &password)?;
        Ok(process)
    }

    /// Runs a script and gives its whole output.
    fn output(&mut self, text: &str, doing: &str) -> Result<String, HostError> {
        tracing::debug!(host = %self.name, doing, "running a script");
        let lost = lost(doing);
        let mut process = self.shell(text, SHORT_SILENCE).map_err(lost)?;
        process.end_input().map_err(lost)?;
        let mut lines = Lines::new(process.as_mut());
        let mut output = String::new();
        while let Some(line) = lines.next().map_err(lost)? {
            output.push_str(&line);
            output.push('\n');
        }
        Ok(output)
    }

    fn claim(&self) -> Result<script::Claim<'_>, HostError> {
        let (owner, _) = self.lock.as_ref().ok_or(HostError::LockLost)?;
        Ok(script::Claim { owner, generation: self.generation })
    }

    fn ask(
        &mut self,
        endpoint: &HttpsEndpoint,
        act: https::Act<'_>,
        silence_max: Duration,
    ) -> Result<HttpsAnswer, HostError> {
        self.over_tcp(endpoint, silence_max, |stream| https::ask(stream, endpoint, act))
    }

    fn over_tcp<R>(
        &mut self,
        endpoint: &HttpsEndpoint,
        silence_max: Duration,
        talk: impl FnOnce(Box<dyn Stream>) -> io::Result<R>,
    ) -> Result<R, HostError> {
        let wrap = |source| HostError::Https { endpoint: endpoint.endpoint(), source };
        let (address, port) = (&endpoint.address, endpoint.port);
        let stream = self.transport.connect(address, port, silence_max).map_err(wrap)?;
        talk(stream).map_err(wrap)
    }

    /// Runs steps that need no other connection.
    fn run_script(
        &mut self,
        steps: &[Step],
        seen: &mut dyn FnMut(StepEvent<'_>),
    ) -> Result<(), HostError> {
        let text = script::steps(&self.claim()?, steps);
        let mut at: Option<&Step> = None;
        let doing = |at: Option<&Step>| at.map_or_else(|| "run steps".to_owned(), Step::describe);
        let started = self.shell(&text, STEP_SILENCE);
        let mut process = started.map_err(|source| lost(&doing(None))(source))?;
        process.end_input().map_err(|source| lost(&doing(None))(source))?;
        let mut lines = Lines::new(process.as_mut());
        let (mut output, mut done) = (String::new(), false);
        loop {
            let line = lines.next().map_err(|source| lost(&doing(at))(source))?;
            let Some(line) = line else { break };
            if let Some(number) = line.strip_prefix("=step ") {
                at = number.parse().ok().and_then(|number: usize| steps.get(number));
                output.clear();
                at.into_iter().for_each(|step| seen(StepEvent::Begin(step)));
            } else if let Some(note) = line.strip_prefix("=note ") {
                seen(StepEvent::Note(note));
            } else if line == "=alive" {
                tracing::trace!(host = %self.name, "alive");
            } else if line == "=done" {
                done = true;
            } else if output.len() < OUTPUT_BYTES_MAX {
                output.push_str(&line);
                output.push('\n');
            }
        }
        let code = process.wait().map_err(|source| lost(&doing(at))(source))?;
        match code {
            0 if done => Ok(()),
            script::LOCK_LOST => Err(HostError::LockLost),
            code => Err(HostError::Step {
                step: doing(at),
                code,
                output: facts::last_lines(&output, OUTPUT_LINES_SHOWN),
                unit: at.and_then(Step::unit).map(str::to_owned),
            }),
        }
    }

    /// Puts the program where [`script::probe`] looks for it.
    fn send_probe(&mut self, program: &Blob) -> Result<(), HostError> {
        const DOING: &str = "send the program that measures";
        let path = program.source.clone();
        let unreadable = |source| HostError::Source { path: path.clone(), source };
        let mut file = File::open(&program.source).map_err(unreadable)?;
        let receive = format!("sh -c {}", quote(&script::receive_probe(program)));
        let process = self.as_root(&receive, PUSH_SILENCE);
        let mut process = process.map_err(lost(DOING))?;
        let packed = Packed::new(&mut *process, packing::stopwatch());
        let mut packed = BufWriter::with_capacity(UPLOAD_BUFFER, packed);
        let sent = io::copy(&mut file, &mut packed).and_then(|_| finish(packed));
        // When the remote side ended early, what it said explains more than the broken pipe.
        let ended = process.end_input();
        let (output, code) = drain(process.as_mut()).map_err(lost(DOING))?;
        if code == 0 {
            sent.map_err(lost(DOING))?;
            return ended.map_err(lost(DOING));
        }
        let output = facts::last_lines(&output, OUTPUT_LINES_SHOWN);
        Err(HostError::Step { step: DOING.to_owned(), code, output, unit: None })
    }

    /// Shows that the host still lets new connections in, and so ends the time in which a change of
    /// its firewall is taken back.
    fn confirm(&mut self) -> Result<(), HostError> {
        let text = script::confirm(&self.claim()?);
        let again = self.transport.again();
        let again = again.map_err(|source| HostError::ShutOut { source: Box::new(source) })?;
        let output = Self::new(self.name.clone(), again).output(&text, CONFIRM)?;
        if output.lines().any(|line| line == "=done") {
            return Ok(());
        }
        let output = facts::last_lines(&output, OUTPUT_LINES_SHOWN);
        Err(HostError::Step { step: CONFIRM.to_owned(), code: 1, output, unit: None })
    }

    /// Why no command has begun.
    fn not_root(&self, error: io::Error, doing: &str) -> HostError {
        let refused = error.get_ref().and_then(|inner| inner.downcast_ref::<sudo::Refused>());
        match (refused, self.transport.sudo()) {
            (Some(sudo::Refused { output }), Some(Sudo { user, .. })) => {
                HostError::SudoPassword { user: user.to_owned(), output: output.clone() }
            }
            _ => lost(doing)(error),
        }
    }

    fn refusal(&self, error: facts::FactsError) -> HostError {
        match (error, self.transport.sudo()) {
            (facts::FactsError::Incomplete { output }, Some(Sudo { user, .. }))
                if output.contains("sudo") =>
            {
                HostError::Sudo { user: user.to_owned(), output }
            }
            (error, _) => error.into(),
        }
    }
}

impl<T: Transport> Host for ShellHost<T> {
    fn name(&self) -> &str {
        &self.name
    }

    fn facts(
        &mut self,
        query: &FactsQuery,
        lock: Option<&LockRequest>,
    ) -> Result<Facts, HostError> {
        const DOING: &str = "gather facts";
        let text = facts::script(query, lock);
        let before_ms = now_ms();
        let mut process = match self.shell(&text, FACTS_SILENCE) {
            Ok(process) => process,
            Err(error) => return Err(self.not_root(error, DOING)),
        };
        if lock.is_none() {
            process.end_input().map_err(lost(DOING))?;
        }
        let mut lines = Lines::new(process.as_mut());
        let (mut output, mut clock_ms) = (String::new(), before_ms);
        while let Some(line) = lines.next().map_err(lost(DOING))? {
            if line.starts_with("=clock ") {
                // The host read its clock about halfway between the question and the answer.
                clock_ms = i64::midpoint(before_ms, now_ms());
            }
            output.push_str(&line);
            output.push('\n');
            if line == "=end" || output.len() > OUTPUT_BYTES_MAX {
                break;
            }
        }
        tracing::trace!(host = %self.name, output, "facts");
        let facts = facts::parse(&output, clock_ms).map_err(|error| self.refusal(error))?;
        if let Some(lock) = lock {
            self.lock = Some((lock.owner.clone(), process));
        }
        Ok(facts)
    }

    fn read(&mut self, paths: &[String]) -> Result<BTreeMap<String, String>, HostError> {
        let names = words(paths.iter().map(String::as_str));
        // Each file goes as its size in bytes and then as it is, so no content can pass for a frame.
        let text = format!(
            "for f in {names}; do [ -f \"$f\" ] && [ ! -L \"$f\" ] || continue\n\
             printf '=file %s %s\\n' \"$(wc -c <\"$f\")\" \"$f\"; cat -- \"$f\"; echo; done\n"
        );
        let output = self.output(&text, "read files")?;
        Ok(framed(&output))
    }

    fn push(
        &mut self,
        uploads: &BTreeMap<Digest, Upload>,
        sent: &mut dyn FnMut(u64),
    ) -> Result<(), HostError> {
        const DOING: &str = "send files";
        let unpack = format!("sh -c {}", quote(&script::unpack(&self.claim()?)));
        let process = self.as_root(&unpack, PUSH_SILENCE);
        let mut process = process.map_err(lost(DOING))?;
        let archived = archive(uploads, process.as_mut(), sent);
        // When the remote side ended early, what it said explains more than the broken pipe.
        let ended = process.end_input();
        let (output, code) = drain(process.as_mut()).map_err(lost(DOING))?;
        match code {
            0 => {
                archived?;
                ended.map_err(lost(DOING))
            }
            script::LOCK_LOST => Err(HostError::LockLost),
            code => Err(HostError::Step {
                step: DOING.to_owned(),
                code,
                output: facts::last_lines(&output, OUTPUT_LINES_SHOWN),
                unit: None,
            }),
        }
    }

    fn run(
        &mut self,
        steps: &[Step],
        seen: &mut dyn FnMut(StepEvent<'_>),
    ) -> Result<(), HostError> {
        // No steps at all still show the run's generation to the host.
        if steps.is_empty() {
            return self.run_script(steps, seen);
        }
        let mut rest = steps;
        while let Some(first) = rest.first() {
            let is_confirmation = |step: &Step| *step == Step::ConfirmFirewall;
            let part = rest.iter().position(is_confirmation).unwrap_or(rest.len()).max(1);
            if is_confirmation(first) {
                seen(StepEvent::Begin(first));
                self.confirm()?;
            } else {
                self.run_script(&rest[..part], seen)?;
            }
            rest = &rest[part..];
        }
        Ok(())
    }

    fn get(&mut self, endpoint: &HttpsEndpoint) -> Result<HttpsAnswer, HostError> {
        self.ask(endpoint, https::Act::Get, https::ANSWER_TIMEOUT)
    }

    fn merge_patch(
        &mut self,
        endpoint: &HttpsEndpoint,
        json: &str,
    ) -> Result<HttpsAnswer, HostError> {
        self.ask(endpoint, https::Act::MergePatch(json), https::ANSWER_TIMEOUT)
    }

    fn post(
        &mut self,
        endpoint: &HttpsEndpoint,
        json: &str,
        patience: Duration,
    ) -> Result<HttpsAnswer, HostError> {
        self.ask(endpoint, https::Act::Post(json), patience)
    }

    fn download(
        &mut self,
        endpoint: &HttpsEndpoint,
        json: &str,
        sink: &mut dyn Write,
    ) -> Result<(), HostError> {
        self.over_tcp(endpoint, DOWNLOAD_SILENCE, |stream| {
            https::download(stream, endpoint, json, sink)
        })
    }

    fn served(&mut self, endpoint: &HttpsEndpoint) -> Result<Vec<Vec<u8>>, HostError> {
        self.over_tcp(endpoint, https::ANSWER_TIMEOUT, |stream| https::served(stream, endpoint))
    }

    fn delete(&mut self, endpoint: &HttpsEndpoint) -> Result<HttpsAnswer, HostError> {
        self.ask(endpoint, https::Act::Delete, https::ANSWER_TIMEOUT)
    }

    fn command(&mut self, command: &str, limit: Duration) -> Result<CommandEnd, HostError> {
        const DOING: &str = "run a command";
        let text = script::command(&self.claim()?, command, limit);
        let mut process = self.shell(&text, STEP_SILENCE).map_err(lost(DOING))?;
        process.end_input().map_err(lost(DOING))?;
        let mut lines = Lines::new(process.as_mut());
        let (mut output, mut ended) = (String::new(), None);
        // Not to the end of the output: what the command left behind may keep that open.
        while let (None, Some(line)) = (ended, lines.next().map_err(lost(DOING))?) {
            if let Some(code) = line.strip_prefix("=code ") {
                ended = code.parse::<i32>().ok();
            } else if line != "=alive" && output.len() < OUTPUT_BYTES_MAX {
                output.push_str(&line);
                output.push('\n');
            }
        }
        match ended {
            Some(code) if script::was_killed(code) => Ok(CommandEnd { code: None, output }),
            Some(code) => Ok(CommandEnd { code: Some(code), output }),
            None => match process.wait().map_err(lost(DOING))? {
                script::LOCK_LOST => Err(HostError::LockLost),
                code => Err(HostError::Step {
                    step: DOING.to_owned(),
                    code,
                    output: facts::last_lines(&output, OUTPUT_LINES_SHOWN),
                    unit: None,
                }),
            },
        }
    }

    fn probe(&mut self, probe: &Probe<'_>) -> Result<String, HostError> {
        const DOING: &str = "measure";
        let text = script::probe(probe);
        for attempt in 0..2 {
            let mut process = self.shell(&text, FACTS_SILENCE).map_err(lost(DOING))?;
            process.end_input().map_err(lost(DOING))?;
            let (output, code) = drain(process.as_mut()).map_err(lost(DOING))?;
            match code {
                0 => return Ok(output),
                script::NO_PROBE if attempt == 0 => self.send_probe(probe.program)?,
                code => {
                    let output = facts::last_lines(&output, OUTPUT_LINES_SHOWN);
                    let step = DOING.to_owned();
                    return Err(HostError::Step { step, code, output, unit: None });
                }
            }
        }
        let output = "the program that was sent is not there".to_owned();
        Err(HostError::Step { step: DOING.to_owned(), code: script::NO_PROBE, output, unit: None })
    }

    fn end_probe(&mut self) -> Result<(), HostError> {
        self.output(script::END_PROBE, "end measurements").map(drop)
    }

    fn set_generation(&mut self, generation: u64) {
        self.generation = generation;
    }

    fn journal(&mut self, unit: &str, lines: u32) -> Result<String, HostError> {
        let unit = quote(unit);
        let text = format!("journalctl --no-pager -q -o cat -n {lines} -u {unit} 2>&1\n");
        self.output(&text, "read the journal")
    }

    fn break_lock(&mut self) -> Result<Option<String>, HostError> {
        let output = self.output(script::break_lock(), "break the lock")?;
        Ok(output.lines().find_map(|line| line.strip_prefix("=holder ")).map(str::to_owned))
    }
}

fn lost(doing: &str) -> impl Fn(io::Error) -> HostError + Copy + '_ {
    move |source| HostError::Lost { doing: doing.to_owned(), source }
}

/// Milliseconds since the Unix epoch: the one place where the clock of the operator is compared
/// with those of the hosts.
fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// Writes all uploads as one tar stream with a list of digests that the host checks.
fn archive(
    uploads: &BTreeMap<Digest, Upload>,
    out: &mut dyn Write,
    sent: &mut dyn FnMut(u64),
) -> Result<(), HostError> {
    let packed = Packed::new(out, packing::stopwatch());
    let counting = Counting { out: packed, total: 0, sent };
    let mut tar = tar::Builder::new(BufWriter::with_capacity(UPLOAD_BUFFER, counting));
    let mut sums = String::new();
    for (digest, upload) in uploads {
        sums.push_str(&format!("{digest}  {digest}\n"));
        let name = digest.to_string();
        match upload {
            Upload::Content(content) => {
                let text = match content {
                    crate::state::Content::Text(text) => text.as_str(),
                    crate::state::Content::Secret(secret) => secret.expose(),
                    crate::state::Content::Blob(_) => continue,
                };
                append(&mut tar, &name, upload.len(), text.as_bytes())?;
            }
            Upload::Blob(blob) => {
                let path = blob.source.clone();
                let file = File::open(&path)
                    .map_err(|source| HostError::Source { path: path.clone(), source })?;
                append(&mut tar, &name, blob.len, file.take(blob.len))?;
            }
        }
    }
    append(&mut tar, script::SUMS, sums.len() as u64, sums.as_bytes())?;
    let counting = tar.into_inner().and_then(|out| Ok(out.into_inner()?));
    counting.and_then(|counting| counting.out.finish()).map_err(lost("send files"))
}

/// Sends what waits in buffers.
fn finish<W: Write, C: FnMut() -> Duration>(packed: BufWriter<Packed<W, C>>) -> io::Result<()> {
    packed.into_inner()?.finish()
}

fn append<W: Write>(
    tar: &mut tar::Builder<W>,
    name: &str,
    len: u64,
    bytes: impl Read,
) -> Result<(), HostError> {
    let mut header = tar::Header::new_gnu();
    header.set_size(len);
    header.set_mode(0o600);
    header.set_cksum();
    tar.append_data(&mut header, name, bytes).map_err(lost("send files"))
}

/// Counts the bytes that were taken, whatever they were packed to.
struct Counting<'a, W> {
    out: W,
    total: u64,
    sent: &'a mut dyn FnMut(u64),
}

impl<W: Write> Write for Counting<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.total += count as u64;
        (self.sent)(self.total);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

fn drain(process: &mut dyn Process) -> io::Result<(String, i32)> {
    let mut output = Vec::new();
    let mut limited = Read::take(&mut *process, OUTPUT_BYTES_MAX as u64);
    limited.read_to_end(&mut output)?;
    let code = process.wait()?;
    Ok((String::from_utf8_lossy(&output).into_owned(), code))
}

/// Reads lines without reading past what has come: the process may stay open for long.
struct Lines<'a> {
    process: &'a mut dyn Process,
    buffer: Vec<u8>,
    ended: bool,
}

impl<'a> Lines<'a> {
    fn new(process: &'a mut dyn Process) -> Self {
        Self { process, buffer: Vec::new(), ended: false }
    }

    /// The next line without its end; `None` at the end of the output.
    fn next(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line[..end]).into_owned()));
            }
            if self.ended || self.buffer.len() > OUTPUT_BYTES_MAX {
                let rest = std::mem::take(&mut self.buffer);
                let line = String::from_utf8_lossy(&rest).into_owned();
                return Ok(Some(line).filter(|line| !line.is_empty()));
            }
            let mut piece = [0; 16 * 1024];
            let count = match self.process.read(&mut piece) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => result?,
            };
            self.ended = count == 0;
            self.buffer.extend_from_slice(&piece[..count]);
        }
    }
}

/// Takes `=file LENGTH PATH` frames apart.
fn framed(output: &str) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let mut rest = output;
    while let Some((line, after)) = rest.split_once('\n') {
        rest = after;
        let Some(frame) = line.strip_prefix("=file ") else { continue };
        let Some((len, path)) = frame.trim_start().split_once(' ') else { continue };
        let content = len.parse().ok().and_then(|len: usize| rest.get(..len));
        if let Some(content) = content {
            files.insert(path.to_owned(), content.to_owned());
            rest = &rest[content.len()..];
        }
    }
    files
}
