//! Kubeconfig files.

use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::{Config, Credentials, Pem};

/// A kubeconfig file, as far as a component needs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Kubeconfig {
    #[serde(default)]
    clusters: Vec<NamedCluster>,
    #[serde(default)]
    users: Vec<NamedUser>,
    #[serde(default)]
    contexts: Vec<NamedContext>,
    #[serde(default)]
    current_context: String,
}

#[derive(Clone, Debug, Deserialize)]
struct NamedCluster {
    name: String,
    cluster: Cluster,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Cluster {
    server: String,
    certificate_authority: Option<PathBuf>,
    certificate_authority_data: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
struct NamedUser {
    name: String,
    user: User,
}

#[derive(Clone, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct User {
    client_certificate: Option<PathBuf>,
    client_certificate_data: Option<String>,
    client_key: Option<PathBuf>,
    client_key_data: Option<String>,
    token: Option<String>,
    #[serde(rename = "tokenFile")]
    token_file: Option<PathBuf>,
}

impl std::fmt::Debug for User {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("User(redacted)")
    }
}

#[derive(Clone, Debug, Deserialize)]
struct NamedContext {
    name: String,
    context: Context,
}

#[derive(Clone, Debug, Deserialize)]
struct Context {
    cluster: String,
    user: String,
}

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    /// The file cannot be read.
    #[error("cannot read the kubeconfig {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is no kubeconfig.
    #[error("{path} is no kubeconfig: {message}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        message: String,
    },
    /// A name in the file refers to nothing.
    #[error("{path} has no {what} {name:?}")]
    Missing {
        /// The file.
        path: PathBuf,
        /// Context, cluster or user.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Embedded data is not base64 of UTF-8, or is missing.
    #[error("{path}: {field} is missing or is no base64 of PEM text")]
    Data {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
    },
}

impl Kubeconfig {
    /// Reads a kubeconfig and returns the client settings of its current context. `servers`
    /// replaces the server of the file unless it is empty.
    ///
    /// # Errors
    /// The file is unreadable, malformed or incomplete.
    pub fn load(
        path: &Path,
        servers: &[String],
        user_agent: &str,
    ) -> Result<Config, KubeconfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| KubeconfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)?.config(path, servers, user_agent)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, KubeconfigError> {
        serde_saphyr::from_str(text).map_err(|error| KubeconfigError::Parse {
            path: path.to_owned(),
            message: error.to_string(),
        })
    }

    fn config(
        &self,
        path: &Path,
        servers: &[String],
        user_agent: &str,
    ) -> Result<Config, KubeconfigError> {
        let missing = |what: &'static str, name: &str| KubeconfigError::Missing {
            path: path.to_owned(),
            what,
            name: name.to_owned(),
        };
        let current = &self.current_context;
        let context = &self
            .contexts
            .iter()
            .find(|c| c.name == *current)
            .ok_or_else(|| missing("context", current))?
            .context;
        let cluster = &self
            .clusters
            .iter()
            .find(|c| c.name == context.cluster)
            .ok_or_else(|| missing("cluster", &context.cluster))?
            .cluster;
        let user = &self
            .users
            .iter()
            .find(|u| u.name == context.user)
            .ok_or_else(|| missing("user", &context.user))?
            .user;
        let ca = pem(
            path,
            "certificate-authority",
            cluster.certificate_authority.as_deref(),
            cluster.certificate_authority_data.as_deref(),
        )?;
        Ok(Config {
            servers: if servers.is_empty() {
                vec![cluster.server.clone()]
            } else {
                servers.to_vec()
            },
            ca,
            credentials: credentials(path, user)?,
            user_agent: user_agent.to_owned(),
        })
    }
}

fn credentials(path: &Path, user: &User) -> Result<Credentials, KubeconfigError> {
    if let Some(token) = &user.token {
        return Ok(Credentials::Token(token.clone()));
    }
    if let Some(file) = &user.token_file {
        let token = std::fs::read_to_string(file)
            .map_err(|source| KubeconfigError::Read { path: file.clone(), source })?;
        return Ok(Credentials::Token(token.trim().to_owned()));
    }
    let cert = pem(
        path,
        "client-certificate",
        user.client_certificate.as_deref(),
        user.client_certificate_data.as_deref(),
    )?;
    let key = pem(path, "client-key", user.client_key.as_deref(), user.client_key_data.as_deref())?;
    Ok(Credentials::Certificate { cert, key })
}

/// File paths are relative to the kubeconfig's own folder.
fn pem(
    path: &Path,
    field: &'static str,
    file: Option<&Path>,
    data: Option<&str>,
) -> Result<Pem, KubeconfigError> {
    let error = || KubeconfigError::Data { path: path.to_owned(), field };
    match (data, file) {
        (Some(data), _) => {
            let bytes = STANDARD.decode(data.trim()).map_err(|_| error())?;
            Ok(Pem::Inline(String::from_utf8(bytes).map_err(|_| error())?))
        }
        (None, Some(file)) => {
            let folder = path.parent().unwrap_or_else(|| Path::new("."));
            Ok(Pem::File(folder.join(file)))
        }
        (None, None) => Err(error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r"
apiVersion: v1
kind: Config
current-context: default
clusters:
- name: lab
  cluster: {server: 'https://10.0.0.1:6443', certificate-authority-data: Q0E=}
users:
- name: me
  user: {client-certificate: pki/a.crt, client-key: /pki/a.key}
contexts:
- name: default
  context: {cluster: lab, user: me}
";

    #[test]
    fn reads_the_current_context() {
        let path = Path::new("/etc/kubernetes/x.kubeconfig");
        let file = Kubeconfig::parse(TEXT, path).unwrap();
        let config = file.config(path, &[], "test").unwrap();
        assert_eq!(config.servers, ["https://10.0.0.1:6443"]);
        let Credentials::Certificate { cert: Pem::File(cert), key: Pem::File(key) } =
            &config.credentials
        else {
            panic!("{config:?}")
        };
        assert_eq!(cert, Path::new("/etc/kubernetes/pki/a.crt"));
        assert_eq!(key, Path::new("/pki/a.key"));
        let several = ["https://a:1".to_owned(), "https://b:1".to_owned()];
        assert_eq!(file.config(path, &several, "test").unwrap().servers, several);
    }

    #[test]
    fn names_what_is_missing() {
        let path = Path::new("k");
        let text = TEXT.replace("user: me", "user: you");
        let error = Kubeconfig::parse(&text, path).unwrap().config(path, &[], "t").unwrap_err();
        assert_eq!(error.to_string(), r#"k has no user "you""#);
    }
}
