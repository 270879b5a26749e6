//! The mails that orders and password resets owe: taken, put back, and concluded entry by entry, with what became of them.
//! Never decides whether a mail is worth another attempt.

use jiff::Timestamp;
use mongodb::{
    Collection, Database,
    bson::{Document, doc},
};
use serde::{Deserialize, Serialize};
use shop_domain::id::{ClaimId, OrderId, OutboxId};

use crate::{
    StoreError, bulk, dates,
    orders::{self, BuyerEmail, OrderDocument, to_bson},
    outbox::{Outbox, OutboxEntry, OutboxKind, Taking, kind_name, ours, own},
    password_resets::{self, PasswordReset},
};

/// The mails of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MailKind {
    Confirmation,
    Failure,
    Cancellation,
}

impl MailKind {
    pub const ALL: [Self; 3] = [Self::Confirmation, Self::Failure, Self::Cancellation];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Confirmation => "Confirmation",
            Self::Failure => "Failure",
            Self::Cancellation => "Cancellation",
        }
    }

    /// The kind of the outbox entry that asks for this mail.
    pub fn entry(self) -> OutboxKind {
        match self {
            Self::Confirmation => OutboxKind::ConfirmationMail,
            Self::Failure => OutboxKind::FailureMail,
            Self::Cancellation => OutboxKind::CancellationMail,
        }
    }

    pub(crate) fn of(entry: OutboxKind) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.entry() == entry)
    }
}

/// What became of a mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MailState {
    /// The mail service took it.
    Sent,
    /// It was refused for good, or too often.
    GivenUp,
    /// It was not sent: the mail service had refused the address before.
    Suppressed,
}

impl MailState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "Sent",
            Self::GivenUp => "GivenUp",
            Self::Suppressed => "Suppressed",
        }
    }

    fn sent() -> Self {
        Self::Sent
    }
}

/// Why a mail was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MailReason {
    /// The mail service does not send to this address.
    AddressRejected,
    /// The mail service did not take this mail, as often as it was offered.
    Refused,
    /// The mail could not be made from its template.
    NotRendered,
}

impl MailReason {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AddressRejected => "address_rejected",
            Self::Refused => "refused",
            Self::NotRendered => "not_rendered",
        }
    }
}

/// What became of one mail of an order. Records of the first version have only a kind and a time: those were sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MailRecord {
    pub kind: MailKind,
    #[serde(default = "MailState::sent")]
    pub state: MailState,
    /// Under its first name: processes of the first version, which run beside these in a rollout, read it too.
    #[serde(rename = "sentAt", with = "dates")]
    pub at: Timestamp,
    /// How often it was offered to the mail service.
    #[serde(default = "once")]
    pub attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<MailReason>,
}

fn once() -> u32 {
    1
}

/// How the work on a mail ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Conclusion {
    pub state: MailState,
    pub reason: Option<MailReason>,
    pub attempts: u32,
    pub at: Timestamp,
}

/// What a mail is about.
#[derive(Debug, Clone)]
pub enum Subject {
    Order(Box<OrderDocument>, MailKind),
    PasswordReset(PasswordReset),
}

/// A claimed entry that becomes a mail.
#[derive(Debug, Clone)]
pub struct PendingMail {
    pub subject: Subject,
    pub to: BuyerEmail,
    pub entry: OutboxId,
    pub claim: ClaimId,
    /// How often it was taken for sending, this time included.
    pub attempts: u32,
    /// See [`OutboxEntry::traceparent`].
    pub traceparent: Option<String>,
}

impl PendingMail {
    /// The id of the order or of the password reset.
    pub fn about(&self) -> &str {
        match &self.subject {
            Subject::Order(order, _) => order.id.as_str(),
            Subject::PasswordReset(reset) => reset.id.as_str(),
        }
    }

    /// The mail's kind, for logs.
    pub fn kind(&self) -> &'static str {
        match &self.subject {
            Subject::Order(_, kind) => kind.as_str(),
            Subject::PasswordReset(_) => "PasswordReset",
        }
    }

    fn collection(&self) -> &'static str {
        match &self.subject {
            Subject::Order(..) => orders::COLLECTION,
            Subject::PasswordReset(_) => password_resets::COLLECTION,
        }
    }
}

/// All mails of the shop.
#[derive(Debug, Clone)]
pub struct Mails {
    database: Database,
    outbox: Outbox,
}

pub(crate) const OF_ORDERS: [&str; 3] = ["ConfirmationMail", "FailureMail", "CancellationMail"];
const OF_RESETS: [&str; 1] = ["PasswordResetMail"];

impl Mails {
    pub(crate) fn new(database: &Database) -> Self {
        Self { database: database.clone(), outbox: Outbox::new(database) }
    }

    /// Takes due mails, oldest first; those of password resets, for which somebody waits, before those of orders.
    pub async fn take(&self, taking: &Taking) -> Result<Vec<PendingMail>, StoreError> {
        let resets: Vec<PasswordReset> = self.outbox.take(password_resets::COLLECTION, &OF_RESETS, taking).await?;
        let mut mails: Vec<_> = resets.into_iter().flat_map(|reset| mails_of_reset(&reset, &taking.claim)).collect();
        let rest = taking.limit.saturating_sub(i64::try_from(mails.len()).unwrap_or(i64::MAX));
        if rest > 0 {
            let taking = Taking { limit: rest, ..taking.clone() };
            let orders: Vec<OrderDocument> = self.outbox.take(orders::COLLECTION, &OF_ORDERS, &taking).await?;
            mails.extend(orders.iter().flat_map(|order| mails_of_order(order, &taking.claim)));
        }
        Ok(mails)
    }

