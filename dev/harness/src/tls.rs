//! TLS before a real server, with a certificate of a private CA that is made for the test and trusted by nobody else.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use anyhow::Context;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{
    ServerConfig,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use secrecy::ExposeSecret;
use shop_runtime::shutdown::Shutdown;
use tempfile::NamedTempFile;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::Servers;

/// A private CA whose servers are at one of this machine's addresses.
pub struct TlsFront {
    address: IpAddr,
    ca_file: NamedTempFile,
    acceptor: TlsAcceptor,
}

impl std::fmt::Debug for TlsFront {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsFront").field("ca_file", &self.ca_file.path()).finish_non_exhaustive()
    }
}

impl TlsFront {
    /// For clients on this machine.
    pub fn new() -> anyhow::Result<Self> {
        Self::at(Ipv4Addr::LOCALHOST.into())
    }

    pub fn at(address: IpAddr) -> anyhow::Result<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let ca_file = NamedTempFile::new()?;
        std::fs::write(ca_file.path(), ca.pem())?;

        let key = KeyPair::generate()?;
        let certificate = CertificateParams::new(vec![address.to_string()])?.signed_by(&key, &ca)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        shop_runtime::install_tls_provider();
        let config = ServerConfig::builder().with_no_client_auth();
        let config = config.with_single_cert(vec![certificate.der().clone()], key).context("the test's certificate")?;
        Ok(Self { address, ca_file, acceptor: TlsAcceptor::from(Arc::new(config)) })
    }

    /// The CA's certificate as a PEM file.
    pub fn ca_file(&self) -> &Path {
        self.ca_file.path()
    }

    /// The servers behind TLS: MongoDB, Redis and SQS; mail is left as it is.
    pub async fn of(&self, servers: &Servers) -> anyhow::Result<Servers> {
        let (mongodb, redis) = (servers.mongodb_uri.expose_secret(), servers.redis_url.expose_secret());
        let mongodb = format!("{}&tls=true", self.through(mongodb).await?);
        let redis = self.through(redis).await?.replacen("redis:", "rediss:", 1);
        let sqs = self.https(&servers.sqs_endpoint).await?;
        let ses_endpoint = servers.ses_endpoint.clone();
        Ok(Servers { mongodb_uri: mongodb.into(), redis_url: redis.into(), sqs_endpoint: sqs, ses_endpoint })
    }

    /// The address of a server of plain HTTP behind TLS.
    pub async fn https(&self, url: &str) -> anyhow::Result<String> {
        Ok(self.through(url).await?.replacen("http:", "https:", 1))
    }

    /// The URL with the address of a front in place of its server's.
    async fn through(&self, url: &str) -> anyhow::Result<String> {
        let after = url.split_once("://").context("no URL")?.1;
        let authority = after.split('/').next().unwrap_or(after);
        let server = authority.rsplit_once('@').map_or(authority, |(_, server)| server);
        Ok(url.replacen(server, &self.before(server).await?.to_string(), 1))
    }

    /// An address that speaks TLS and passes on to `server` (`host:port`), which does not.
    async fn before(&self, server: &str) -> anyhow::Result<SocketAddr> {
        let listener = TcpListener::bind((self.address, 0)).await?;
        let (address, acceptor, server) = (listener.local_addr()?, self.acceptor.clone(), server.to_owned());
        let tasks = Shutdown::manual();
        let spawner = tasks.clone();
        tasks.spawn_detached(async move {
            while let Ok((stream, _)) = listener.accept().await {
                spawner.spawn_detached(carry(acceptor.clone(), stream, server.clone()));
            }
        });
        Ok(address)
    }
}

/// Ends with either side; a client that does not trust the certificate ends it in the handshake.
async fn carry(acceptor: TlsAcceptor, stream: TcpStream, server: String) {
    let Ok(mut near) = acceptor.accept(stream).await else { return };
    let Ok(mut far) = TcpStream::connect(server).await else { return };
    let _ended = copy_bidirectional(&mut near, &mut far).await;
}
