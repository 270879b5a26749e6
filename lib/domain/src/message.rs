//! What travels through the queue: the kind of work and the id of the document that holds it. No prices, no addresses.
//!
//! A message written by this version is read by the version before and after it (see the tests):
//! fields may be added, never renamed or removed.

use serde::{Deserialize, Serialize};

use crate::id::{AdjustmentId, OrderId};

/// One job for the worker.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
pub enum Message {
    /// A new order waits for stock.
    OrderPlaced { order_id: OrderId },
    /// A processed order was cancelled: its stock goes back.
    OrderCancelled { order_id: OrderId },
    /// Staff asked for a change of stock.
    StockAdjusted { adjustment_id: AdjustmentId },
}

#[derive(Debug, thiserror::Error)]
#[error("not a message of this shop: {0}")]
pub struct InvalidMessage(#[source] serde_json::Error);

impl Message {
    /// Reads the body of a queue message.
    pub fn parse(body: &str) -> Result<Self, InvalidMessage> {
        serde_json::from_str(body).map_err(InvalidMessage)
    }

    /// The body of the queue message.
    pub fn to_body(&self) -> String {
        let field = match self {
            Self::OrderPlaced { .. } | Self::OrderCancelled { .. } => "orderId",
            Self::StockAdjusted { .. } => "adjustmentId",
        };
        let (kind, id) = (self.kind(), self.group());
        format!(r#"{{"kind":"{kind}","{field}":"{id}"}}"#)
    }

    /// The kind's name, as it is in the body.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::OrderPlaced { .. } => "OrderPlaced",
            Self::OrderCancelled { .. } => "OrderCancelled",
            Self::StockAdjusted { .. } => "StockAdjusted",
        }
    }

    /// The FIFO message group: the document's id, so that only changes of one document wait for each other.
    pub fn group(&self) -> &str {
        match self {
            Self::OrderPlaced { order_id } | Self::OrderCancelled { order_id } => order_id.as_str(),
            Self::StockAdjusted { adjustment_id } => adjustment_id.as_str(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ID: &str = "67c8830b7ef1b848ac52ebec";

    fn all() -> [Message; 3] {
        let order_id: OrderId = ID.parse().unwrap();
        [
            Message::OrderPlaced { order_id: order_id.clone() },
            Message::OrderCancelled { order_id },
            Message::StockAdjusted { adjustment_id: ID.parse().unwrap() },
        ]
    }

    #[test]
    fn what_is_written_is_read() {
        for message in all() {
            assert_eq!(Message::parse(&message.to_body()).unwrap(), message);
            assert_eq!(message.group(), ID);
        }
    }

    #[test]
    fn the_body_is_fixed_for_ever() {
        assert_eq!(
            all().map(|message| message.to_body()),
            [
                format!(r#"{{"kind":"OrderPlaced","orderId":"{ID}"}}"#),
                format!(r#"{{"kind":"OrderCancelled","orderId":"{ID}"}}"#),
                format!(r#"{{"kind":"StockAdjusted","adjustmentId":"{ID}"}}"#),
            ]
        );
    }

    #[test]
    fn a_field_of_a_later_version_is_ignored() {
        let body = format!(r#"{{"kind":"OrderPlaced","orderId":"{ID}","priority":3}}"#);
        assert_eq!(Message::parse(&body).unwrap(), all()[0]);
    }

    #[rstest]
    #[case("")]
    #[case("{}")]
    #[case(r#"{"kind":"OrderPlaced"}"#)]
    #[case(r#"{"kind":"OrderPlaced","orderId":"../etc"}"#)]
    #[case(r#"{"kind":"OrderEaten","orderId":"67c8830b7ef1b848ac52ebec"}"#)]
    fn anything_else_is_refused(#[case] body: &str) {
        assert!(Message::parse(body).is_err());
    }
}
