//! The containers of one node.

use std::collections::VecDeque;

use crate::Labels;
use api::hash;

use super::container::Container;

/// What containers are looked for by, close together: of a hundred containers of a node that
/// nothing happened on for a while, each look at one is a look at memory that is far away.
#[derive(Clone, Copy)]
struct Tag {
    number: u32,
    /// Of the labels.
    hash: u32,
}

impl Tag {
    fn of(labels: &Labels) -> u32 {
        let bytes = hash::fold(labels).to_le_bytes();
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
    }
}

/// Containers in the order of their numbers, which is the one in which they were made.
#[derive(Clone, Default)]
pub(super) struct Containers {
    tags: VecDeque<Tag>,
    /// In the order of `tags`. The oldest go first: a queue moves little then.
    all: VecDeque<Container>,
}

impl Containers {
    pub(super) fn iter(&self) -> impl Iterator<Item = &Container> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Container> {
        self.all.iter_mut()
    }

    fn place(&self, number: u32) -> Option<usize> {
        self.tags.binary_search_by_key(&number, |tag| tag.number).ok()
    }

    pub(super) fn find(&self, number: u32) -> Option<&Container> {
        self.all.get(self.place(number)?)
    }

    pub(super) fn find_mut(&mut self, number: u32) -> Option<&mut Container> {
        let at = self.place(number)?;
        self.all.get_mut(at)
    }

    /// The number of the container with these labels.
    pub(super) fn labelled(&self, labels: &Labels) -> Option<u32> {
        let hash = Tag::of(labels);
        let alike = self.tags.iter().zip(&self.all).filter(|(tag, _)| tag.hash == hash);
        alike.map(|(_, container)| container).find(|c| c.labels == *labels).map(|c| c.number)
    }

    /// Adds a container with a number above all others.
    pub(super) fn push(&mut self, container: Container) {
        if self.all.len() == self.all.capacity() {
            // There may be a hundred thousand runtimes: doubling would leave much unused.
            let room = 4 + self.all.len() / 4;
            self.all.reserve_exact(room);
            self.tags.reserve_exact(room);
        }
        self.tags.push_back(Tag { number: container.number, hash: Tag::of(&container.labels) });
        self.all.push_back(container);
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<Container> {
        let at = self.place(number)?;
        self.tags.remove(at);
        let removed = self.all.remove(at);
        if self.all.is_empty() {
            *self = Self::default();
        }
        removed
    }
}
