//! `kubectl shop doctor`: the shop's own examination, readable. Its staff may ask for it.

use anyhow::{Context as _, Result};
use hyper::Method;
use serde::{Deserialize, Serialize};

use crate::{
    Verdict,
    cluster::Cluster,
    output::Output,
    staff::{Session, Staff},
    text::{Cell, Tone, table, toned},
};

/// What the shop answers.
#[derive(Debug, Deserialize, Serialize)]
struct Diagnosis {
    status: String,
    checks: Vec<Check>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Check {
    name: String,
    status: String,
    detail: String,
}

pub async fn doctor(cluster: &Cluster, output: Output, (name, staff): (&str, &Staff)) -> Result<Verdict> {
    let mut session = Session::open(cluster, name, staff).await?;
    let answer = session.call(Method::GET, "/api/v1/admin/doctor", None).await?;
    session.close().await;
    let diagnosis: Diagnosis = serde_json::from_value(answer).context("the shop's answer is no diagnosis")?;
    output.print(&diagnosis, || render(name, &diagnosis))?;
    Ok(if diagnosis.status == "ok" { Verdict::Fine } else { Verdict::Unwell })
}

fn render(name: &str, diagnosis: &Diagnosis) -> String {
    let (mut checks, mut failed) = (diagnosis.checks.iter().collect::<Vec<_>>(), 0);
    // What is wrong is read first.
    checks.sort_by_key(|check| check.status == "ok");
    let rows = checks.into_iter().map(|check| {
        let sound = check.status == "ok";
        failed += usize::from(!sound);
        let tone = if sound { Tone::Good } else { Tone::Bad };
        vec![Cell::plain(&check.name), Cell::new(tone, &check.status), Cell::plain(&check.detail)]
    });
    let text = table(&["CHECK", "STATUS", "DETAIL"], &rows.collect::<Vec<_>>());
    let verdict = match failed {
        0 => toned(Tone::Good, "all is well"),
        1 => toned(Tone::Bad, "one check failed"),
        count => toned(Tone::Bad, &format!("{count} checks failed")),
    };
    format!("{text}\n{}: {verdict}\n", toned(Tone::Head, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::tests::bare;

    fn check(name: &str, status: &str, detail: &str) -> Check {
        Check { name: name.to_owned(), status: status.to_owned(), detail: detail.to_owned() }
    }

    #[test]
    fn what_is_wrong_comes_first() {
        let checks = vec![check("mongodb", "ok", "answers"), check("sqs", "failed", "no answer within 2 s")];
        let text = bare(&render("demo", &Diagnosis { status: "degraded".to_owned(), checks }));
        let expected = "CHECK    STATUS  DETAIL\nsqs      failed  no answer within 2 s\nmongodb  ok      answers\n\ndemo: one check failed\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn all_is_well() {
        let text =
            bare(&render("demo", &Diagnosis { status: "ok".to_owned(), checks: vec![check("sqs", "ok", "answers")] }));
        assert!(text.ends_with("\ndemo: all is well\n"), "{text}");
    }
}
