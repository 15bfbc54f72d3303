//! TLS, as the reference hosts and the suite's client speak it.

use std::{fs, io, net::IpAddr, path::Path, sync::Arc};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector, TlsStream,
    rustls::{
        self, ClientConfig, RootCertStore, ServerConfig,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};
use tokio_util::either::Either;

/// A connection, in plaintext or under TLS.
pub type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// The subject of the certificates that [`make_certificates`] makes, as a host announces it.
pub const SUBJECT: &str = r"O=Hosts\, and a guest,CN=spice server";

/// Makes an authority and the certificate of a host that is called so, and writes them to a folder as QEMU's `x509-dir` is.
///
/// # Errors
/// When they cannot be made or written.
pub fn make_certificates(host: &str, folder: &Path) -> io::Result<()> {
    let mut authority = CertificateParams::default();
    authority.distinguished_name.push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().map_err(io::Error::other)?;
    let authority_certificate = authority.self_signed(&authority_key).map_err(io::Error::other)?;
    let authority = Issuer::new(authority, authority_key);

    let mut server = CertificateParams::new([host.to_owned()]).map_err(io::Error::other)?;
    server.distinguished_name = DistinguishedName::new();
    server.distinguished_name.push(DnType::OrganizationName, "Hosts, and a guest");
    server.distinguished_name.push(DnType::CommonName, "spice server");
    let server_key = KeyPair::generate().map_err(io::Error::other)?;
    let server_certificate = server.signed_by(&server_key, &authority).map_err(io::Error::other)?;

    fs::write(folder.join("ca-cert.pem"), authority_certificate.pem())?;
    fs::write(folder.join("server-cert.pem"), server_certificate.pem())?;
    fs::write(folder.join("server-key.pem"), server_key.serialize_pem())
}

/// The client's side: it trusts the authority in such a folder.
///
/// # Errors
/// When there is none.
pub fn connector(folder: &Path) -> Result<TlsConnector, TlsError> {
    let file = folder.join("ca-cert.pem");
    let unreadable = |reason: String| TlsError::File { file: file.display().to_string(), reason };
    let authority = CertificateDer::from_pem_file(&file).map_err(|error| unreadable(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority)?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Goes over to TLS, on a connection to the host that its certificate has to name.
///
/// # Errors
/// When the peer does not, or its certificate is not to be trusted.
pub async fn secure(stream: TcpStream, connector: &TlsConnector, host: IpAddr) -> io::Result<Stream> {
    let stream = connector.connect(host.into(), stream).await?;
    Ok(Either::Right(Box::new(stream.into())))
}

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
    /// They do not do, or not together.
    #[error("the certificates: {0}")]
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
