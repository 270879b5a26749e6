//! Finds out who is calling: the peer's address, or the one that trusted proxies report in X-Forwarded-For.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderName},
    middleware::Next,
    response::Response,
};
use ipnet::IpNet;

use crate::app::App;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client. Never logged.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(IpAddr);

impl ClientAddress {
    pub fn ip(self) -> IpAddr {
        self.0
    }

    /// What limits count by: the address, or for IPv6 its /64 network, which one subscriber owns whole.
    pub fn bucket(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(v4) => IpAddr::V4(v4),
            IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        }
    }
}

/// Layer: puts the [`ClientAddress`] into the request.
pub async fn find(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    let peer = peer.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED));
    let client = client_address(peer, request.headers(), &app.trusted_proxies);
    request.extensions_mut().insert(client);
    next.run(request).await
}

/// The right-most address that no trusted proxy vouches for: everything to its left may be forged.
fn client_address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> ClientAddress {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    let mut client = peer.to_canonical();
    if !is_trusted(&client) {
        return ClientAddress(client);
    }
    let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    for hop in values.iter().rev().flat_map(|value| value.rsplit(',')) {
        let Some(address) = parse_hop(hop.trim()) else { break };
        client = address;
        if !is_trusted(&client) {
            break;
        }
    }
    ClientAddress(client)
}

/// An address, with or without brackets and port.
fn parse_hop(text: &str) -> Option<IpAddr> {
    let address = text.parse().or_else(|_| text.parse::<SocketAddr>().map(|socket| socket.ip()));
    address.or_else(|_| text.trim_matches(['[', ']']).parse()).ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("1.2.3.4", &[], "1.2.3.4")]
    #[case("1.2.3.4", &["9.9.9.9"], "1.2.3.4")] // not behind a proxy: the header is the client's invention
    #[case("10.0.0.1", &["9.9.9.9"], "9.9.9.9")]
    #[case("10.0.0.1", &["6.6.6.6, 9.9.9.9"], "9.9.9.9")] // what the client itself sent stands left
    #[case("10.0.0.1", &["6.6.6.6", "9.9.9.9, 10.0.0.7"], "9.9.9.9")]
    #[case("10.0.0.1", &["9.9.9.9:8123"], "9.9.9.9")]
    #[case("10.0.0.1", &["[2001:db8::1]:8123"], "2001:db8::1")]
    #[case("10.0.0.1", &["9.9.9.9, nonsense"], "10.0.0.1")]
    #[case("10.0.0.1", &[], "10.0.0.1")]
    #[case("::ffff:10.0.0.1", &["9.9.9.9"], "9.9.9.9")]
    fn only_trusted_proxies_are_believed(#[case] peer: &str, #[case] forwarded: &[&str], #[case] client: &str) {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(FORWARDED_FOR, value.parse().unwrap());
        }
        let found = client_address(peer.parse().unwrap(), &headers, &["10.0.0.0/8".parse().unwrap()]);
        assert_eq!(found.0, client.parse::<IpAddr>().unwrap());
    }

    #[test]
    fn one_subscriber_is_one_bucket() {
        let bucket = |text: &str| ClientAddress(text.parse().unwrap()).bucket();
        assert_eq!(bucket("2001:db8::1"), bucket("2001:db8::2"));
        assert_ne!(bucket("2001:db8:0:1::1"), bucket("2001:db8::1"));
        assert_ne!(bucket("1.2.3.4"), bucket("1.2.3.5"));
    }
}
