//! Images: is it here, fetch it.

use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::TryStreamExt;
use kubelet::runtime::ImageRecord;
use kubelet::{RuntimeError, RuntimeErrorKind};

use super::{Runtime, error};

impl Runtime {
    /// Looks for an image on the node.
    pub(super) async fn inspect_image(
        &self,
        image: &str,
    ) -> Result<Option<ImageRecord>, RuntimeError> {
        match self.docker.inspect_image(image).await {
            Ok(found) => Ok(Some(ImageRecord {
                id: found.id.unwrap_or_default(),
                user: found.config.and_then(|c| c.user).unwrap_or_default(),
                size_bytes: found.size.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
            })),
            Err(error) if error::code(&error) == Some(404) => Ok(None),
            Err(error) => Err(error::plain(&error)),
        }
    }

    /// Fetches an image.
    pub(super) async fn pull_image(
        &self,
        image: &str,
    ) -> Result<Option<ImageRecord>, RuntimeError> {
        // Without a tag Docker would fetch all of them.
        let name = image.rsplit('/').next().unwrap_or_default();
        let reference =
            if name.contains([':', '@']) { image.to_owned() } else { format!("{image}:latest") };
        let options = CreateImageOptionsBuilder::new().from_image(&reference).build();
        let progress = self.docker.create_image(Some(options), None, None);
        let failed = |error: &bollard::errors::Error| error::at(error, RuntimeErrorKind::Other);
        progress.try_for_each(|_| async { Ok(()) }).await.map_err(|e| failed(&e))?;
        self.inspect_image(image).await
    }
}
