//! Reading a TOML file by hand, with the place of everything: each [`Section`] is asked for the
//! keys that it may have, notes what is wrong with their values, and at the end names the keys
//! that nobody asked for. Nothing stops at the first mistake.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::str::FromStr;

use serde::de::value::StrDeserializer;
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::forward_to_deserialize_any;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::diagnostics::Problem;
use super::suggest::did_you_mean;
use crate::distribution::{Amount, Decimal, Distribution};
use crate::span::Span;

/// Where findings are noted.
pub(crate) type Problems = RefCell<Vec<Problem>>;

/// A table of the file.
pub(crate) struct Section<'a> {
    table: &'a DeTable<'a>,
    place: Range<usize>,
    /// As people write it: `nodes[2].labels`; empty for the file.
    path: String,
    asked: RefCell<Vec<&'static str>>,
    problems: &'a Problems,
}

/// A value of the file.
#[derive(Clone)]
pub(crate) struct Value<'a> {
    value: &'a Spanned<DeValue<'a>>,
    path: String,
    problems: &'a Problems,
}

/// How amounts of a kind are written.
pub(crate) struct Unit<T> {
    /// What it must be, for people.
    pub(crate) noun: &'static str,
    /// Reads a text or number as it stands in the file.
    pub(crate) parse: fn(&str) -> Option<T>,
}

/// Lengths of time.
pub(crate) const TIME: Unit<Span> =
    Unit { noun: "a length of time such as \"250ms\", \"1.5s\" or \"1h30m\"", parse: time };
/// Thousandths of a CPU.
pub(crate) const CPU: Unit<u64> =
    Unit { noun: "CPUs such as \"2\", \"0.5\" or \"250m\"", parse: cpu };
/// Bytes.
pub(crate) const MEMORY: Unit<u64> =
    Unit { noun: "an amount of memory such as \"512Mi\" or \"64Gi\"", parse: memory };
/// Pieces.
pub(crate) const COUNT: Unit<u64> = Unit { noun: "a whole number", parse: count };

fn time(text: &str) -> Option<Span> {
    text.parse().ok()
}

fn cpu(text: &str) -> Option<u64> {
    let quantity = api::quantity::Quantity::parse(text).ok()?;
    u64::try_from(quantity.milli()).ok()
}

fn memory(text: &str) -> Option<u64> {
    let quantity = api::quantity::Quantity::parse(text).ok()?;
    u64::try_from(quantity.value()).ok()
}

