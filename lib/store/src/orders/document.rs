//! The order as it is stored, and the part of it that may be shown and cached. Times are whole milliseconds.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use shop_domain::{
    catalogue::Location,
    id::{ClaimId, OrderId, OutboxId, UserId},
    money::{Currency, Money},
    order::{FailureClass, OrderLine, Reason, Status},
    stock::{Demand, Shortage},
};

use crate::{
    dates,
    mails::{MailKind, MailReason, MailRecord, MailState},
    outbox::OutboxEntry,
};

/// An e-mail address that cannot be logged by accident.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuyerEmail(String);

impl BuyerEmail {
    pub fn new(address: impl Into<String>) -> Self {
        Self(address.into())
    }

    /// The address of a buyer whose account was erased: no mail goes there.
    pub fn erased() -> Self {
        Self(String::new())
    }

    pub fn is_erased(&self) -> bool {
        self.0.is_empty()
    }

    /// The address itself: only for the sender of mails.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BuyerEmail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[e-mail]")
    }
}

/// What made the worker give up a piece of work, as of its last delivery.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastFailure {
    pub class: FailureClass,
    /// How often the message had been delivered.
    pub deliveries: u32,
    #[serde(with = "dates")]
    pub at: Timestamp,
}

/// One step of an order's life.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    pub status: Status,
    #[serde(with = "dates")]
    pub at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
}

/// The key under which a user may repeat a request, and a digest of the body it came with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Idempotency {
    pub key: String,
    pub body_hash: String,
}

/// How often forgotten work was put on the outbox again, and when it may be next.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sweeps {
    pub count: u32,
    #[serde(with = "dates")]
    pub next_at: Timestamp,
}

/// Whether a cancelled order's stock is back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restock {
    Owed,
    Done,
}

/// An order as stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderDocument {
    #[serde(rename = "_id")]
    pub id: OrderId,
    pub user_id: UserId,
    pub email: BuyerEmail,
    pub location: Location,
    pub lines: Vec<OrderLine>,
    pub total: Money,
    pub currency: Currency,
    pub status: Status,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortages: Vec<Shortage>,
    pub history: Vec<HistoryEntry>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency: Option<Idempotency>,
    /// 1 when accepted, one more with each change of status.
    pub version: i64,
    #[serde(default)]
    pub outbox: Vec<OutboxEntry>,
    #[serde(default)]
    pub mails: Vec<MailRecord>,
    #[serde(with = "dates")]
    pub created_at: Timestamp,
    #[serde(with = "dates")]
    pub updated_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sweeps: Option<Sweeps>,
    /// The sweeper has given up: staff must look.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub stuck: bool,
    /// Set when a processed order is cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restock: Option<Restock>,
    /// How often the order's message was delivered, where that was more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deliveries: Option<u32>,
    /// Set when the worker gave up, until the work is taken up again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<LastFailure>,
}

/// What an accepted order is made of. `entry` and `claim` are random; `claim` lets the acceptor send the message itself.
#[derive(Debug, Clone)]
pub struct NewOrderDocument {
    pub id: OrderId,
    pub user_id: UserId,
    pub email: BuyerEmail,
    pub location: Location,
    pub lines: Vec<OrderLine>,
    pub total: Money,
    pub currency: Currency,
    pub idempotency: Option<Idempotency>,
    pub entry: OutboxId,
    pub claim: ClaimId,
    pub now: Timestamp,
    /// The span that accepts it (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// A decision about one order: the status it was decided from, the one it gets, and what goes with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    pub id: OrderId,
    pub from: Status,
    pub to: Status,
    pub reason: Option<Reason>,
    pub shortages: Vec<Shortage>,
    pub outbox: Vec<OutboxEntry>,
    pub at: Timestamp,
}

impl Settlement {
    /// Whether the order took stock that has to go back.
    pub fn owes_restock(&self) -> bool {
        self.from == Status::Processed && self.to == Status::Cancelled
    }
}

