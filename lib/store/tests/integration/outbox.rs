//! Taking and removing outbox entries: nobody takes what another holds, and nobody removes what is not theirs.

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use shop_domain::{
    id::{ClaimId, OrderId, OutboxId},
    message::Message,
    order::Status,
};
use shop_harness::{Shop, bits, with_shop};
use shop_store::{
    mails::{Conclusion, MailKind, MailReason, MailState, PendingMail, Subject},
    orders::{NewOrderDocument, Reason, Settlement},
    outbox::{OutboxEntry, OutboxKind, PendingSend, Taking},
};

fn now() -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_hours(500_000)
}

fn later(seconds: i64) -> Timestamp {
    now() + SignedDuration::from_secs(seconds)
}

fn taking(at: Timestamp) -> anyhow::Result<Taking> {
    Ok(Taking { claim: ClaimId::from_bits(bits()?), now: at, until: at + SignedDuration::from_secs(30), limit: 100 })
}

async fn accepted(shop: &Shop) -> anyhow::Result<(NewOrderDocument, PendingSend)> {
    let product = shop.stocked(1).await?;
    let new = shop.new_order(&[(&product, 1)], now())?;
    let send = shop.store.orders.accept(&new).await?.send;
    Ok((new, send))
}

#[tokio::test]
async fn an_entry_is_the_acceptors_until_its_lease_is_over() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (new, mine) = accepted(&shop).await?;
        let outbox = &shop.store.outbox;
        assert!(outbox.take_sends(&taking(later(4))?).await?.is_empty());

        let taken = outbox.take_sends(&taking(later(5))?).await?;
        assert_eq!(taken.len(), 1);
        assert_eq!(taken[0].message, Message::OrderPlaced { order_id: new.id.clone() });
        assert_eq!((&taken[0].entry, taken[0].attempts), (&new.entry, 2));
        // The acceptor comes late: the entry is no longer its to remove.
        assert_eq!(outbox.remove(&[mine]).await?, 0);
        assert_eq!(shop.order(&new.id).await?.outbox.len(), 1);
        // Nor is it anyone's until the new lease is over.
        assert!(outbox.take_sends(&taking(later(34))?).await?.is_empty());
        assert_eq!(outbox.remove(&taken).await?, 1);
        assert!(shop.order(&new.id).await?.outbox.is_empty());
        assert!(outbox.take_sends(&taking(later(1_000))?).await?.is_empty());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_was_taken_in_vain_is_released_and_others_keep_theirs() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let outbox = &shop.store.outbox;
        let (first, _) = accepted(&shop).await?;
        let unheard = taking(later(5))?;
        assert_eq!(outbox.take_sends(&unheard).await?.len(), 1);
        let (second, _) = accepted(&shop).await?;
        let heard = outbox.take_sends(&taking(later(5))?).await?;

        outbox.release(&unheard).await?;
        let again = outbox.take_sends(&taking(later(5))?).await?;
        let entries: Vec<_> = again.iter().map(|send| (send.entry.clone(), send.attempts)).collect();
        assert_eq!(entries, [(first.entry, 2)], "as if it had not been taken");
        assert_eq!((heard[0].entry.clone(), outbox.remove(&heard).await?), (second.entry, 1));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_late_clear_leaves_a_newer_entry_alone() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (new, mine) = accepted(&shop).await?;
        let newer = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::FailureMail, now());
        let (id, from, to) = (new.id.clone(), Status::Pending, Status::Failed);
        let outbox = vec![newer.clone()];
        let settlement = Settlement { id, from, to, reason: None, shortages: Vec::new(), outbox, at: now() };
        assert!(shop.store.orders.settle(&settlement).await?);

        assert_eq!(shop.store.outbox.remove(std::slice::from_ref(&mine)).await?, 1);
        assert_eq!(shop.store.outbox.remove(&[mine]).await?, 0);
        assert_eq!(shop.order(&new.id).await?.outbox, [newer]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn two_takers_never_take_the_same_entry() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let product = shop.stocked(1).await?;
        for _ in 0..40 {
            shop.store.orders.accept(&shop.new_order(&[(&product, 1)], now())?).await?;
        }
        shop.adjust_unsent(&[(&product, 1)], now()).await?;
        let at = later(10);
        let takings = [taking(at)?, taking(at)?, taking(at)?];
        let [a, b, c] = takings.each_ref().map(|taking| shop.store.outbox.take_sends(taking));
        let (a, b, c) = tokio::join!(a, b, c);
        let mut entries: Vec<_> = [a?, b?, c?].concat().into_iter().map(|send| send.entry).collect();
        entries.sort_unstable();
        let all = entries.len();
        entries.dedup();
        assert_eq!((entries.len(), all), (41, 41));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_postponed_entry_waits() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (_, mine) = accepted(&shop).await?;
        let outbox = &shop.store.outbox;
        assert_eq!(outbox.postpone(&[mine], later(60)).await?, 1);
        assert!(outbox.take_sends(&taking(later(59))?).await?.is_empty());
        assert_eq!(outbox.take_sends(&taking(later(60))?).await?.len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_mail_is_taken_apart_from_messages_and_recorded_when_sent() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (new, _) = accepted(&shop).await?;
        let mail = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::ConfirmationMail, now());
        let (id, from, to) = (new.id.clone(), Status::Pending, Status::Processed);
        let settlement =
            Settlement { id, from, to, reason: None, shortages: Vec::new(), outbox: vec![mail.clone()], at: now() };
        shop.store.orders.settle(&settlement).await?;

        let mails = shop.store.mails.take(&taking(later(100))?).await?;
        assert_eq!(mails.len(), 1);
        assert!(matches!(&mails[0].subject, Subject::Order(order, MailKind::Confirmation) if order.id == new.id));
        assert_eq!((&mails[0].entry, mails[0].to.expose()), (&mail.id, "buyer@example.org"));
        let sent = Conclusion { state: MailState::Sent, reason: None, attempts: 1, at: later(101) };
        assert!(shop.store.mails.conclude(&mails[0], &sent).await?);
        assert!(!shop.store.mails.conclude(&mails[0], &Conclusion { at: later(102), ..sent }).await?);
        let order = shop.order(&new.id).await?;
        assert_eq!(
            order.mails.iter().map(|mail| (mail.kind, mail.state, mail.at)).collect::<Vec<_>>(),
            [(MailKind::Confirmation, MailState::Sent, later(101))]
        );
        // The message to the queue is still there.
        assert_eq!(order.outbox.iter().map(|entry| entry.kind).collect::<Vec<_>>(), [OutboxKind::OrderPlaced]);
        Ok(())
    })
    .await
}

