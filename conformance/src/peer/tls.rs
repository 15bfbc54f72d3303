//! TLS, as the reference hosts speak it.

use std::{io, path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

/// Why a folder does not do for a server.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file is missing or is not what it should be.
    #[error("{file}: {reason}")]
    File {
        /// Its name.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Certificate and key do not do together.
    #[error("server-cert.pem and server-key.pem: {0}")]
    Unusable(#[from] rustls::Error),
}

/// The server's side, from a folder as QEMU's `x509-dir`: with `server-cert.pem` and `server-key.pem`.
///
/// # Errors
/// When the files are not there, or are not a certificate and its key.
pub fn server_config(folder: &Path) -> Result<Arc<ServerConfig>, TlsError> {
    let file = |name: &str, reason: rustls::pki_types::pem::Error| TlsError::File {
        file: folder.join(name).display().to_string(),
        reason: match reason {
            rustls::pki_types::pem::Error::Io(error) => error.to_string(),
            other => io::Error::other(other).to_string(),
        },
    };
    let certificates = CertificateDer::pem_file_iter(folder.join("server-cert.pem"))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file("server-cert.pem", error))?;
    let key =
        PrivateKeyDer::from_pem_file(folder.join("server-key.pem")).map_err(|error| file("server-key.pem", error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)?;
    Ok(Arc::new(config))
}