/// What an owner or staff may see of an order, and what the status cache holds. No address, no outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OrderView {
    pub id: OrderId,
    pub user_id: UserId,
    pub location: Location,
    pub lines: Vec<OrderLine>,
    pub total: Money,
    pub currency: Currency,
    pub status: Status,
    pub reason: Option<Reason>,
    pub shortages: Vec<Shortage>,
    pub history: Vec<ViewedStep>,
    #[serde(default)]
    pub mails: Vec<ViewedMail>,
    /// A mail is on its way: what is shown of the mails changes soon.
    #[serde(default)]
    pub mail_waits: bool,
    pub version: i64,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// A [`HistoryEntry`] with its time as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewedStep {
    pub status: Status,
    pub at: Timestamp,
    pub reason: Option<Reason>,
}

/// A [`MailRecord`] with its time as text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ViewedMail {
    pub kind: MailKind,
    pub state: MailState,
    pub at: Timestamp,
    pub attempts: u32,
    pub reason: Option<MailReason>,
}

impl From<&MailRecord> for ViewedMail {
    fn from(record: &MailRecord) -> Self {
        let MailRecord { kind, state, at, attempts, reason } = *record;
        Self { kind, state, at, attempts, reason }
    }
}

impl OrderDocument {
    /// What of the order may be shown.
    pub fn view(&self) -> OrderView {
        let step = |entry: &HistoryEntry| ViewedStep { status: entry.status, at: entry.at, reason: entry.reason };
        OrderView {
            id: self.id.clone(),
            user_id: self.user_id.clone(),
            location: self.location.clone(),
            lines: self.lines.clone(),
            total: self.total,
            currency: self.currency,
            status: self.status,
            reason: self.reason,
            shortages: self.shortages.clone(),
            history: self.history.iter().map(step).collect(),
            mails: self.mails.iter().map(ViewedMail::from).collect(),
            mail_waits: self.outbox.iter().any(|entry| MailKind::of(entry.kind).is_some()),
            version: self.version,
            created_at: self.created_at,
            updated_at: self.updated_at,
        }
    }

    /// The units that the order needs.
    pub fn demand(&self) -> Demand {
        Demand {
            order_id: self.id.clone(),
            location: self.location.clone(),
            lines: self.lines.iter().map(|line| (line.product_id.clone(), line.quantity)).collect(),
        }
    }

    /// The order as it is after `settlement` was written.
    #[must_use]
    pub fn settled(mut self, settlement: &Settlement) -> Self {
        let at = dates::whole_millis(settlement.at);
        self.status = settlement.to;
        self.reason = settlement.reason;
        self.shortages.clone_from(&settlement.shortages);
        self.history.push(HistoryEntry { status: settlement.to, at, reason: settlement.reason });
        self.outbox.extend_from_slice(&settlement.outbox);
        (self.stuck, self.sweeps, self.failure) = (false, None, None);
        if settlement.owes_restock() {
            self.restock = Some(Restock::Owed);
        }
        self.version += 1;
        self.updated_at = at;
        self
    }
}

pub(super) fn pending(new: &NewOrderDocument) -> OrderDocument {
    let now = dates::whole_millis(new.now);
    OrderDocument {
        id: new.id.clone(),
        user_id: new.user_id.clone(),
        email: new.email.clone(),
        location: new.location.clone(),
        lines: new.lines.clone(),
        total: new.total,
        currency: new.currency,
        status: Status::Pending,
        reason: None,
        shortages: Vec::new(),
        history: vec![HistoryEntry { status: Status::Pending, at: now, reason: None }],
        idempotency: new.idempotency.clone(),
        version: 1,
        outbox: vec![super::placed_entry(new)],
        mails: Vec::new(),
        created_at: now,
        updated_at: now,
        sweeps: None,
        stuck: false,
        restock: None,
        deliveries: None,
        failure: None,
    }
}
