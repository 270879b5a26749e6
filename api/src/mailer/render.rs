//! A mail from its templates: text and HTML, the HTML escaped. The text's first line is the subject.

use jiff::{Timestamp, tz::TimeZone};
use minijinja::{Environment, UndefinedBehavior, Value, context};
use secrecy::ExposeSecret;
use shop_domain::{
    id::ProductId,
    money::{Currency, Money},
};
use shop_store::{
    mails::{MailKind, PendingMail, Subject},
    orders::OrderDocument,
    password_resets::PasswordReset,
};

use super::reset_link::{ResetLink, ResetLinks};

#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    #[error("a mail template cannot be used")]
    Template(#[from] minijinja::Error),
    #[error("the signing key makes no token")]
    Token,
}

/// The shop's mails.
pub struct Templates(Environment<'static>);

/// A mail ready to be sent. It may hold a token: never log it.
pub struct Rendered {
    pub subject: String,
    pub text: String,
    pub html: String,
}

impl Templates {
    pub fn new() -> Result<Self, TemplateError> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        for (name, source) in [
            ("confirmation.txt", include_str!("../../templates/confirmation.txt")),
            ("confirmation.html", include_str!("../../templates/confirmation.html")),
            ("failure.txt", include_str!("../../templates/failure.txt")),
            ("failure.html", include_str!("../../templates/failure.html")),
            ("cancellation.txt", include_str!("../../templates/cancellation.txt")),
            ("cancellation.html", include_str!("../../templates/cancellation.html")),
            ("reset.txt", include_str!("../../templates/reset.txt")),
            ("reset.html", include_str!("../../templates/reset.html")),
        ] {
            environment.add_template(name, source)?;
        }
        Ok(Self(environment))
    }

    pub fn render(&self, mail: &PendingMail, shop: &str, links: &ResetLinks) -> Result<Rendered, TemplateError> {
        match &mail.subject {
            Subject::Order(order, MailKind::Confirmation) => self.fill("confirmation", facts_of_order(order, shop)),
            Subject::Order(order, MailKind::Failure) => self.fill("failure", facts_of_order(order, shop)),
            Subject::Order(order, MailKind::Cancellation) => self.fill("cancellation", facts_of_order(order, shop)),
            Subject::PasswordReset(reset) => {
                let link = links.to(&reset.id).ok_or(TemplateError::Token)?;
                self.fill("reset", facts_of_reset(reset, &link, shop))
            }
        }
    }

    fn fill(&self, stem: &str, facts: Value) -> Result<Rendered, TemplateError> {
        let html = self.0.get_template(&format!("{stem}.html"))?.render(facts.clone())?;
        let text = self.0.get_template(&format!("{stem}.txt"))?.render(facts)?;
        let (subject, text) = text.split_once('\n').unwrap_or((text.as_str(), ""));
        Ok(Rendered { subject: subject.trim().to_owned(), text: text.trim_start().to_owned(), html })
    }
}

