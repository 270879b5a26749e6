//! One mail to SES.

use aws_sdk_ses::{
    error::SdkError,
    operation::send_email::SendEmailError,
    types::{Body, Content, Destination, Message},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use shop_runtime::trace::{Origin, Role};
use shop_store::{orders::BuyerEmail, outbox::PendingMail};
use tracing::{Span, field::Empty};

use super::{MailerDeps, render::Rendered};

/// In whose name mails are sent.
#[derive(Debug, Clone)]
pub struct Sender {
    shop: String,
    source: String,
}

impl Sender {
    /// `shop` is what buyers see, `address` what the mail service knows.
    pub fn new(shop: &str, address: &str) -> Self {
        Self { shop: shop.to_owned(), source: format!("{} <{address}>", display_name(shop)) }
    }

    pub fn shop(&self) -> &str {
        &self.shop
    }
}

/// A display name for a mail header: quoted (RFC 5322), or encoded (RFC 2047) where it has more than ASCII.
fn display_name(name: &str) -> String {
    let clean: String = name.chars().filter(|c| !c.is_control()).collect();
    if clean.is_ascii() {
        format!("\"{}\"", clean.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("=?UTF-8?B?{}?=", STANDARD.encode(clean))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the mail cannot be built")]
    Build(#[from] aws_sdk_ses::error::BuildError),
    /// Without the service's own words: they may repeat the address.
    #[error("the mail service refused: {0}")]
    Refused(String),
    #[error("the mail service cannot be reached")]
    Unreachable(#[source] Box<SdkError<SendEmailError>>),
}

impl From<SdkError<SendEmailError>> for SendError {
    fn from(error: SdkError<SendEmailError>) -> Self {
        match error.as_service_error() {
            Some(refusal) => Self::Refused(refusal.meta().code().unwrap_or("no code").to_owned()),
            None => Self::Unreachable(Box::new(error)),
        }
    }
}

pub async fn send(deps: &MailerDeps, to: &BuyerEmail, mail: Rendered) -> Result<(), SendError> {
    let content = |data: String| Content::builder().charset("UTF-8").data(data).build();
    let body = Body::builder().text(content(mail.text)?).html(content(mail.html)?).build();
    let message = Message::builder().subject(content(mail.subject)?).body(body).build();
    let destination = Destination::builder().to_addresses(to.expose()).build();
    deps.ses.send_email().source(&deps.sender.source).destination(destination).message(message).send().await?;
    Ok(())
}

/// The span of one attempt. Without the address.
pub fn span(mail: &PendingMail) -> Span {
    let origin = Origin::read(mail.traceparent.as_deref());
    let span = tracing::error_span!(
        parent: None,
        "mail",
        order_id = %mail.order.id,
        trace_id = %origin.trace_id,
        otel.name = Empty,
        otel.kind = Empty,
    );
    origin.join(&span, Role { name: "send mail", kind: "client" });
    span
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("Xhipment", "\"Xhipment\" <a@b>")]
    #[case("A \"B\", C", "\"A \\\"B\\\", C\" <a@b>")]
    #[case("Bücher", "=?UTF-8?B?QsO8Y2hlcg==?= <a@b>")]
    #[case("A\r\nBcc: x", "\"ABcc: x\" <a@b>")]
    fn the_shops_name_is_a_safe_header(#[case] shop: &str, #[case] source: &str) {
        assert_eq!(Sender::new(shop, "a@b").source, source);
    }
}
