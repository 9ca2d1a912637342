//! `kprov init`: a first inventory, asked for or given by flags, and checked.

use std::io::{self, BufRead, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use super::output::{Console, Failure};
use super::{Exit, InitArgs};
use crate::inventory;

/// Questions are asked again at most so often: an input that ends is no conversation.
const ASKED_MAX: usize = 5;

/// What an inventory is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Answers {
    name: String,
    user: String,
    key: Option<String>,
    masters: Vec<Ipv4Addr>,
    nodes: Vec<Ipv4Addr>,
}

pub(super) fn run(args: &InitArgs, console: &Console) -> Result<Exit, Failure> {
    let file = &args.file;
    if file.exists() && !args.force {
        return Err(Failure::Usage {
            message: format!("{} exists", file.display()),
            advice: "name another file, or say --force to replace it".to_owned(),
        });
    }
    let answers = match given(args)? {
        Some(answers) => answers,
        None => {
            let (input, output) = (io::stdin().lock(), io::stderr().lock());
            let mut dialog = Dialog { input, output };
            dialog.all(args).map_err(|error| {
                Failure::new(&error, "answer, or give --name, --masters and --nodes")
            })?
        }
    };
    let text = answers.inventory();
    check(&text, file)?;
    std::fs::write(file, &text)
        .map_err(|error| Failure::new(&error, format!("check {}", file.display())))?;
    let hosts = answers.masters.len() + answers.nodes.len();
    let value = serde_json::json!({ "inventory": file, "hosts": hosts });
    console.result(&value, || {
        let file = file.display();
        let s = if hosts == 1 { "" } else { "s" };
        format!("{file} has {hosts} host{s}; see kprov plan {file}, then kprov apply {file}\n")
    })
}

/// The answers that flags give; `None` when the operator is to be asked.
fn given(args: &InitArgs) -> Result<Option<Answers>, Failure> {
    if args.masters.is_empty() && args.nodes.is_empty() {
        return Ok(None);
    }
    let masters = match args.masters.is_empty() {
        true => return Err(missing("--masters")),
        false => args.masters.clone(),
    };
    let name = args.name.clone().ok_or_else(|| missing("--name"))?;
    let user = args.user.clone().unwrap_or_else(|| "root".to_owned());
    Ok(Some(Answers { name, user, key: args.key.clone(), masters, nodes: args.nodes.clone() }))
}

fn missing(flag: &str) -> Failure {
    Failure::Usage {
        message: format!("{flag} is missing"),
        advice: "give --name, --masters and --nodes, or none of them to be asked".to_owned(),
    }
}

/// Refuses what `kprov validate` would refuse, before the file is there.
fn check(text: &str, file: &Path) -> Result<(), Failure> {
    inventory::of_text(file, text)
        .map(|_| ())
        .map_err(|diagnostics| Failure::Inventory(Box::new(diagnostics)))
}

impl Answers {
    /// The inventory's text. Every text is written as TOML would have it.
    fn inventory(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut out = format!("[cluster]\nname = {}\n\n[ssh]\n", quoted(&self.name));
        out.push_str(&format!("user = {}\n", quoted(&self.user)));
        match &self.key {
            Some(key) => out.push_str(&format!("key = {}\n", quoted(key))),
            None => out.push_str("agent = true\n"),
        }
        // Members of etcd must be odd in number: an even master more serves the API alone.
        let members = self.masters.len() - usize::from(self.masters.len().is_multiple_of(2));
        let alone = self.nodes.is_empty();
        for (number, address) in self.masters.iter().enumerate() {
            let mut roles = vec!["\"master\""];
            if number < members {
                roles.insert(0, "\"etcd\"");
            }
            if alone {
                roles.push("\"node\"");
            }
            out.push_str(&host(&format!("master-{}", number + 1), *address, &roles.join(", ")));
        }
        for (number, address) in self.nodes.iter().enumerate() {
            out.push_str(&host(&format!("node-{}", number + 1), *address, "\"node\""));
        }
        out
    }
}

fn host(name: &str, address: Ipv4Addr, roles: &str) -> String {
    format!("\n[[hosts]]\nname = \"{name}\"\naddress = \"{address}\"\nroles = [{roles}]\n")
}

/// A conversation with the operator.
struct Dialog<I, O> {
    input: I,
    output: O,
}

