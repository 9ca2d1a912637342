//! Certificates of a control plane on loopback.

use std::path::{Path, PathBuf};

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

/// An authority, and what it signed, in one folder.
pub(crate) struct Certificates {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Certificates {
    /// Makes the authority: `ca.crt`, `ca.key`, and `sa.key` that signs service-account tokens.
    pub(crate) fn new(folder: &Path) -> Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "bench");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        std::fs::write(folder.join("ca.crt"), certificate.pem())?;
        std::fs::write(folder.join("ca.key"), key.serialize_pem())?;
        std::fs::write(folder.join("sa.key"), KeyPair::generate()?.serialize_pem())?;
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key) })
    }

    /// Where a file is.
    pub(crate) fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Signs `NAME.crt` with `NAME.key` for that user, good for servers on loopback too.
    pub(crate) fn issue(&self, name: &str, user: &str, group: Option<&str>) -> Result<()> {
        let mut params =
            CertificateParams::new(vec!["127.0.0.1".to_owned(), "localhost".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        std::fs::write(self.file(&format!("{name}.crt")), certificate.pem())?;
        std::fs::write(self.file(&format!("{name}.key")), key.serialize_pem())?;
        Ok(())
    }

    /// Writes `NAME.conf`, a kubeconfig with the certificate of that name.
    pub(crate) fn kubeconfig(&self, name: &str, server: &str) -> Result<String> {
        let path = self.file(&format!("{name}.conf"));
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}]\n\
             clusters: [{{name: c, cluster: {{server: '{server}', \
             certificate-authority: ca.crt}}}}]\n\
             users: [{{name: u, user: {{client-certificate: {name}.crt, \
             client-key: {name}.key}}}}]\n"
        );
        std::fs::write(&path, text)?;
        Ok(path)
    }
}
