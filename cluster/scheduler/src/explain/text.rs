//! Explanations for people.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Explanation;

impl Explanation {
    /// The first line: where the pod is, and what the rest is about.
    pub fn headline(&self) -> String {
        let pod = &self.pod;
        if let Some(node) = &self.node {
            return format!("{pod} is on {node}. If it had no node, this would be decided now:");
        }
        if !self.gates.is_empty() {
            let gates = self.gates.join(", ");
            return format!(
                "{pod} is held back by scheduling gates ({gates}). Without, this would be decided \
                 now:"
            );
        }
        match &self.message {
            Some(message) => format!("{pod} has no node: {message}"),
            None => format!("{pod} has no node yet."),
        }
    }

    /// The explanation under a headline, with so many nodes of either kind.
    pub fn to_text(&self, headline: &str, listed: usize) -> String {
        let mut out = format!("{headline}\n");
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        line(format!(
            "{} of {} nodes were looked at from {} on; {} can take it, {} cannot.",
            self.evaluated,
            self.nodes,
            self.first.as_deref().unwrap_or("-"),
            self.feasible.len() + self.omitted.feasible,
            self.rejected.len() + self.omitted.rejected
        ));
        if !self.extenders.is_empty() {
            line(format!("Extenders have a say, too: {}.", self.extenders.join(", ")));
        }
        if let Some(displaced) = &self.displaced {
            line(format!(
                "It takes a place on {} as soon as these have left, {} of them against a budget: \
                 {}.",
                displaced.node,
                displaced.violations,
                displaced.pods.join(", ")
            ));
        }
        if let [_, _, ..] = self.winners[..] {
            line(format!("{} nodes share the best score; one was drawn.", self.winners.len()));
        }
        if let Some(runner_up) = &self.runner_up {
            line(format!("Runner-up: {runner_up}."));
        }
        self.scores(listed, &mut line);
        self.rejections(listed, &mut line);
        out
    }

    fn scores(&self, listed: usize, line: &mut impl FnMut(String)) {
        let mut ranked: Vec<_> = self.feasible.iter().collect();
        ranked.sort_by(|a, b| b.total.cmp(&a.total).then_with(|| a.node.cmp(&b.node)));
        if !ranked.is_empty() {
            line("\nSCORE  NODE".to_owned());
        }
        let own = |node: &str| self.node.as_deref() == Some(node);
        let mut rank = 0..;
        ranked.retain(|scored| rank.next().is_some_and(|rank| rank < listed) || own(&scored.node));
        let more = self.feasible.len() + self.omitted.feasible - ranked.len();
        for scored in ranked {
            let mut row = format!("{:>5}  {}", scored.total, scored.node);
            for score in &scored.scores {
                let _ = write!(row, "  {} {} ({})", score.plugin, score.weighted, score.raw);
            }
            line(row);
        }
        if more > 0 {
            line(format!("       … and {more} more"));
        }
    }

    fn rejections(&self, listed: usize, line: &mut impl FnMut(String)) {
        if self.causes.is_empty() {
            return;
        }
        line("\nREJECTED BY".to_owned());
        let mut nodes = BTreeMap::<(&str, &[String]), Vec<String>>::new();
        for rejected in &self.rejected {
            let list = nodes.entry((&rejected.plugin, &rejected.reasons)).or_default();
            if list.len() < listed || self.node.as_ref() == Some(&rejected.node) {
                let also: Vec<&str> = rejected.also.iter().map(|o| o.plugin.as_str()).collect();
                let also =
                    if also.is_empty() { String::new() } else { format!(" (+{})", also.join(",")) };
                list.push(format!("{}{also}", rejected.node));
            }
        }
        for cause in &self.causes {
            line(format!("{}: {}", cause.plugin, cause.reasons.join(", ")));
            let shown = nodes.get(&(cause.plugin.as_str(), cause.reasons.as_slice()));
            let shown = shown.map(Vec::as_slice).unwrap_or_default();
            line(match cause.nodes - shown.len() {
                0 => format!("    {}", shown.join(" ")),
                more if shown.is_empty() => format!("    {more} nodes"),
                more => format!("    {} and {more} more", shown.join(" ")),
            });
        }
    }
}
