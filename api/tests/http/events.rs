//! A stream of an order's events, as a client reads it.

use std::time::Duration;

use serde_json::Value;

use crate::shop::{Shop, bearer};

/// A stream that is open.
pub struct Events {
    pub response: reqwest::Response,
    read: String,
}

impl Events {
    pub async fn open(shop: &Shop, base: &str, (id, token): (&str, &str)) -> Self {
        let request = bearer(shop.client.get(format!("{base}/api/v1/orders/{id}/events")), token);
        let response = request.header("accept-encoding", "gzip").send().await.unwrap();
        assert_eq!(response.status(), 200);
        Self { response, read: String::new() }
    }

    /// The lines of the next event or comment; none at the end.
    pub async fn next(&mut self) -> Option<Vec<String>> {
        loop {
            if let Some(end) = self.read.find("\n\n") {
                let rest = self.read.split_off(end + 2);
                let event = std::mem::replace(&mut self.read, rest);
                return Some(event.trim_end().lines().map(str::to_owned).collect());
            }
            let chunk = tokio::time::timeout(Duration::from_mins(1), self.response.chunk()).await;
            let chunk = chunk.expect("nothing for a minute").unwrap()?;
            self.read.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }

    /// The id and the data of the next event that is no comment.
    pub async fn status(&mut self) -> Option<(String, Value)> {
        loop {
            let lines = self.next().await?;
            let field = |name: &str| lines.iter().find_map(|line| line.strip_prefix(&format!("{name}: ")));
            if field("event").is_none() {
                continue;
            }
            assert_eq!(field("event"), Some("status"));
            return Some((field("id").unwrap().to_owned(), serde_json::from_str(field("data").unwrap()).unwrap()));
        }
    }
}