/// Takes the one mail that is due.
async fn the_mail(shop: &Shop, at: Timestamp) -> anyhow::Result<PendingMail> {
    let mut mails = shop.store.mails.take(&taking(at)?).await?;
    assert_eq!(mails.len(), 1);
    mails.pop().context("a mail is due")
}

#[tokio::test]
async fn a_mail_that_was_put_back_is_charged_no_attempt_and_a_refused_one_is() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (new, _) = accepted(&shop).await?;
        let entry = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::FailureMail, now());
        assert!(shop.store.mails.owe_again(&new.id, &entry).await?);
        let twin = OutboxEntry { id: OutboxId::from_bits(bits()?), ..entry };
        assert!(!shop.store.mails.owe_again(&new.id, &twin).await?, "one waits already");

        let first = the_mail(&shop, later(1)).await?;
        assert_eq!(first.attempts, 1);
        assert!(shop.store.mails.put_back(&first, later(5)).await?);
        let second = the_mail(&shop, later(5)).await?;
        assert_eq!(second.attempts, 1);
        assert!(!shop.store.mails.put_back(&first, later(6)).await?, "no longer the first taker's");
        assert!(shop.store.mails.postpone(&second, later(9)).await?);
        let third = the_mail(&shop, later(9)).await?;
        assert_eq!(third.attempts, 2);

        let (state, reason) = (MailState::GivenUp, Some(MailReason::Refused));
        assert!(shop.store.mails.conclude(&third, &Conclusion { state, reason, attempts: 2, at: later(9) }).await?);
        let order = shop.order(&new.id).await?;
        assert_eq!((order.mails[0].state, order.mails[0].reason, order.mails[0].attempts), (state, reason, 2));
        assert!(!order.view().mail_waits);
        let books = shop.store.audit.read().await?;
        assert_eq!((books.mails_sent, books.mails_unsent, books.mails_asked_again), (0, 1, 1));
        assert_eq!(books.faults(), Vec::<String>::new());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn an_order_that_cannot_be_read_holds_up_no_other_mail() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (spoiled, sound) = (accepted(&shop).await?.0, accepted(&shop).await?.0);
        for id in [&spoiled.id, &sound.id] {
            let mail = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::FailureMail, now());
            let (from, to) = (Status::Pending, Status::Failed);
            let (reason, shortages, outbox) = (None, Vec::new(), vec![mail]);
            let settlement = Settlement { id: id.clone(), from, to, reason, shortages, outbox, at: now() };
            assert!(shop.store.orders.settle(&settlement).await?);
        }
        shop.spoil(&spoiled.id).await?;
        let mails = shop.store.mails.take(&taking(later(1))?).await?;
        assert_eq!(mails.iter().map(PendingMail::about).collect::<Vec<_>>(), [sound.id.as_str()]);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn the_late_clear_of_an_acceptor_leaves_the_entries_of_a_redrive_and_of_a_cancel_alone() -> anyhow::Result<()> {
    with_shop(async |shop| {
        let (redriven, first_send) = accepted(&shop).await?;
        let move_to = async |id: &OrderId, (from, to), reason, outbox| {
            let settlement = Settlement { id: id.clone(), from, to, reason, shortages: Vec::new(), outbox, at: now() };
            shop.store.orders.settle(&settlement).await
        };
        let failed = (Status::Pending, Status::Failed);
        assert!(move_to(&redriven.id, failed, Some(Reason::ProcessingFailed), Vec::new()).await?);
        let letter = shop.store.dead_letters.of_order(redriven.id.as_str()).await?;
        let anew = OutboxEntry::due(OutboxId::from_bits(bits()?), OutboxKind::OrderPlaced, now());
        let work: Vec<_> = letter.into_iter().map(|letter| (letter, anew.clone())).collect();
        assert_eq!(shop.store.dead_letters.redrive(&work, now()).await?, (1, 0));
        assert_eq!(shop.store.outbox.remove(&[first_send]).await?, 1);
        assert_eq!(shop.order(&redriven.id).await?.outbox, [anew]);

        let (cancelled, first_send) = accepted(&shop).await?;
        assert!(move_to(&cancelled.id, (Status::Pending, Status::Processed), None, Vec::new()).await?);
        let claim = ClaimId::from_bits(bits()?);
        let back = OutboxEntry::leased(OutboxId::from_bits(bits()?), OutboxKind::OrderCancelled, claim.clone(), now());
        let cancel = (Status::Processed, Status::Cancelled);
        assert!(move_to(&cancelled.id, cancel, Some(Reason::Cancelled), vec![back.clone()]).await?);
        assert_eq!(shop.store.outbox.remove(&[first_send]).await?, 1);
        assert_eq!(shop.order(&cancelled.id).await?.outbox, std::slice::from_ref(&back));

        // Whoever cancelled comes late: the entry was taken by another.
        let taken = shop.store.outbox.take_sends(&taking(later(5))?).await?;
        let message = Message::OrderCancelled { order_id: cancelled.id.clone() };
        assert!(taken.iter().any(|send| send.message == message), "{taken:?}");
        let mine = PendingSend { message, entry: back.id, claim, attempts: 1, traceparent: None };
        assert_eq!(shop.store.outbox.remove(&[mine]).await?, 0);
        assert_eq!(shop.order(&cancelled.id).await?.outbox.len(), 1);
        Ok(())
    })
    .await
}
