//! An order's mail from its templates: text and HTML, the HTML escaped. The text's first line is the subject.

use minijinja::{Environment, UndefinedBehavior, Value, context};
use shop_domain::{
    id::ProductId,
    money::{Currency, Money},
};
use shop_store::{
    orders::OrderDocument,
    outbox::{MailKind, PendingMail},
};

#[derive(Debug, thiserror::Error)]
#[error("a mail template cannot be used")]
pub struct TemplateError(#[from] minijinja::Error);

/// The shop's mails.
pub struct Templates(Environment<'static>);

/// A mail ready to be sent.
#[derive(Debug, PartialEq, Eq)]
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
        ] {
            environment.add_template(name, source)?;
        }
        Ok(Self(environment))
    }

    pub fn render(&self, mail: &PendingMail, shop: &str) -> Result<Rendered, TemplateError> {
        let facts = facts(&mail.order, shop);
        let stem = match mail.kind {
            MailKind::Confirmation => "confirmation",
            MailKind::Failure => "failure",
            MailKind::Cancellation => "cancellation",
        };
        let html = self.0.get_template(&format!("{stem}.html"))?.render(facts.clone())?;
        let text = self.0.get_template(&format!("{stem}.txt"))?.render(facts)?;
        let (subject, text) = text.split_once('\n').unwrap_or((text.as_str(), ""));
        Ok(Rendered { subject: subject.trim().to_owned(), text: text.trim_start().to_owned(), html })
    }
}

fn facts(order: &OrderDocument, shop: &str) -> Value {
    let amount = |money: Money| amount(money, order.currency);
    let name_of =
        |id: &ProductId| order.lines.iter().find(|line| line.product_id == *id).map(|line| line.name.as_str());
    let lines = order.lines.iter().map(|line| {
        context! {
            name => line.name.as_str(),
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
    use jiff::Timestamp;
    use rstest::rstest;
    use shop_domain::{
        order::{OrderLine, Status},
        stock::Shortage,
    };
    use shop_store::orders::BuyerEmail;

    use super::*;

    const ID: &str = "67c8830b7ef1b848ac52ebec";

    fn mail(kind: MailKind) -> PendingMail {
        let money = |minor: i64| Money::try_from(minor).unwrap();
        let line = OrderLine {
            product_id: ID.parse().unwrap(),
            name: "Mouse <b>4K</b>".into(),
            quantity: 2,
            unit_price: money(132_450),
            total: money(264_900),
        };
        let shortage = Shortage { product_id: ID.parse().unwrap(), wanted: 2, available: 1 };
        let order = OrderDocument {
            id: ID.parse().unwrap(),
            user_id: ID.parse().unwrap(),
            email: BuyerEmail::new("buyer@example.org"),
            location: "bangalore".parse().unwrap(),
            lines: vec![line],
            total: money(264_900),
            currency: "INR".parse().unwrap(),
            status: Status::Pending,
            reason: None,
            shortages: vec![shortage],
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
        };
        PendingMail {
            order,
            kind,
            entry: ID.parse().unwrap(),
            claim: ID.parse().unwrap(),
            attempts: 1,
            traceparent: None,
        }
    }

    #[rstest]
    #[case::confirmation(MailKind::Confirmation)]
    #[case::failure(MailKind::Failure)]
    #[case::cancellation(MailKind::Cancellation)]
    fn every_mail_says_what_it_is_about(#[case] kind: MailKind) {
        let rendered = Templates::new().unwrap().render(&mail(kind), "Xhipment").unwrap();
        assert!(rendered.subject.contains(ID) && !rendered.subject.contains('\n'), "{}", rendered.subject);
        assert!(rendered.text.contains("Mouse <b>4K</b>"), "{}", rendered.text);
        assert!(rendered.html.contains("Mouse &lt;b&gt;4K&lt;&#x2f;b&gt;"), "{}", rendered.html);
        assert!(rendered.text.contains("Xhipment") && rendered.html.contains("Xhipment"));
    }

    #[test]
    fn a_confirmation_has_the_prices_with_all_their_digits() {
        let rendered = Templates::new().unwrap().render(&mail(MailKind::Confirmation), "Xhipment").unwrap();
        assert!(rendered.text.contains("INR 2649.00") && rendered.text.contains("INR 1324.50"), "{}", rendered.text);
    }

    #[test]
    fn a_failure_says_what_is_short() {
        let rendered = Templates::new().unwrap().render(&mail(MailKind::Failure), "Xhipment").unwrap();
        assert!(rendered.text.contains("you wanted 2, we have 1"), "{}", rendered.text);
    }
}
