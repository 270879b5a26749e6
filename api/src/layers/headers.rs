//! The security headers that the `helmet` library sets by default, on every answer.

use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

use crate::app::App;

const POLICY: &str = "default-src 'self';base-uri 'self';font-src 'self' https: data:;form-action 'self';\
    frame-ancestors 'self';img-src 'self' data:;object-src 'none';script-src 'self';script-src-attr 'none';\
    style-src 'self' https: 'unsafe-inline'";
const UPGRADE: &str = ";upgrade-insecure-requests";

const FIXED: [(&str, &str); 10] = [
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("origin-agent-cluster", "?1"),
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("x-dns-prefetch-control", "off"),
    ("x-download-options", "noopen"),
    ("x-frame-options", "SAMEORIGIN"),
    ("x-permitted-cross-domain-policies", "none"),
    ("x-xss-protection", "0"),
];

/// Layer: adds the headers; those which force HTTPS are left out of trials over plain HTTP.
pub async fn secure(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    add(response.headers_mut(), &app.security_headers);
    response
}

fn add(headers: &mut HeaderMap, fixed: &HeaderMap) {
    for (name, value) in fixed {
        headers.insert(name, value.clone());
    }
    // Nothing may be kept by a cache unless its route says so.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

/// The headers, built once. `https` is whether the shop is served over HTTPS.
pub fn security_headers(https: Https) -> HeaderMap {
    let mut headers: HeaderMap = FIXED
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let policy = match https {
        Https::Required => format!("{POLICY}{UPGRADE}"),
        Https::NotRequired => POLICY.to_owned(),
    };
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    if https == Https::Required {
        let year = HeaderValue::from_static("max-age=31536000; includeSubDomains");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    headers
}

/// Whether browsers are told to use HTTPS only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Https {
    Required,
    NotRequired,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn helmets_set_is_complete() {
        let headers = security_headers(Https::Required);
        assert_eq!(headers.len(), 12);
        assert!(headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().ends_with("upgrade-insecure-requests"));
        assert_eq!(headers[header::STRICT_TRANSPORT_SECURITY], "max-age=31536000; includeSubDomains");
    }

    #[test]
    fn a_plain_http_trial_forces_nothing() {
        let headers = security_headers(Https::NotRequired);
        assert!(!headers.contains_key(header::STRICT_TRANSPORT_SECURITY));
        assert!(!headers[header::CONTENT_SECURITY_POLICY].to_str().unwrap().contains("upgrade"));
    }

    #[test]
    fn nothing_is_cached_unless_a_route_says_so() {
        let (mut plain, mut cached) = (HeaderMap::new(), HeaderMap::new());
        cached.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        add(&mut plain, &HeaderMap::new());
        add(&mut cached, &HeaderMap::new());
        assert_eq!(
            (&plain[header::CACHE_CONTROL], &cached[header::CACHE_CONTROL]),
            (&HeaderValue::from_static("no-store"), &HeaderValue::from_static("no-cache"))
        );
    }
}