impl<I: BufRead, O: Write> Dialog<I, O> {
    fn all(&mut self, args: &InitArgs) -> io::Result<Answers> {
        let name = args.name.clone().unwrap_or_else(|| "cluster-1".to_owned());
        let user = args.user.clone().unwrap_or_else(|| "root".to_owned());
        let key = args.key.clone().unwrap_or_default();
        let text = |text: &str| Ok(text.to_owned());
        let name = self.ask("Name of the cluster", &name, |text| match text {
            "" => Err("a name is needed".to_owned()),
            name => Ok(name.to_owned()),
        })?;
        let user = self.ask("User to log in as", &user, text)?;
        let key = self.ask("Private key file (empty for the SSH agent)", &key, text)?;
        let masters = self.ask("Addresses of the masters", "", |text| match addresses(text)? {
            masters if masters.is_empty() => Err("one master is needed".to_owned()),
            masters => Ok(masters),
        })?;
        let nodes = self.ask("Addresses of the nodes (empty: the masters)", "", addresses)?;
        Ok(Answers { name, user, key: Some(key).filter(|key| !key.is_empty()), masters, nodes })
    }

    fn ask<T>(
        &mut self,
        question: &str,
        usual: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> io::Result<T> {
        for _ in 0..ASKED_MAX {
            let shown = if usual.is_empty() { String::new() } else { format!(" [{usual}]") };
            write!(self.output, "{question}{shown}: ")?;
            self.output.flush()?;
            let mut line = String::new();
            if self.input.read_line(&mut line)? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the input has ended"));
            }
            let text = line.trim();
            match read(if text.is_empty() { usual } else { text }) {
                Ok(answer) => return Ok(answer),
                Err(why) => writeln!(self.output, "  {why}")?,
            }
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, format!("no usable answer: {question}")))
    }
}

/// Reads addresses apart by commas or blanks.
fn addresses(text: &str) -> Result<Vec<Ipv4Addr>, String> {
    let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|_| format!("`{word}` is no IPv4 address"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(file: &Path) -> InitArgs {
        let (masters, nodes) = (Vec::new(), Vec::new());
        let file = file.to_owned();
        InitArgs { file, name: None, user: None, key: None, masters, nodes, force: false }
    }

    #[test]
    fn a_conversation_ends_in_an_inventory_that_is_valid() {
        let input = "prod\nops\n\nnonsense\n10.0.0.1, 10.0.0.2 10.0.0.3\n10.0.1.1\n";
        let mut said = Vec::new();
        let mut dialog = Dialog { input: input.as_bytes(), output: &mut said };
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("c.toml");
        let answers = dialog.all(&args(&file)).unwrap();
        let said = String::from_utf8(said).unwrap();
        assert!(said.contains("`nonsense` is no IPv4 address"), "{said}");
        let text = answers.inventory();
        check(&text, &file).unwrap();
        insta::assert_snapshot!(text, @r#"
        [cluster]
        name = "prod"

        [ssh]
        user = "ops"
        agent = true

        [[hosts]]
        name = "master-1"
        address = "10.0.0.1"
        roles = ["etcd", "master"]

        [[hosts]]
        name = "master-2"
        address = "10.0.0.2"
        roles = ["etcd", "master"]

        [[hosts]]
        name = "master-3"
        address = "10.0.0.3"
        roles = ["etcd", "master"]

        [[hosts]]
        name = "node-1"
        address = "10.0.1.1"
        roles = ["node"]
        "#);
    }

    #[test]
    fn an_even_number_of_masters_and_no_nodes_are_valid_too() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("c.toml");
        let flags = InitArgs {
            name: Some("c".to_owned()),
            masters: vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2)],
            ..args(&file)
        };
        let answers = given(&flags).unwrap().unwrap();
        check(&answers.inventory(), &file).unwrap();
        let nameless = InitArgs { name: None, ..flags };
        assert!(matches!(given(&nameless), Err(Failure::Usage { .. })));
        assert!(matches!(given(&args(&file)), Ok(None)));
    }

    #[test]
    fn what_is_wrong_is_told_and_no_file_is_left() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("c.toml");
        let answers = Answers {
            name: "Not A Label".to_owned(),
            user: "root".to_owned(),
            key: None,
            masters: vec![Ipv4Addr::new(10, 0, 0, 1)],
            nodes: Vec::new(),
        };
        let failure = check(&answers.inventory(), &file).unwrap_err();
        assert!(matches!(failure, Failure::Inventory(_)));
        assert_eq!(std::fs::read_dir(scratch.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_input_that_ends_is_an_error() {
        let mut said = Vec::new();
        let mut dialog = Dialog { input: &b"prod\n"[..], output: &mut said };
        assert!(dialog.all(&args(Path::new("c.toml"))).is_err());
    }
}
