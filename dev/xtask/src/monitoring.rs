//! Checks the alert rules and the dashboard of the operator's chart with promtool, from Debian's package of Prometheus.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::command::Run;
use crate::context::Context;
use crate::host::{self, needed};

const FOLDER: &str = "charts/shop-operator/files/monitoring";

/// The rules are valid, each fires and is silent as its cases say, and every panel asks a valid question.
pub fn check(context: &Context) -> Result<()> {
    ensure_promtool(context)?;
    let promtool = || Run::new("promtool").dir(&context.repo);
    let log = context.log("check");
    promtool().args(["check", "rules", &format!("{FOLDER}/alerts.yaml")]).log_to(&log)?;
    promtool().args(["test", "rules", "dev/monitoring/alerts_test.yaml"]).log_to(&log)?;
    let file = context.repo.join(FOLDER).join("dashboard.json");
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let rules = panels_as_rules(&text).with_context(|| format!("reading {}", file.display()))?;
    promtool()
        .args(["check", "rules", "/dev/stdin"])
        .input(rules.to_string())
        .log_to(&log)
        .context("the dashboard's questions")
}

fn ensure_promtool(context: &Context) -> Result<()> {
    if host::find("promtool").is_some() {
        return Ok(());
    }
    host::ensure_packages(context, &[needed("promtool", "prometheus")])?;
    host::disable_services(&["prometheus.service"]);
    Ok(())
}

/// A rules file with each panel's expression, in which Grafana's variables have values.
fn panels_as_rules(dashboard: &str) -> Result<Value> {
    let dashboard: Value = serde_json::from_str(dashboard).context("it is no JSON")?;
    let panels = dashboard["panels"].as_array().context("it has no panels")?;
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let questions = targets.map(|target| target["expr"].as_str().context("a target without expr"));
    let questions = questions.collect::<Result<Vec<_>>>()?;
    ensure!(!questions.is_empty(), "no panel asks anything");
    let rule = |(number, question): (usize, &str)| {
        let question = question.replace("$__rate_interval", "5m").replace("$namespace", ".*").replace("$shop", ".*");
        ensure!(!question.contains('$'), "a variable that is not known: {question}");
        Ok(json!({"record": format!("panel:{number}"), "expr": question}))
    };
    let rules = questions.into_iter().enumerate().map(rule).collect::<Result<Vec<_>>>()?;
    Ok(json!({"groups": [{"name": "dashboard", "rules": rules}]}))
}

#[cfg(test)]
mod tests {
    use super::panels_as_rules;

    #[test]
    fn panels_become_rules_without_variables() {
        let dashboard = r#"{"panels": [{"type": "row"}, {"targets": [{"expr": "rate(a{namespace=~\"$namespace\"}[$__rate_interval])"}]}]}"#;
        let rules = panels_as_rules(dashboard).unwrap();
        assert_eq!(rules["groups"][0]["rules"][0]["expr"], "rate(a{namespace=~\".*\"}[5m])");
        let unknown = r#"{"panels": [{"targets": [{"expr": "a{b=\"$other\"}"}]}]}"#;
        assert!(panels_as_rules(unknown).unwrap_err().to_string().contains("$other"));
    }

    #[test]
    fn the_charts_dashboard_is_read() {
        let rules = panels_as_rules(include_str!("../../../charts/shop-operator/files/monitoring/dashboard.json"));
        assert!(rules.unwrap()["groups"][0]["rules"].as_array().is_some_and(|rules| rules.len() > 20));
    }
}