/// A name as one line: in a text mail, or in a header, a line end would begin something else.
pub fn one_line(name: &str) -> String {
    let words = name.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

fn facts_of_reset(reset: &PasswordReset, link: &ResetLink, shop: &str) -> Value {
    context! {
        shop,
        token => link.token.expose_secret(),
        url => link.url.as_ref().map(ExposeSecret::expose_secret),
        until => minute(reset.expires_at),
    }
}

/// The same for every reader, wherever they are.
fn minute(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn facts_of_order(order: &OrderDocument, shop: &str) -> Value {
    let amount = |money: Money| amount(money, order.currency);
    let name_of = |id: &ProductId| {
        let line = order.lines.iter().find(|line| line.product_id == *id);
        line.map(|line| one_line(&line.name))
    };
    let lines = order.lines.iter().map(|line| {
        context! {
            name => one_line(&line.name),
            quantity => line.quantity,
            price => amount(line.unit_price),
            total => amount(line.total),
        }
    });
    let shortages = order.shortages.iter().map(|short| {
        context! {
            name => name_of(&short.product_id).unwrap_or_default(),
            wanted => short.wanted,
            available => short.available,
        }
    });
    context! {
        shop,
        order_id => order.id.as_str(),
        lines => lines.collect::<Vec<_>>(),
        shortages => shortages.collect::<Vec<_>>(),
        total => amount(order.total),
    }
}

fn amount(money: Money, currency: Currency) -> String {
    let mut decimal = money.to_decimal(currency);
    decimal.rescale(currency.exponent());
    format!("{currency} {decimal}")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use rstest::rstest;
    use shop_domain::{
        order::{OrderLine, Status},
        stock::Shortage,
    };
    use shop_store::orders::BuyerEmail;

    use super::*;
    use crate::{
        keys::{Keys, tests::ring},
        reset_tokens::ResetTokens,
    };

    const ID: &str = "67c8830b7ef1b848ac52ebec";
    const OTHER: &str = "67c8830b7ef1b848ac52ebee";

    fn line(id: &str, name: &str, (quantity, price): (u32, i64)) -> OrderLine {
        let unit_price = Money::try_from(price).unwrap();
        let (product_id, name, total) = (id.parse().unwrap(), name.into(), unit_price.times(quantity).unwrap());
        OrderLine { product_id, name, quantity, unit_price, total }
    }

    fn order(currency: &str) -> OrderDocument {
        let lines = vec![
            line(ID, "Mouse <b>4K</b>\r\nTotal: 0", (2, 132_450)),
            line(OTHER, "Lamp \"Ann's\" & {{ more }}", (1, 5)),
        ];
        OrderDocument {
            id: ID.parse().unwrap(),
            user_id: ID.parse().unwrap(),
            email: BuyerEmail::new("buyer@example.org"),
            location: "bangalore".parse().unwrap(),
            total: Money::sum(lines.iter().map(|line| line.total)).unwrap(),
            lines,
            currency: currency.parse().unwrap(),
            status: Status::Pending,
            reason: None,
            shortages: vec![Shortage { product_id: ID.parse().unwrap(), wanted: 2, available: 1 }],
            history: Vec::new(),
            idempotency: None,
            version: 1,
            outbox: Vec::new(),
            mails: Vec::new(),
            created_at: Timestamp::UNIX_EPOCH,
            updated_at: Timestamp::UNIX_EPOCH,
            sweeps: None,
            stuck: false,
            restock: None,
            deliveries: None,
            failure: None,
        }
    }

    fn reset() -> PasswordReset {
        PasswordReset {
            id: ID.parse().unwrap(),
            user_id: ID.parse().unwrap(),
            password_mark: String::new(),
            email: Some(BuyerEmail::new("buyer@example.org")),
            created_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(1),
            outbox: Vec::new(),
        }
    }

    /// Subject, text and HTML of a mail.
    fn rendered_by(shop: &str, subject: Subject, url: Option<&str>) -> String {
        let (entry, claim) = (ID.parse().unwrap(), ID.parse().unwrap());
        let mail = PendingMail {
            subject,
            to: BuyerEmail::new("buyer@example.org"),
            entry,
            claim,
            attempts: 1,
            traceparent: None,
        };
        let links = ResetLinks::new(ResetTokens::new(Keys::new(ring(&[1]))), url.map(str::to_owned));
        let Rendered { subject, text, html } =
            Templates::new().unwrap().render(&mail, &one_line(shop), &links).unwrap();
        assert!(!subject.contains(char::is_control), "{subject}");
        format!("Subject: {subject}\n\n{text}\n----\n{html}")
    }

    #[rstest]
    #[case::confirmation("confirmation", MailKind::Confirmation)]
    #[case::failure("failure", MailKind::Failure)]
    #[case::cancellation("cancellation", MailKind::Cancellation)]
    fn the_mails_of_an_order(#[case] name: &str, #[case] kind: MailKind) {
        let subject = Subject::Order(Box::new(order("INR")), kind);
        insta::assert_snapshot!(name, rendered_by("Tea & \"Toast\"\n<i>Ltd</i>", subject, None));
    }

    #[test]
    fn an_order_that_failed_for_no_want_of_stock_says_so() {
        let order = OrderDocument { shortages: Vec::new(), ..order("INR") };
        let mail = rendered_by("Xhipment", Subject::Order(Box::new(order), MailKind::Failure), None);
        assert_eq!(mail.matches("a fault on our side").count(), 2, "{mail}");
    }

    #[rstest]
    #[case("INR", "INR 2649.05")]
    #[case("JPY", "JPY 264905")]
    #[case("KWD", "KWD 264.905")]
    fn amounts_have_the_digits_of_their_currency(#[case] currency: &str, #[case] total: &str) {
        let subject = Subject::Order(Box::new(order(currency)), MailKind::Confirmation);
        let mail = rendered_by("Xhipment", subject, None);
        assert_eq!(mail.matches(total).count(), 2, "in text and HTML: {mail}");
    }

    #[test]
    fn the_mail_of_a_password_reset_links_to_the_shops_page() {
        let url = Some("https://shop.example.com/reset?from=mail&token={token}");
        insta::assert_snapshot!("reset", rendered_by("Xhipment", Subject::PasswordReset(reset()), url));
    }

    #[test]
    fn the_mail_of_a_password_reset_without_a_page_says_which_call_to_make() {
        insta::assert_snapshot!("reset_without_page", rendered_by("Xhipment", Subject::PasswordReset(reset()), None));
    }

    #[rstest]
    #[case("Xhipment", "Xhipment")]
    #[case("A\r\nBcc: x", "A Bcc: x")]
    #[case("  \t\u{85}A\u{2028}B  ", "A B")]
    fn a_name_is_one_line(#[case] name: &str, #[case] line: &str) {
        assert_eq!(one_line(name), line);
    }
}
