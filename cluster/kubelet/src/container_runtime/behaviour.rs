//! What a container does, as its arguments say.

use api::Span;

/// How a container ends by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    /// Nanoseconds after its start.
    pub(super) after: u64,
    pub(super) exit_code: i32,
    /// The kernel kills it for want of memory.
    pub(super) oom: bool,
}

/// What a container does; times are nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Behaviour {
    pub(super) end: Option<End>,
    /// Probes fail before this age.
    pub(super) ready_after: u64,
    /// Probes get no answer from this age on.
    pub(super) hang_after: u64,
    /// From the signal to the end; `u64::MAX` for never.
    pub(super) obeys_after: u64,
}

impl Behaviour {
    const NONE: Self = Self { end: None, ready_after: 0, hang_after: u64::MAX, obeys_after: 0 };

    /// Reads the arguments; `None` when they say nothing.
    ///
    /// # Errors
    /// Which argument has a value that means nothing.
    pub(super) fn parse(args: &[String]) -> Result<Option<Box<Self>>, String> {
        let mut behaviour = Self::NONE;
        let mut exit_code = 0;
        let (mut run, mut crash, mut oom) = (None, None, None);
        for arg in args {
            let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
            let time = || value.parse::<Span>().map(|s| s.0).map_err(|e| format!("{arg}: {e}"));
            match name {
                "--run" => run = Some(time()?),
                "--crash-after" => crash = Some(time()?),
                "--oom-after" => oom = Some(time()?),
                "--ready-after" => behaviour.ready_after = time()?,
                "--hang-after" => behaviour.hang_after = time()?,
                "--stop-after" => behaviour.obeys_after = time()?,
                "--ignore-term" => behaviour.obeys_after = u64::MAX,
                "--exit" => {
                    exit_code = value.parse().map_err(|e| format!("{arg}: {e}"))?;
                }
                _ => {}
            }
        }
        let run = run.map(|after| End { after, exit_code, oom: false });
        let crash = crash.map(|after| End { after, exit_code: 1, oom: false });
        let oom = oom.map(|after| End { after, exit_code: super::KILLED, oom: true });
        behaviour.end = [run, crash, oom].into_iter().flatten().min_by_key(|e| e.after);
        Ok(Some(behaviour).filter(|b| *b != Self::NONE).map(Box::new))
    }
}
