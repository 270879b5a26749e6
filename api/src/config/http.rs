//! Settings of the HTTP server, and how lists of networks and origins are written.

use std::{net::SocketAddr, str::FromStr};

use axum::http::HeaderValue;
use clap::Args;
use ipnet::IpNet;

#[derive(Debug, Clone, Args)]
pub struct HttpConfig {
    #[arg(long, env = "SHOP_HTTP_ADDR", value_name = "SHOP_HTTP_ADDR", default_value = "0.0.0.0:3000")]
    pub http_addr: SocketAddr,
    #[arg(long, env = "SHOP_METRICS_ADDR", value_name = "SHOP_METRICS_ADDR", default_value = "0.0.0.0:9090")]
    pub metrics_addr: SocketAddr,
    /// Networks whose X-Forwarded-For is believed.
    #[arg(long, env = "SHOP_TRUSTED_PROXIES", value_name = "SHOP_TRUSTED_PROXIES", default_value = "")]
    trusted_proxies: List<Network>,
    /// Web origins that may call from a browser.
    #[arg(long, env = "SHOP_CORS_ORIGINS", value_name = "SHOP_CORS_ORIGINS", default_value = "")]
    cors_origins: List<Origin>,
    /// Off only for trials over plain HTTP.
    #[arg(long, env = "SHOP_COOKIE_SECURE", value_name = "SHOP_COOKIE_SECURE", default_value = "true",
          action = clap::ArgAction::Set)]
    pub cookie_secure: bool,
    #[arg(long, env = "SHOP_REQUEST_TIMEOUT_SECONDS", value_name = "SHOP_REQUEST_TIMEOUT_SECONDS",
          default_value = "30", value_parser = clap::value_parser!(u32).range(1..=600))]
    pub request_timeout_seconds: u32,
    /// How long connections are still accepted after SIGTERM.
    #[arg(long, env = "SHOP_DRAIN_SECONDS", value_name = "SHOP_DRAIN_SECONDS", default_value = "5",
          value_parser = clap::value_parser!(u32).range(0..=60))]
    pub drain_seconds: u32,
}

impl HttpConfig {
    pub fn trusted_proxies(&self) -> Vec<IpNet> {
        self.trusted_proxies.0.iter().map(|network| network.0).collect()
    }

    pub fn cors_origins(&self) -> Vec<HeaderValue> {
        self.cors_origins.0.iter().map(|origin| origin.0.clone()).collect()
    }
}

/// Values separated by commas; blanks around them are ignored.
#[derive(Debug, Clone, PartialEq, Eq)]
struct List<T>(Vec<T>);

impl<T: FromStr> FromStr for List<T> {
    type Err = T::Err;
    fn from_str(text: &str) -> Result<Self, T::Err> {
        text.split(',')
            .map(str::trim)
            .filter(|item| !item.is_empty())
            .map(T::from_str)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

/// A network (10.0.0.0/8) or one address.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Network(IpNet);

impl FromStr for Network {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map(Self).map_err(|_| format!("{text:?} is no network such as 10.0.0.0/8"))
    }
}

/// A web origin: scheme, host and port, nothing after it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Origin(HeaderValue);

impl FromStr for Origin {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        host.filter(|host| !host.is_empty() && !host.contains(['/', '*', '?', '#', ' ']))
            .and_then(|_| HeaderValue::from_str(text).ok())
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no origin such as https://shop.example.com"))
    }
}
