use diesel_async::AsyncPgConnection;
use domain::verify::{self, Finding};
use serde_json::json;

use super::Answer;

/// Whether the promise is kept. One JSON object, or a line for each rule: the verdict, the rule's name, how many it was asked
/// of, how many broke it, what it says, and the ids of the first that broke it.
pub(super) async fn run(
    conn: &mut AsyncPgConnection,
    retention_days: Option<u32>,
    answer: Answer,
) -> anyhow::Result<bool> {
    let findings = verify::run(conn, retention_days).await?;
    let is_kept = !findings.iter().any(Finding::is_broken);
    if answer.json {
        let rules: Vec<_> = findings.iter().map(as_json).collect();
        answer.line(&[], &json!({"ok": is_kept, "rules": rules}))?;
        return Ok(is_kept);
    }
    for finding in &findings {
        let ids: Vec<String> = finding.ids.iter().map(ToString::to_string).collect();
        let mut counts = format!("{} violations", finding.violations);
        if let Some(seconds) = finding.oldest_seconds {
            counts += &format!(", the oldest for {seconds:.0} s");
        }
        answer.line(
            &[
                &verdict(finding),
                &finding.rule.as_str(),
                &format_args!("{} checked", finding.checked),
                &counts,
                &finding.rule.text(),
                &ids.join(" "),
            ],
            &as_json(finding),
        )?;
    }
    Ok(is_kept)
}

fn verdict(finding: &Finding) -> &'static str {
    match (finding.violations, finding.is_broken()) {
        (0, _) => "ok",
        (_, false) => "warning",
        (_, true) => "broken",
    }
}

fn as_json(finding: &Finding) -> serde_json::Value {
    json!({
        "rule": finding.rule,
        "says": finding.rule.text(),
        "verdict": verdict(finding),
        "checked": finding.checked,
        "violations": finding.violations,
        "ids": finding.ids,
        "oldest_seconds": finding.oldest_seconds,
    })
}
