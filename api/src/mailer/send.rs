//! One mail to SES.

use aws_sdk_ses::{
    error::SdkError,
    operation::send_email::SendEmailError,
    types::{Body, Content, Destination, Message},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use shop_runtime::trace::{Origin, Role};
use shop_store::{mails::PendingMail, orders::BuyerEmail};
use tracing::{Span, field::Empty};

use super::{
    MailerDeps,
    refusal::{Refusal, Verdict, judge},
    render::{Rendered, one_line},
};

/// In whose name mails are sent.
#[derive(Debug, Clone)]
pub struct Sender {
    shop: String,
    source: String,
}

impl Sender {
    /// `shop` is what buyers see, `address` what the mail service knows.
    pub fn new(shop: &str, address: &str) -> Self {
        let shop = one_line(shop);
        Self { source: format!("{} <{address}>", display_name(&shop)), shop }
    }

    pub fn shop(&self) -> &str {
        &self.shop
    }
}

/// A display name for a mail header: quoted (RFC 5322), or encoded (RFC 2047) where it has more than ASCII.
fn display_name(name: &str) -> String {
    if name.is_ascii() {
        format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
    } else {
        format!("=?UTF-8?B?{}?=", STANDARD.encode(name))
    }
}

#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("the mail cannot be built")]
    Build(#[from] aws_sdk_ses::error::BuildError),
    /// Without the service's own words: they may repeat the address.
    #[error("the mail service refused: {code} (status {status})")]
    Refused { verdict: Verdict, code: String, status: u16 },
    #[error("the mail service cannot be reached")]
    Unreachable(#[source] Box<SdkError<SendEmailError>>),
}

impl SendError {
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Build(_) => Verdict::Refused,
            Self::Refused { verdict, .. } => *verdict,
            Self::Unreachable(_) => Verdict::ServiceFault,
        }
    }

    /// The mail service's code for the refusal, or what else went wrong.
    pub fn code(&self) -> &str {
        match self {
            Self::Build(_) => "not built",
            Self::Refused { code, .. } => code,
            Self::Unreachable(_) => "unreachable",
        }
    }
}

impl From<SdkError<SendEmailError>> for SendError {
    fn from(error: SdkError<SendEmailError>) -> Self {
        let SdkError::ServiceError(answer) = &error else { return Self::Unreachable(Box::new(error)) };
        let (status, meta) = (answer.raw().status().as_u16(), answer.err().meta());
        let (code, message) = (meta.code().unwrap_or_default(), meta.message().unwrap_or_default());
        let verdict = judge(&Refusal { status, code, message });
        let code = if code.is_empty() { "no code" } else { code };
        Self::Refused { verdict, code: code.to_owned(), status }
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
        about = mail.about(),
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
    #[case("A\r\nBcc: x", "\"A Bcc: x\" <a@b>")]
    fn the_shops_name_is_a_safe_header(#[case] shop: &str, #[case] source: &str) {
        assert_eq!(Sender::new(shop, "a@b").source, source);
    }
}
