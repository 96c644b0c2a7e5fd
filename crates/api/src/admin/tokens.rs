use anyhow::Context;
use clap::Subcommand;
use diesel_async::AsyncPgConnection;
use domain::client::{Client, Token};
use domain::token;
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::clients::check_name;
use super::say;

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a token of a client, and print it, which happens this once
    Create {
        client_id: i32,
        /// What the token is for
        #[arg(long, default_value = "unnamed")]
        name: String,
    },
    /// List the tokens of a client
    List { client_id: i32 },
    /// Refuse a token from now on
    Revoke { token_id: Uuid },
}

pub(super) async fn run(command: &Command, conn: &mut AsyncPgConnection) -> anyhow::Result<()> {
    match command {
        Command::Create { client_id, name } => {
            check_name(name)?;
            let client = find(conn, *client_id).await?;
            let token = token::new_api_token();
            let row = Token::insert(conn, client.id, name, &token).await?;
            show(&row)?;
            say(&[&"token", &token.expose_secret()])?;
            Ok(())
        }
        Command::List { client_id } => {
            let client = find(conn, *client_id).await?;
            for token in Token::list(conn, client.id).await? {
                show(&token)?;
            }
            Ok(())
        }
        Command::Revoke { token_id } => {
            let revoked = Token::revoke(conn, *token_id).await?;
            show(&revoked.with_context(|| format!("there is no valid token {token_id}"))?)
        }
    }
}

async fn find(conn: &mut AsyncPgConnection, id: i32) -> anyhow::Result<Client> {
    let client = Client::find(conn, id).await?;
    client.with_context(|| format!("there is no client {id}"))
}

fn show(token: &Token) -> anyhow::Result<()> {
    let standing = match token.revoked_at {
        Some(at) => format!("revoked {}", at.to_rfc3339()),
        None => "valid".to_owned(),
    };
    let created_at = token.created_at.to_rfc3339();
    say(&[&"token_id", &token.id, &token.name, &standing, &created_at])?;
    Ok(())
}
