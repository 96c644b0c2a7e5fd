use std::io;

use anyhow::{Context, ensure};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use diesel_async::AsyncPgConnection;
use domain::client::{Client, NewToken, Token};
use domain::scope::Scope;
use domain::token;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use uuid::Uuid;

use super::Answer;
use super::clients::check_name;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token of a client, and print it, which happens this once
    Create {
        client_id: i32,
        /// What the token is for
        #[arg(long, default_value = "unnamed")]
        name: String,
        /// What it may do: read, write (change webhooks), connect (link numbers), send; all by default
        #[arg(long, value_delimiter = ',', default_values_t = Scope::ALL)]
        scopes: Vec<Scope>,
        /// When it ends by itself, as 2030-01-31T00:00:00Z; never by default
        #[arg(long, value_name = "TIME")]
        expires_at: Option<DateTime<Utc>>,
    },
    /// List the tokens of a client
    List { client_id: i32 },
    /// Refuse a token from now on
    Revoke { token_id: Uuid },
}

pub(super) async fn run(
    command: &Command,
    conn: &mut AsyncPgConnection,
    answer: Answer,
) -> anyhow::Result<()> {
    match command {
        Command::Create {
            client_id,
            name,
            scopes,
            expires_at,
        } => {
            check_name(name)?;
            let is_past = expires_at.is_some_and(|at| at <= Utc::now());
            ensure!(!is_past, "--expires-at must lie in the future");
            let client = find(conn, *client_id).await?;
            let token = token::new_api_token();
            let new = NewToken {
                scopes,
                expires_at: *expires_at,
                ..NewToken::of(client.id, name, &token)
            };
            let row = Token::insert(conn, &new).await?;
            show(&row, answer)?;
            print(&token, answer)?;
            Ok(())
        }
        Command::List { client_id } => {
            let client = find(conn, *client_id).await?;
            for token in Token::list(conn, client.id).await? {
                show(&token, answer)?;
            }
            Ok(())
        }
        Command::Revoke { token_id } => {
            let revoked = Token::revoke(conn, *token_id).await?;
            let revoked = revoked.with_context(|| format!("there is no valid token {token_id}"))?;
            show(&revoked, answer)
        }
    }
}

/// The token itself.
pub(super) fn print(token: &SecretString, answer: Answer) -> io::Result<()> {
    let token = token.expose_secret();
    answer.line(&[&"token", &token], &json!({"token": token}))
}

async fn find(conn: &mut AsyncPgConnection, id: i32) -> anyhow::Result<Client> {
    let client = Client::find(conn, id).await?;
    client.with_context(|| format!("there is no client {id}"))
}

fn show(token: &Token, answer: Answer) -> anyhow::Result<()> {
    let text = |at: DateTime<Utc>| at.to_rfc3339();
    let standing = match (token.revoked_at, token.expires_at) {
        (Some(at), _) => format!("revoked {}", text(at)),
        (None, Some(at)) if at <= Utc::now() => format!("expired {}", text(at)),
        (None, Some(at)) => format!("valid until {}", text(at)),
        (None, None) => "valid".to_owned(),
    };
    let used = token.last_used_at.map(text);
    answer.line(
        &[
            &"token_id",
            &token.id,
            &token.name,
            &standing,
            &text(token.created_at),
            &token.scopes.join(","),
            &used
                .as_deref()
                .map_or("never used".to_owned(), |at| format!("last used {at}")),
        ],
        &serde_json::to_value(token)?,
    )?;
    Ok(())
}
