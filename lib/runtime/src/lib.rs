//! What every binary of the shop needs around its work: telemetry, shutdown, probes and metrics, AWS clients, settings, time
//! and ids.
//! Knows nothing of orders, MongoDB or Kubernetes.

pub mod aws;
pub mod calls;
pub mod clock;
pub mod health;
pub mod ids;
pub mod metrics;
pub mod ops;
pub mod parsers;
pub mod queue;
pub mod shutdown;
pub mod telemetry;

/// Installs the process-wide TLS provider (aws-lc). Call once, first thing in `main`.
pub fn install_tls_provider() {
    // An `Err` only says that a provider is installed already, which is what is wanted.
    let _already_installed = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
