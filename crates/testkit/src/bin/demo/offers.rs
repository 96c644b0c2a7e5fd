//! Commands for who wants to go on by hand.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;
use testkit::system::{Account, System};

pub(crate) struct Offer {
    pub(crate) what: &'static str,
    pub(crate) line: String,
}

/// A message, what became of the last ones, and the session.
pub(crate) fn offers(system: &System, account: &Account, contact: &str) -> [Offer; 3] {
    let Account { phone, webhook, .. } = account;
    let (phones, api, token) = (system.phones.url(), system.users.url(), system.token());
    let message = format!(r#"{{"from": "{contact}", "to": "{phone}", "text": "Oi!"}}"#);
    [
        Offer {
            what: "write a WhatsApp message, and see it arrive here",
            line: format!("curl -fsS {phones}/admin/messages -d '{message}'"),
        },
        Offer {
            what: "ask what became of the last messages",
            line: format!(
                "curl -fsS '{api}/api/webhooks/{webhook}/events?limit=3' -H 'Authorization: Bearer {token}'"
            ),
        },
        Offer {
            what: "ask how the number is connected",
            line: format!(
                "curl -fsS {api}/api/whatsapp/connections -H 'Authorization: Bearer {token}'"
            ),
        },
    ]
}

/// Whether the lines can be tried at all.
pub(crate) fn curl_is_here() -> bool {
    let curl = Command::new("curl")
        .arg("--version")
        .stdout(Stdio::null())
        .status();
    curl.is_ok_and(|status| status.success())
}

impl Offer {
    /// Does what a reader would, who copies the line.
    pub(crate) async fn take(&self) -> anyhow::Result<Value> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &self.line]);
        let output = tokio::task::spawn_blocking(move || shell.output()).await??;
        let answer = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.success(),
            "{}: {}: {answer}{error}",
            self.line,
            output.status
        );
        serde_json::from_str(&answer).with_context(|| format!("{}: {answer}", self.line))
    }
}
