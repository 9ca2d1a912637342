//! [`KnownImages`]: which images the node has, as far as is known without asking.

use std::sync::Arc;

use crate::runtime::ImageRecord;

/// When there are more, all are forgotten: whoever asks for one looks again.
const IMAGES_MAX: usize = 100;

/// Images that the runtime has shown. Somebody may have removed one since: whoever starts a
/// container of one by trusting this is told so then, and says it here.
#[derive(Clone, Default)]
pub(crate) struct KnownImages(
    /// A node of a simulation has one or two.
    Vec<(Box<str>, Arc<ImageRecord>)>,
);

impl KnownImages {
    /// The image that containers call so.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<ImageRecord>> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, image)| image)
    }

    /// Notes what the runtime has shown.
    pub(crate) fn found(&mut self, name: &str, image: &Arc<ImageRecord>) {
        self.forget(name);
        if self.0.len() >= IMAGES_MAX {
            self.0.clear();
        }
        self.0.reserve_exact(1);
        self.0.push((name.into(), image.clone()));
    }

    /// The image may not be there any more.
    pub(crate) fn forget(&mut self, name: &str) {
        self.0.retain(|(known, _)| **known != *name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_is_bounded_and_the_last_one_counts() {
        let image = |id: &str| {
            Arc::new(ImageRecord { id: id.to_owned(), user: String::new(), size_bytes: 0 })
        };
        let mut known = KnownImages::default();
        for i in 0..=IMAGES_MAX {
            known.found(&format!("image:{i}"), &image("a"));
        }
        assert!(known.get("image:0").is_none());
        known.found("image:100", &image("b"));
        assert_eq!(known.get("image:100").map(|i| &*i.id), Some("b"));
        assert_eq!(known.0.len(), 1);
        known.forget("image:100");
        assert!(known.get("image:100").is_none());
    }
}
