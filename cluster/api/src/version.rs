//! What this build calls itself.

/// The version of the Kubernetes API that is served, with ours as build metadata.
pub const GIT_VERSION: &str = concat!("v1.33.0+kprov.", env!("CARGO_PKG_VERSION"));
/// Major version of the API.
pub const MAJOR: &str = "1";
/// Minor version of the API.
pub const MINOR: &str = "33";
