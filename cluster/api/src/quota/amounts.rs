//! [`Amounts`]: how much of which resources.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity as Text;

use crate::quantity::Quantity;

/// How much of which resources, by name.
#[derive(Clone, Debug, Default)]
pub struct Amounts(BTreeMap<String, Quantity>);

impl Amounts {
    /// From a list of an object; what is no quantity is left out (validation refuses it).
    pub fn of_list(list: Option<&BTreeMap<String, Text>>) -> Self {
        let parsed =
            |(name, text): (&String, &Text)| Some((name.clone(), Quantity::parse(&text.0).ok()?));
        Self(list.into_iter().flatten().filter_map(parsed).collect())
    }

    /// As a list of an object.
    pub fn to_list(&self) -> BTreeMap<String, Text> {
        self.0.iter().map(|(name, amount)| (name.clone(), Text(amount.to_string()))).collect()
    }

    /// Whether there is nothing, not even none of something.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names and amounts, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Quantity)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The amount of one resource.
    pub fn get(&self, name: &str) -> Option<Quantity> {
        self.0.get(name).copied()
    }

    /// Sets the amount of one resource.
    pub fn set(&mut self, name: &str, amount: Quantity) {
        self.0.insert(name.to_owned(), amount);
    }

    /// Adds each amount.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let sum = self.0.get(name).map_or(*amount, |held| held.plus(*amount));
            self.0.insert(name.clone(), sum);
        }
    }

    /// Adds each amount of what is there already.
    pub fn add_to_present(&mut self, other: &Self) {
        for (name, amount) in &mut self.0 {
            if let Some(more) = other.get(name) {
                *amount = amount.plus(more);
            }
        }
    }

    /// Takes each amount away; of none is less left than nothing.
    pub fn take(&mut self, other: &Self) {
        for (name, amount) in &mut self.0 {
            let left = other.get(name).map_or(*amount, |taken| amount.minus(taken));
            *amount = if left.is_negative() { Quantity::whole(0) } else { left };
        }
    }

    /// Raises each amount to the other one, if that is higher.
    pub fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let held = self.0.entry(name.clone()).or_insert(*amount);
            if held.nano() < amount.nano() {
                *held = *amount;
            }
        }
    }

    /// The amounts of the resources for which that holds.
    #[must_use]
    pub fn only(&self, holds: impl Fn(&str) -> bool) -> Self {
        let kept = self.0.iter().filter(|(name, _)| holds(name));
        Self(kept.map(|(name, amount)| (name.clone(), *amount)).collect())
    }

    /// The resources of which there is more here than there, of those that are named in both.
    pub fn beyond<'a>(&'a self, most: &'a Self) -> impl Iterator<Item = &'a str> {
        let more = |(name, amount): &(&'a String, &Quantity)| {
            most.get(name).is_some_and(|most| amount.nano() > most.nano())
        };
        self.0.iter().filter(more).map(|(name, _)| name.as_str())
    }
}

/// Amounts are equal however they are written.
impl PartialEq for Amounts {
    fn eq(&self, other: &Self) -> bool {
        let plain = |(name, amount): (&String, &Quantity)| (name.clone(), amount.nano());
        self.0.iter().map(plain).eq(other.0.iter().map(plain))
    }
}

/// `cpu=1,pods=2`, as refusals name amounts.
impl std::fmt::Display for Amounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (i, (name, amount)) in self.0.iter().enumerate() {
            let comma = if i > 0 { "," } else { "" };
            write!(f, "{comma}{name}={amount}")?;
        }
        Ok(())
    }
}