    /// See [`Outbox::release`].
    pub async fn release(&self, taking: &Taking) -> Result<(), StoreError> {
        self.outbox.release(taking).await
    }

    /// Removes a mail's entry and, for an order, records what became of the mail. False when it was no longer ours.
    pub async fn conclude(&self, mail: &PendingMail, end: &Conclusion) -> Result<bool, StoreError> {
        let mut change = doc! { "$pull": { "outbox": own(&mail.entry, &mail.claim) } };
        if let Subject::Order(_, kind) = mail.subject {
            let Conclusion { state, reason, attempts, at } = *end;
            change.insert("$push", doc! { "mails": to_bson(&MailRecord { kind, state, at, attempts, reason })? });
        }
        self.change(mail, change).await
    }

    /// Removes the entry of a mail that nobody is to get, and records nothing. False when it was no longer ours.
    pub async fn drop(&self, mail: &PendingMail) -> Result<bool, StoreError> {
        self.change(mail, doc! { "$pull": { "outbox": own(&mail.entry, &mail.claim) } }).await
    }

    /// Leaves a mail that was refused until `due_at`; the attempt counts. False when it was no longer ours.
    pub async fn postpone(&self, mail: &PendingMail, due_at: Timestamp) -> Result<bool, StoreError> {
        self.change(mail, doc! { "$set": { "outbox.$.dueAt": dates::bson(due_at) } }).await
    }

    /// Leaves a mail until `due_at` as if it had not been taken: nobody has refused it. False when it was no longer ours.
    pub async fn put_back(&self, mail: &PendingMail, due_at: Timestamp) -> Result<bool, StoreError> {
        let change = doc! { "$set": { "outbox.$.dueAt": dates::bson(due_at) }, "$inc": { "outbox.$.attempts": -1 } };
        self.change(mail, change).await
    }

    /// Owes a mail of an order once more. False when one of its kind is waiting already.
    pub async fn owe_again(&self, order: &OrderId, entry: &OutboxEntry) -> Result<bool, StoreError> {
        let none_waits = doc! { "_id": order.as_str(), "outbox.kind": { "$ne": kind_name(entry.kind) } };
        let change = doc! { "$push": { "outbox": to_bson(entry)? }, "$inc": { "mailsAskedAgain": 1 } };
        let orders: Collection<Document> = self.database.collection(orders::COLLECTION);
        Ok(orders.update_one(none_waits, change).await?.matched_count == 1)
    }

    async fn change(&self, mail: &PendingMail, change: Document) -> Result<bool, StoreError> {
        let update = bulk::update(ours(mail.about(), &mail.entry, &mail.claim), change);
        Ok(bulk::run(&self.database, mail.collection(), vec![update]).await? == 1)
    }
}

fn mails_of_order(order: &OrderDocument, claim: &ClaimId) -> Vec<PendingMail> {
    let taken = order.outbox.iter().filter(|entry| entry.claim.as_ref() == Some(claim));
    let mail = |entry: &OutboxEntry| {
        let subject = Subject::Order(Box::new(order.clone()), MailKind::of(entry.kind)?);
        Some(pending(subject, order.email.clone(), (entry, claim)))
    };
    taken.filter_map(mail).collect()
}

fn mails_of_reset(reset: &PasswordReset, claim: &ClaimId) -> Vec<PendingMail> {
    let Some(email) = &reset.email else { return Vec::new() };
    let taken = reset.outbox.iter().filter(|entry| entry.claim.as_ref() == Some(claim));
    taken.map(|entry| pending(Subject::PasswordReset(reset.clone()), email.clone(), (entry, claim))).collect()
}

fn pending(subject: Subject, to: BuyerEmail, (entry, claim): (&OutboxEntry, &ClaimId)) -> PendingMail {
    let (claim, traceparent) = (claim.clone(), entry.traceparent.clone());
    PendingMail { subject, to, entry: entry.id.clone(), claim, attempts: entry.attempts, traceparent }
}

#[cfg(test)]
mod tests {
    use mongodb::bson::{DateTime, deserialize_from_document, serialize_to_document};

    use super::*;

    #[test]
    fn a_record_of_the_first_version_was_sent() {
        let at = Timestamp::from_second(1_750_000_000).unwrap();
        let stored = doc! { "kind": "Failure", "sentAt": DateTime::from_millis(at.as_millisecond()) };
        let record: MailRecord = deserialize_from_document(stored).unwrap();
        let (kind, state) = (MailKind::Failure, MailState::Sent);
        assert_eq!(record, MailRecord { kind, state, at, attempts: 1, reason: None });
    }

    #[test]
    fn the_first_version_can_read_a_record() {
        let (kind, state, reason) = (MailKind::Failure, MailState::GivenUp, Some(MailReason::Refused));
        let record = MailRecord { kind, state, at: Timestamp::UNIX_EPOCH, attempts: 3, reason };
        let stored = serialize_to_document(&record).unwrap();
        assert_eq!(stored.get_str("kind").unwrap(), "Failure");
        assert_eq!(*stored.get_datetime("sentAt").unwrap(), DateTime::from_millis(0));
        assert_eq!(deserialize_from_document::<MailRecord>(stored).unwrap(), record);
    }

    #[test]
    fn every_mail_has_an_entry_of_its_own() {
        let names: Vec<_> = MailKind::ALL.into_iter().map(|kind| kind_name(kind.entry())).collect();
        assert_eq!(names, OF_ORDERS);
        assert!(MailKind::ALL.into_iter().all(|kind| MailKind::of(kind.entry()) == Some(kind)));
        assert_eq!(MailKind::of(OutboxKind::PasswordResetMail), None);
    }
}
