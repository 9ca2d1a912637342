//! `kprov trace`: what bounded a run.

use std::path::Path;

use super::output::{Console, Failure};
use super::{Exit, TraceArgs, prepare};
use crate::run_log::{DIRECTORY, TRACE, runs};
use crate::trace::Trace;

pub(super) fn run(args: &TraceArgs, console: &Console) -> Result<Exit, Failure> {
    let inventory = prepare::inventory(&args.source, console)?;
    let state_dir = prepare::state_dir(&args.source, &inventory);
    let kept = runs(&state_dir)
        .map_err(|error| Failure::new(&error, "check the state directory's logs"))?;
    if args.list {
        return console.result(&kept, || match kept.is_empty() {
            true => "no run has left logs\n".to_owned(),
            false => format!("{}\n", kept.join("\n")),
        });
    }
    let run = match &args.run {
        Some(run) if kept.contains(run) => run,
        Some(run) => {
            let names: Vec<_> = kept.iter().map(String::as_str).collect();
            let advice = crate::inventory::did_you_mean(run, &names);
            return Err(Failure::Usage { message: format!("there is no run {run}"), advice });
        }
        None => kept.last().ok_or_else(|| Failure::Other {
            message: format!("{} has no logs of a run", state_dir.display()),
            advice: "apply the inventory first, or name its --state-dir".to_owned(),
        })?,
    };
    let directory = state_dir.join(DIRECTORY).join(run);
    let trace = Trace::read(&directory.join(TRACE)).map_err(|error| {
        Failure::new(&error, "the run may have been killed: see kprov trace --list")
    })?;
    if let Some(html) = &args.html {
        std::fs::write(html, trace.html())
            .map_err(|error| Failure::new(&error, format!("check {}", html.display())))?;
    }
    let value = serde_json::json!({
        "run": run,
        "logs": directory,
        "bounds": trace.bounds(),
        "trace": trace,
    });
    console.result(&value, || text(&trace, &directory, args.html.as_deref()))
}

fn text(trace: &Trace, directory: &Path, html: Option<&Path>) -> String {
    let mut out = trace.text();
    out.push_str(&format!("logs: {}\n", directory.display()));
    if let Some(html) = html {
        out.push_str(&format!("picture: {}\n", html.display()));
    }
    out
}
