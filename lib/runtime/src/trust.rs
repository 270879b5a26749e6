//! A private certificate authority for the shop's servers: read and checked once, at start.

use std::path::{Path, PathBuf};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Why the file of a private CA cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error("cannot read {path}; SHOP_CA_FILE must name a readable PEM file of CA certificates")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} has no usable CA certificate; SHOP_CA_FILE must name a PEM file of CA certificates")]
    NoCertificate { path: PathBuf },
}

/// Certificates as PEM, each one that can be trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificates(Vec<u8>);

impl Certificates {
    /// None where there is no certificate, or one that cannot be used.
    pub fn parse(pem: Vec<u8>) -> Option<Self> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            roots.add(certificate.ok()?).ok()?;
        }
        (!roots.is_empty()).then_some(Self(pem))
    }

    pub fn pem(&self) -> &[u8] {
        &self.0
    }
}

/// The certificates of a private CA. Cheap to hand around by reference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateCa {
    path: PathBuf,
    certificates: Certificates,
}

impl PrivateCa {
    /// Reads the file; every certificate in it must be one that can be trusted.
    pub fn load(path: &Path) -> Result<Self, TrustError> {
        let pem = std::fs::read(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })?;
        let certificates = Certificates::parse(pem);
        let certificates = certificates.ok_or_else(|| TrustError::NoCertificate { path: path.to_owned() })?;
        Ok(Self { path: path.to_owned(), certificates })
    }

    /// Where it was read from, for clients that read it themselves.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn certificates(&self) -> &Certificates {
        &self.certificates
    }

    /// The certificates as PEM.
    pub fn pem(&self) -> &[u8] {
        self.certificates.pem()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("")]
    #[case("no certificate")]
    #[case("-----BEGIN CERTIFICATE-----\naHVzaA==\n-----END CERTIFICATE-----\n")]
    #[case("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n")]
    fn a_file_without_certificates_is_named(#[case] content: &str) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        let error = PrivateCa::load(file.path()).unwrap_err().to_string();
        assert!(error.contains(&*file.path().to_string_lossy()) && error.contains("SHOP_CA_FILE"), "{error}");
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = PrivateCa::load(Path::new("/no/such/ca.crt")).unwrap_err().to_string();
        assert!(error.contains("/no/such/ca.crt") && error.contains("SHOP_CA_FILE"), "{error}");
    }
}
