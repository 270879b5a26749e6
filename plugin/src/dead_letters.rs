//! `kubectl shop dead-letters`: work that the shop gave up, listed and taken up again. Its staff may ask for it.

use anyhow::{Context as _, Result, bail};
use hyper::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    cli::Name,
    cluster::Cluster,
    output::Output,
    staff::{Session, Staff},
    text::{Cell, Tone, table, toned},
};

const PATH: &str = "/api/v1/admin/dead-letters";
/// What the shop gives at once at most.
const PAGE: usize = 100;

#[derive(Clone, Debug, clap::Subcommand)]
pub enum Action {
    /// What was given up, and why
    List {
        #[command(flatten)]
        name: Name,
        #[command(flatten)]
        staff: Staff,
    },
    /// Have it taken up again
    Redrive {
        #[command(flatten)]
        name: Name,
        /// An order or adjustment, by its id; may be given several times
        #[arg(long, value_name = "ID", value_parser = id, required_unless_present = "all")]
        id: Vec<String>,
        /// Everything, and what lies in the dead-letter queue
        #[arg(long, conflicts_with = "id")]
        all: bool,
        #[command(flatten)]
        staff: Staff,
    },
}

/// What the shop tells of one piece of work.
#[derive(Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Letter {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    order_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    adjustment_id: Option<String>,
    cause: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deliveries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failed_at: Option<String>,
    created_at: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    data: Vec<Letter>,
    next_cursor: Option<String>,
}

/// What the shop has taken up again.
#[derive(Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Redriven {
    orders: u64,
    adjustments: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    move_task: Option<String>,
}

pub async fn run(cluster: &Cluster, output: Output, action: &Action) -> Result<()> {
    match action {
        Action::List { name, staff } => {
            let mut session = Session::open(cluster, &name.name, staff).await?;
            let letters = list(&mut session).await?;
            session.close().await;
            output.print(&letters, || render(&name.name, &letters))
        }
        Action::Redrive { name, id, staff, .. } => {
            let mut session = Session::open(cluster, &name.name, staff).await?;
            let redriven = if id.is_empty() { all(&mut session).await? } else { some(&mut session, id).await? };
            session.close().await;
            output.print(&redriven, || told(&redriven))
        }
    }
}

/// An id as the shop has it.
fn id(text: &str) -> Result<String, String> {
    let is_id = text.len() == 24 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if is_id { Ok(text.to_owned()) } else { Err("an id is 24 lower-case hex digits".to_owned()) }
}

async fn list(session: &mut Session) -> Result<Vec<Letter>> {
    let (mut letters, mut path) = (Vec::new(), format!("{PATH}?limit={PAGE}"));
    loop {
        let answer = session.call(Method::GET, &path, None).await?;
        let page: Page = serde_json::from_value(answer).context("the shop's answer is no page of dead letters")?;
        letters.extend(page.data);
        let Some(cursor) = page.next_cursor else { return Ok(letters) };
        path = format!("{PATH}?limit={PAGE}&cursor={cursor}");
    }
}

async fn all(session: &mut Session) -> Result<Redriven> {
    redrive(session, &json!({})).await
}

/// What each id is stands in the list; the shop asks for it.
async fn some(session: &mut Session, ids: &[String]) -> Result<Redriven> {
    let letters = list(session).await?;
    let mut bodies = Vec::new();
    for id in ids {
        let Some(body) = body(&letters, id) else {
            bail!(
                "{id} is not among the dead letters: nothing was taken up. `kubectl shop dead-letters list` shows them"
            );
        };
        bodies.push(body);
    }
    let mut total = Redriven::default();
    for body in bodies {
        let one = redrive(session, &body).await?;
        total.orders += one.orders;
        total.adjustments += one.adjustments;
    }
    Ok(total)
}

fn body(letters: &[Letter], id: &str) -> Option<Value> {
    letters.iter().find_map(|letter| {
        let is = |this: &Option<String>| this.as_deref() == Some(id);
        match letter {
            letter if is(&letter.order_id) => Some(json!({ "orderId": id })),
            letter if is(&letter.adjustment_id) => Some(json!({ "adjustmentId": id })),
            _ => None,
        }
    })
}

