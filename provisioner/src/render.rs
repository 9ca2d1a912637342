//! Templates: embedded in the program, each replaceable by a file of the same name.
//!
//! A variable that does not exist is an error, never an empty text. Nothing is escaped: what goes
//! into a template has been checked with the inventory.

mod lines;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use serde::Serialize;
use tera::{Context, Kwargs, Map, State, Tera};
use thiserror::Error;

/// The embedded templates by name.
const EMBEDDED: [(&str, &str); 30] = [
    ("admin.kubeconfig", include_str!("../../templates/admin.kubeconfig")),
    ("apiserver-proxy.env", include_str!("../../templates/apiserver-proxy.env")),
    ("apiserver-proxy.service", include_str!("../../templates/apiserver-proxy.service")),
    ("bootstrap.kubeconfig", include_str!("../../templates/bootstrap.kubeconfig")),
    ("cluster-dns.env", include_str!("../../templates/cluster-dns.env")),
    ("cluster-dns.service", include_str!("../../templates/cluster-dns.service")),
    ("component.kubeconfig", include_str!("../../templates/component.kubeconfig")),
    ("docker-flannel.conf", include_str!("../../templates/docker-flannel.conf")),
    ("etcd.env", include_str!("../../templates/etcd.env")),
    ("etcd.service", include_str!("../../templates/etcd.service")),
    ("flanneld.env", include_str!("../../templates/flanneld.env")),
    ("flanneld.service", include_str!("../../templates/flanneld.service")),
    ("kube-apiserver.env", include_str!("../../templates/kube-apiserver.env")),
    ("kube-apiserver.service", include_str!("../../templates/kube-apiserver.service")),
    ("kube-controller-manager.env", include_str!("../../templates/kube-controller-manager.env")),
    (
        "kube-controller-manager.service",
        include_str!("../../templates/kube-controller-manager.service"),
    ),
    ("kube-proxy.env", include_str!("../../templates/kube-proxy.env")),
    ("kube-proxy.service", include_str!("../../templates/kube-proxy.service")),
    ("kube-proxy.yaml", include_str!("../../templates/kube-proxy.yaml")),
    ("kube-scheduler.env", include_str!("../../templates/kube-scheduler.env")),
    ("kube-scheduler.service", include_str!("../../templates/kube-scheduler.service")),
    ("kubelet.env", include_str!("../../templates/kubelet.env")),
    ("kubelet.service", include_str!("../../templates/kubelet.service")),
    ("kubelet.yaml", include_str!("../../templates/kubelet.yaml")),
    ("limits.conf", include_str!("../../templates/limits.conf")),
    ("modules.conf", include_str!("../../templates/modules.conf")),
    ("shared.env", include_str!("../../templates/shared.env")),
    ("static-pod.yaml", include_str!("../../templates/static-pod.yaml")),
    ("sysctl.conf", include_str!("../../templates/sysctl.conf")),
    ("token.csv", include_str!("../../templates/token.csv")),
];

/// Why a template cannot be used.
#[derive(Debug, Error)]
pub enum RenderError {
    /// The directory of replacements, or a file in it, cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file in the directory of replacements replaces nothing.
    #[error("{} replaces no template; the templates are {known}", path.display())]
    Unknown {
        /// The file.
        path: PathBuf,
        /// All names of templates.
        known: String,
    },
    /// A template cannot be parsed.
    #[error("a template cannot be parsed")]
    Parse(#[source] tera::Error),
    /// A template cannot be filled in, mostly because it names a variable that does not exist.
    #[error("template {name} cannot be filled in")]
    Render {
        /// Its name.
        name: String,
        /// Why, with the place in the template.
        #[source]
        source: tera::Error,
    },
}

/// All templates, ready to be filled in.
#[derive(Debug)]
pub struct Templates {
    tera: Tera,
}

impl Templates {
    /// The templates as they come with the program.
    ///
    /// # Errors
    /// Only if an embedded template is malformed, which a test excludes.
    pub fn embedded() -> Result<Self, RenderError> {
        Self::parse(EMBEDDED.iter().map(|(name, text)| (*name, (*text).to_owned())).collect())
    }

    /// The embedded templates, those of `dir` taking the place of their namesakes.
    ///
    /// # Errors
    /// When a file cannot be read or parsed, or is none's namesake.
    pub fn with_overrides(dir: &Path) -> Result<Self, RenderError> {
        let mut texts: Vec<(&str, String)> =
            EMBEDDED.iter().map(|(name, text)| (*name, (*text).to_owned())).collect();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RenderError::Read { path, source }
        };
        for entry in std::fs::read_dir(dir).map_err(failed(dir))? {
            let entry = entry.map_err(failed(dir))?;
            let (path, name) = (entry.path(), entry.file_name());
            if path.is_dir() || name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let Some(own) = texts.iter_mut().find(|(known, _)| *known == name.as_os_str()) else {
                let known = EMBEDDED.map(|(name, _)| name).join(", ");
                return Err(RenderError::Unknown { path, known });
            };
            own.1 = std::fs::read_to_string(&path).map_err(failed(&path))?;
        }
        Self::parse(texts)
    }

    /// Names of all templates, sorted.
    pub fn names() -> impl Iterator<Item = &'static str> {
        EMBEDDED.iter().map(|(name, _)| *name)
    }

    fn parse(texts: Vec<(&str, String)>) -> Result<Self, RenderError> {
        let mut tera = Tera::new();
        tera.autoescape_on(Vec::<&'static str>::new());
        // Filters must be known before the templates that use them.
        tera.register_filter("options", |text: &str, args: Kwargs, _: &State| {
            let extra = extra(args.must_get::<&Map>("extra")?);
            Ok::<_, tera::Error>(lines::options(text, &extra))
        });
        tera.register_filter("settings", |text: &str, args: Kwargs, _: &State| {
            let extra = extra(args.must_get::<&Map>("extra")?);
            Ok::<_, tera::Error>(lines::settings(text, args.must_get::<&str>("prefix")?, &extra))
        });
        tera.add_raw_templates(texts).map_err(RenderError::Parse)?;
        Ok(Self { tera })
    }

    /// Fills the template called `name` in with the fields of `values`.
    ///
    /// # Errors
    /// When the template names a variable that `values` lacks, or there is no such template.
    pub fn render(&self, name: &str, values: &impl Serialize) -> Result<String, RenderError> {
        let failed = |source| RenderError::Render { name: name.to_owned(), source };
        let context = Context::from_serialize(values).map_err(failed)?;
        self.tera.render(name, &context).map_err(failed)
    }
}

fn extra(map: &Map) -> Vec<(String, String)> {
    let mut extra: Vec<(String, String)> =
        map.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    extra.sort();
    extra
}