fn count(text: &str) -> Option<u64> {
    text.parse().ok()
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(crate) fn root(table: &'a Spanned<DeTable<'a>>, problems: &'a Problems) -> Self {
        Self {
            table: table.get_ref(),
            // Findings about the file as a whole stand at its start.
            place: 0..0,
            path: String::new(),
            asked: RefCell::default(),
            problems,
        }
    }

    /// Where the table stands.
    pub(crate) fn place(&self) -> Range<usize> {
        self.place.clone()
    }

    /// How people call it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Notes a finding.
    pub(crate) fn report(&self, problem: Problem) {
        self.problems.borrow_mut().push(problem);
    }

    /// Whether the file has mistakes, as far as it is read.
    pub(crate) fn has_errors(&self) -> bool {
        self.problems.borrow().iter().any(|problem| !problem.warning)
    }

    /// How many keys there are.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Where the key stands, or the table when it is not there.
    pub(crate) fn place_of(&self, key: &str) -> Range<usize> {
        self.table.get_key_value(key).map_or_else(|| self.place(), |(key, _)| key.span())
    }

    /// The value of a key, if it is there.
    pub(crate) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key);
        let value = self.table.get(key)?;
        Some(Value { value, path: self.join(key), problems: self.problems })
    }

    /// The value of a key, which must be there.
    pub(crate) fn need(&self, key: &'static str) -> Option<Value<'a>> {
        let value = self.get(key);
        if value.is_none() {
            let problem = Problem::error(self.place(), format!("{} lacks `{key}`", self.name()));
            self.report(problem.label(format!("needs `{key}`")));
        }
        value
    }

    /// Names the keys that nobody asked for.
    pub(crate) fn finish(&self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table {
            let name = key.get_ref().as_ref();
            if asked.contains(&name) {
                continue;
            }
            let message = format!("unknown key `{name}` in {}", self.name());
            self.report(
                Problem::error(key.span(), message)
                    .label("not known here")
                    .help(did_you_mean(name, asked.iter().copied())),
            );
        }
    }

    /// All keys with their values, in the order of the file: for tables of names.
    pub(crate) fn entries(&self) -> Vec<(&'a str, Range<usize>, Value<'a>)> {
        let mut entries: Vec<(&str, Range<usize>, Value<'_>)> = self
            .table
            .iter()
            .map(|(key, value)| {
                let name: &str = key.get_ref();
                let path = self.join(name);
                (name, key.span(), Value { value, path, problems: self.problems })
            })
            .collect();
        entries.sort_by_key(|(_, place, _)| place.start);
        entries
    }

    pub(crate) fn text(&self, key: &'static str) -> Option<&'a str> {
        self.get(key)?.text()
    }

    pub(crate) fn truth(&self, key: &'static str) -> Option<bool> {
        self.get(key)?.truth()
    }

    pub(crate) fn time(&self, key: &'static str) -> Option<Span> {
        self.get(key)?.amount(&TIME)
    }

    /// A whole number in a range.
    pub(crate) fn whole<T>(&self, key: &'static str, range: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + Display + PartialOrd + TryFrom<i128>,
    {
        self.get(key)?.whole(range)
    }

    pub(crate) fn distribution<T: Amount>(
        &self,
        key: &'static str,
        unit: &Unit<T>,
    ) -> Option<Distribution<T>> {
        self.get(key)?.distribution(unit)
    }

    pub(crate) fn section(&self, key: &'static str) -> Option<Self> {
        self.get(key)?.section()
    }

    /// The tables of a list of tables; none when it is absent.
    pub(crate) fn sections(&self, key: &'static str) -> Vec<Self> {
        let items = self.get(key).and_then(|value| value.list()).unwrap_or_default();
        items.into_iter().filter_map(|item| item.section()).collect()
    }

    fn join(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    fn name(&self) -> String {
        if self.path.is_empty() { "the scenario".to_owned() } else { format!("`{}`", self.path) }
    }
}

impl<'a> Value<'a> {
    /// Where it stands.
    pub(crate) fn place(&self) -> Range<usize> {
        self.value.span()
    }

    /// How people call it.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Notes what is wrong with it.
    pub(crate) fn report(&self, message: impl Into<String>, label: &str, help: impl Into<String>) {
        let problem = Problem::error(self.place(), message).label(label).help(help);
        self.problems.borrow_mut().push(problem);
    }

    pub(crate) fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(_))
    }

    pub(crate) fn is_text(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::String(_))
    }

    fn wrong_type(&self, wanted: &str) {
        let found = noun(self.value.get_ref());
        let help = match self.value.get_ref() {
            DeValue::Integer(_) | DeValue::Float(_) if wanted.contains('"') => {
                "write a unit, and quotes around it"
            }
            DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) if wanted == "text" => {
                "write it in quotes"
            }
            DeValue::String(text)
                if wanted.contains("number") && text.parse::<i64>().is_ok()
                    || wanted == "true or false" && text.parse::<bool>().is_ok() =>
            {
                "write it without quotes"
            }
            DeValue::Table(_) if wanted == "a list" => {
                "a list of tables is written with double brackets, as in `[[nodes]]`"
            }
            DeValue::String(_) if wanted == "a list" => {
                "write it in brackets, as in [\"a\", \"b\"]"
            }
            _ => "",
        };
        let message = format!("`{}` must be {wanted}, not {found}", self.path);
        self.report(message, &format!("this is {found}"), help);
    }

    pub(crate) fn text(&self) -> Option<&'a str> {
        let DeValue::String(text) = self.value.get_ref() else {
            self.wrong_type("text");
            return None;
        };
        Some(text)
    }

    pub(crate) fn truth(&self) -> Option<bool> {
        let DeValue::Boolean(truth) = self.value.get_ref() else {
            self.wrong_type("true or false");
            return None;
        };
        Some(*truth)
    }

    /// A whole number in a range.
    pub(crate) fn whole<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: Copy + Display + PartialOrd + TryFrom<i128>,
    {
        let DeValue::Integer(number) = self.value.get_ref() else {
            self.wrong_type("a whole number");
            return None;
        };
        let parsed = i128::from_str_radix(number.as_str(), number.radix()).ok();
        let number = parsed.and_then(|n| T::try_from(n).ok()).filter(|n| range.contains(n));
        if number.is_none() {
            let label = format!("must be from {} to {}", range.start(), range.end());
            self.report(format!("`{}` is out of range", self.path), &label, "");
        }
        number
    }

    /// A number with up to three digits after the point.
    pub(crate) fn decimal(&self) -> Option<Decimal> {
        let Some(text) = self.number() else {
            self.wrong_type("a number");
            return None;
        };
        let number = text.parse().ok();
        if number.is_none() {
            let label = "must be from 0 to 1000000000, with up to three digits after the point";
            self.report(format!("`{}` is out of range", self.path), label, "");
        }
        number
    }

    fn number(&self) -> Option<&'a str> {
        match self.value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => Some(number.as_str()),
            DeValue::Float(number) => Some(number.as_str()),
            _ => None,
        }
    }

    /// An amount with its unit; CPUs and counts may be plain numbers.
    pub(crate) fn amount<T>(&self, unit: &Unit<T>) -> Option<T> {
        let text = match self.value.get_ref() {
            DeValue::String(text) if unit.noun != COUNT.noun => Some(&**text),
            _ if unit.noun == CPU.noun || unit.noun == COUNT.noun => self.number(),
            _ => None,
        };
        let Some(text) = text else {
            self.wrong_type(unit.noun);
            return None;
        };
        let amount = (unit.parse)(text);
        if amount.is_none() {
            let message = format!("`{}` cannot be `{text}`", self.path);
            self.report(message, "not understood", format!("write {}", unit.noun));
        }
        amount
    }

    /// A constant amount, or a table that says how amounts are spread.
    pub(crate) fn distribution<T: Amount>(&self, unit: &Unit<T>) -> Option<Distribution<T>> {
        let DeValue::Table(_) = self.value.get_ref() else {
            return self.amount(unit).map(Distribution::Constant);
        };
        let section = self.section()?;
        let before = self.problems.borrow().len();
        let amount = |key: &'static str| section.need(key).and_then(|v| v.amount(unit));
        let distribution = if section.has("mean") {
            amount("mean").map(|mean| Distribution::Exponential { mean })
        } else if section.has("median") || section.has("p99") {
            let (median, p99) = (amount("median"), amount("p99"));
            median.zip(p99).map(|(median, p99)| Distribution::Skewed { median, p99 })
        } else if section.has("quantiles") {
            let pairs = section.get("quantiles")?.pairs(unit, Value::decimal);
            pairs.map(|quantiles| Distribution::Empirical { quantiles })
        } else if section.has("choices") {
            let pairs = section.get("choices")?.pairs(unit, |weight| weight.whole(0..=1_000_000));
            pairs.map(|choices| Distribution::Choices { choices })
        } else if section.has("min") || section.has("max") || section.has("shape") {
            let (min, max, shape) = (amount("min"), amount("max"), section.get("shape"));
            let range = min.zip(max);
            match shape.map(|s| s.decimal()) {
                None => range.map(|(min, max)| Distribution::Uniform { min, max }),
                Some(shape) => range.zip(shape).map(|((min, max), shape)| Distribution::Pareto {
                    min,
                    max,
                    shape,
                }),
            }
        } else {
            let help = "write { min, max }, { min, max, shape }, { median, p99 }, { mean }, \
                        { quantiles = [[50, …], …] } or { choices = [[1, …], …] }";
            self.report(format!("`{}` is no distribution", self.path), "of which kind?", help);
            return None;
        };
        section.finish();
        if self.problems.borrow().len() > before {
            return None;
        }
        let distribution = distribution?;
        if let Some(fault) = distribution.fault() {
            self.report(format!("`{}`: {fault}", self.path), "no such distribution", "");
            return None;
        }
        Some(distribution)
    }

    /// A list of pairs of a number and an amount.
    pub(crate) fn pairs<N, T>(
        &self,
        unit: &Unit<T>,
        number: impl Fn(&Self) -> Option<N>,
    ) -> Option<Vec<(N, T)>> {
        let items = self.list()?;
        let mut pairs = Vec::with_capacity(items.len());
        for item in items {
            let pair = item.list()?;
            let [first, second] = pair.as_slice() else {
                item.report(format!("`{}` must be a pair", item.path), "not two values", "");
                return None;
            };
            pairs.push((number(first)?, second.amount(unit)?));
        }
        Some(pairs)
    }

    pub(crate) fn list(&self) -> Option<Vec<Self>> {
        let DeValue::Array(array) = self.value.get_ref() else {
            self.wrong_type("a list");
            return None;
        };
        let array: &'a DeArray<'a> = array;
        let item = |(i, value)| Value {
            value,
            path: format!("{}[{i}]", self.path),
            problems: self.problems,
        };
        Some(array.iter().enumerate().map(item).collect())
    }

    pub(crate) fn section(&self) -> Option<Section<'a>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            self.wrong_type("a table");
            return None;
        };
        Some(Section {
            table,
            place: self.place(),
            path: self.path.clone(),
            asked: RefCell::default(),
            problems: self.problems,
        })
    }

    /// One of the words of an enumeration.
    pub(crate) fn choice<T: DeserializeOwned>(&self) -> Option<T> {
        let text = self.text()?;
        let deserializer: StrDeserializer<'_, serde::de::value::Error> = StrDeserializer::new(text);
        let read = T::deserialize(deserializer).ok();
        if read.is_none() {
            self.no_choice(text, words_of::<T>().iter().copied());
        }
        read
    }

    /// The position of a name among those that are known.
    pub(crate) fn position<'n>(
        &self,
        what: &str,
        known: impl IntoIterator<Item = &'n str> + Clone,
    ) -> Option<usize> {
        let text = self.text()?;
        let found = known.clone().into_iter().position(|name| name == text);
        if found.is_none() {
            let message = format!("there is no {what} `{text}`");
            self.report(message, "not known", did_you_mean(text, known));
        }
        found
    }

    /// Notes that a word is none of those that are known.
    pub(crate) fn no_choice<'n>(&self, text: &str, known: impl IntoIterator<Item = &'n str>) {
        let message = format!("`{}` cannot be `{text}`", self.path);
        self.report(message, "not known", did_you_mean(text, known));
    }

    /// A text that is read by its own rules.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self) -> Option<T> {
        let text = self.text()?;
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                let message = format!("`{}` cannot be `{text}`", self.path);
                self.report(message, "not understood", error.to_string());
                None
            }
        }
    }
}

fn noun(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// The words of an enumeration without contents, as its deserializer tells them.
pub(crate) fn words_of<T: DeserializeOwned>() -> &'static [&'static str] {
    struct Ask<'a>(&'a mut &'static [&'static str]);

    impl<'de> serde::Deserializer<'de> for Ask<'_> {
        type Error = serde::de::value::Error;

        fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
            Err(Self::Error::custom("no enumeration"))
        }

        fn deserialize_enum<V: Visitor<'de>>(
            self,
            _: &'static str,
            variants: &'static [&'static str],
            _: V,
        ) -> Result<V::Value, Self::Error> {
            *self.0 = variants;
            Err(Self::Error::custom("only asked"))
        }

        forward_to_deserialize_any! {
            bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
            option unit unit_struct newtype_struct seq tuple tuple_struct map struct identifier
            ignored_any
        }
    }

    let mut words: &'static [&'static str] = &[];
    // Always an error; the words are what was wanted.
    let _: Result<T, _> = T::deserialize(Ask(&mut words));
    words
}
