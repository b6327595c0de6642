//! A certificate authority that nobody knows until they are told.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, RootCertStore, ServerConfig, crypto,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

/// The authority, and which versions of HTTP its servers offer.
#[derive(Debug)]
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    offers: Vec<Vec<u8>>,
}

impl Authority {
    /// An authority whose servers offer HTTP/2 first, and HTTP/1.1.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "An authority of tests");
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        Self { issuer, offers: vec![b"h2".to_vec(), b"http/1.1".to_vec()] }
    }

    /// An authority whose servers offer HTTP/1.1 alone.
    pub(crate) fn without_http2() -> Self {
        Self { offers: vec![b"http/1.1".to_vec()], ..Self::new() }
    }

    /// Its own certificate, as a file holds it.
    pub(crate) fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// What makes a server for `127.0.0.1` and `localhost` of a socket.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let key = KeyPair::generate().expect("a key");
        let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
        let params = CertificateParams::new(names).expect("names");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .expect("a certificate and its key");
        config.alpn_protocols.clone_from(&self.offers);
        TlsAcceptor::from(Arc::new(config))
    }

    /// What makes a client that trusts this authority alone and speaks `protocol`.
    pub(super) fn connector(&self, protocol: &[u8]) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a certificate");
        let mut config =
            ClientConfig::builder_with_provider(Arc::new(crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_root_certificates(roots)
                .with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        TlsConnector::from(Arc::new(config))
    }
}