async fn redrive(session: &mut Session, body: &Value) -> Result<Redriven> {
    let answer = session.call(Method::POST, &format!("{PATH}/redrive"), Some(body)).await?;
    serde_json::from_value(answer).context("the shop's answer does not say what was taken up again")
}

fn render(name: &str, letters: &[Letter]) -> String {
    if letters.is_empty() {
        return format!("{}: nothing was given up\n", toned(Tone::Head, name));
    }
    let row = |letter: &Letter| {
        let id = letter.order_id.as_ref().or(letter.adjustment_id.as_ref());
        vec![
            Cell::plain(id.cloned().unwrap_or_default()),
            Cell::plain(&letter.kind),
            Cell::plain(&letter.cause),
            Cell::plain(letter.reason.clone().unwrap_or_default()),
            Cell::plain(letter.deliveries.map(|count| count.to_string()).unwrap_or_default()),
            Cell::plain(letter.failed_at.as_ref().unwrap_or(&letter.created_at)),
        ]
    };
    let head = ["ID", "WORK", "CAUSE", "REASON", "DELIVERIES", "SINCE"];
    let text = table(&head, &letters.iter().map(row).collect::<Vec<_>>());
    format!("{text}\n`kubectl shop dead-letters redrive {name} --id ID`, or --all, has them taken up again\n")
}

fn told(redriven: &Redriven) -> String {
    let mut text = format!("{} orders and {} adjustments are taken up again\n", redriven.orders, redriven.adjustments);
    text += match redriven.move_task.as_deref() {
        Some("started") => "what lies in the dead-letter queue is moved back\n",
        Some("no_dead_letter_queue") => "the queue has no dead-letter queue\n",
        Some(_) => {
            "the dead-letter queue was not moved back: a move may be under way already, the api's log says more\n"
        }
        None => "",
    };
    text
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::text::tests::bare;

    const ORDER: &str = "67c8830b7ef1b848ac52ebec";
    const ADJUSTMENT: &str = "67c8830b7ef1b848ac52ebee";

    fn letters() -> Vec<Letter> {
        serde_json::from_value(json!([
            { "kind": "OrderPlaced", "orderId": ORDER, "cause": "failed", "reason": "timeout", "deliveries": 10,
              "failedAt": "2026-01-02T00:00:00Z", "createdAt": "2026-01-01T00:00:00Z", "updatedAt": "2026-01-02T00:00:00Z" },
            { "kind": "StockAdjusted", "adjustmentId": ADJUSTMENT, "cause": "stuck", "createdAt": "2026-01-01T00:00:00Z",
              "updatedAt": "2026-01-02T00:00:00Z" },
        ]))
        .unwrap()
    }

    #[test]
    fn a_list() {
        insta::assert_snapshot!(bare(&render("demo", &letters())));
        assert_eq!(bare(&render("demo", &[])), "demo: nothing was given up\n");
    }

    #[rstest]
    #[case::order(ORDER, Some(json!({ "orderId": ORDER })))]
    #[case::adjustment(ADJUSTMENT, Some(json!({ "adjustmentId": ADJUSTMENT })))]
    #[case::neither("67c8830b7ef1b848ac52ebff", None)]
    fn what_an_id_is(#[case] id: &str, #[case] expected: Option<Value>) {
        assert_eq!(body(&letters(), id), expected);
    }

    #[rstest]
    #[case::one(None, "1 orders and 0 adjustments are taken up again\n")]
    #[case::all(
        Some("started"),
        "1 orders and 0 adjustments are taken up again\nwhat lies in the dead-letter queue is moved back\n"
    )]
    fn what_was_taken_up(#[case] move_task: Option<&str>, #[case] text: &str) {
        assert_eq!(told(&Redriven { orders: 1, adjustments: 0, move_task: move_task.map(str::to_owned) }), text);
    }
}
