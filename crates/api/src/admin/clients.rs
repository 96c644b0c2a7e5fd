use std::fmt::{self, Display};
use std::str::FromStr;

use anyhow::{Context, ensure};
use clap::Subcommand;
use diesel::result::{DatabaseErrorKind, Error};
use diesel_async::{AsyncConnection, AsyncPgConnection};
use domain::client::{Client, NewToken, Token};
use domain::token;

use super::{Answer, tokens};

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a client, and print its first token, which is shown this once
    Create { name: String },
    /// List all clients
    List,
    /// Limit the deliveries to a client, over all of its webhooks, to so many a second
    Limit {
        name: String,
        /// A number, or "none"
        limit: Limit,
    },
    /// Refuse all tokens of a client from now on
    Deactivate { id: i32 },
}

/// Deliveries a second, if there is a limit to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit(Option<i32>);

impl FromStr for Limit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self(None));
        }
        let number = text.parse().ok().filter(|number| *number > 0);
        let number = number.ok_or("must be a number from 1, or \"none\"")?;
        Ok(Self(Some(number)))
    }
}

impl Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(number) => write!(f, "{number} a second"),
            None => f.write_str("no limit"),
        }
    }
}

pub(super) async fn run(
    command: &Command,
    conn: &mut AsyncPgConnection,
    answer: Answer,
) -> anyhow::Result<()> {
    match command {
        Command::Create { name } => create(conn, name, answer).await,
        Command::List => {
            for client in Client::list(conn).await? {
                show(&client, answer)?;
            }
            Ok(())
        }
        Command::Limit {
            name,
            limit: Limit(limit),
        } => {
            let client = Client::limit(conn, name, *limit).await?;
            let client = client.with_context(|| format!("there is no client named {name:?}"))?;
            show(&client, answer)
        }
        Command::Deactivate { id } => {
            let client = Client::deactivate(conn, *id).await?;
            let client = client.with_context(|| format!("there is no client {id}"))?;
            show(&client, answer)
        }
    }
}

/// The client and its token in one commit: a client that nobody can be is of no use.
async fn create(conn: &mut AsyncPgConnection, name: &str, answer: Answer) -> anyhow::Result<()> {
    check_name(name)?;
    let token = token::new_api_token();
    let made = conn.transaction(async |conn| {
        let client = Client::insert(conn, name).await?;
        Token::insert(conn, &NewToken::of(client.id, "first", &token)).await?;
        Ok::<_, Error>(client)
    });
    let client = match made.await {
        Err(Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)) => {
            anyhow::bail!("there is a client named {name:?} already")
        }
        other => other?,
    };
    show(&client, answer)?;
    tokens::print(&token, answer)?;
    Ok(())
}

pub(super) fn check_name(name: &str) -> anyhow::Result<()> {
    let length = name.chars().count();
    ensure!(
        (1..=100).contains(&length) && !name.chars().any(char::is_control) && name.trim() == name,
        "a name has 1 to 100 characters, no control characters, and no space at its ends"
    );
    Ok(())
}

fn show(client: &Client, answer: Answer) -> anyhow::Result<()> {
    let created_at = client.created_at.to_rfc3339();
    answer.line(
        &[
            &"client",
            &client.id,
            &client.name,
            &client.status,
            &created_at,
            &Limit(client.rate_limit_per_second),
        ],
        &serde_json::to_value(client)?,
    )?;
    Ok(())
}
