//! Requests under a client's key: each is done once, and its answer is kept for whoever asks again.
//!
//! Whoever does a request has a [`Claim`] on its key and renews it until there is an answer. A claim that has run out
//! can be taken over, since its holder may be gone; what that one still writes is nothing then.

use diesel::prelude::*;
use diesel::sql_types::{BigInt, Binary, Double, Integer, Nullable, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::keyring::{Keyring, SealError};
use crate::sealed::{ANSWER, FINGERPRINT};
use crate::statement::Statement;

/// Seconds that a claim is good for.
const CLAIM: f64 = 30.0;

/// The right to do the request of a key.
#[derive(Debug)]
pub struct Claim {
    client_id: i32,
    key: String,
    holder: Uuid,
}

/// A key that was used.
#[derive(Debug, QueryableByName)]
pub struct Request {
    #[diesel(sql_type = Integer)]
    client_id: i32,
    #[diesel(sql_type = Text)]
    key: String,
    #[diesel(sql_type = Binary)]
    fingerprint: Vec<u8>,
    #[diesel(sql_type = SqlUuid)]
    holder: Uuid,
    #[diesel(sql_type = Nullable<Integer>)]
    status: Option<i32>,
    #[diesel(sql_type = Nullable<Text>)]
    content_type: Option<String>,
    #[diesel(sql_type = Nullable<Binary>)]
    body: Option<Vec<u8>>,
}

/// What was answered: something was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// From 200 to 299.
    pub status: i32,
    pub content_type: Option<String>,
    pub body: Vec<u8>,
}

/// By which a request is told from others: all that makes it the one that it is.
pub fn fingerprint(parts: &[&[u8]]) -> Vec<u8> {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().to_vec()
}

impl Claim {
    /// Claims a key that was not used; `None` where it was.
    pub async fn insert(
        conn: &mut AsyncPgConnection,
        keyring: &Keyring,
        client_id: i32,
        key: &str,
        fingerprint: &[u8],
    ) -> QueryResult<Option<Self>> {
        let claim = Self {
            client_id,
            key: key.to_owned(),
            holder: Uuid::new_v4(),
        };
        let inserted = Statement::new(
            "INSERT INTO idempotency_keys (client_id, key, fingerprint, holder, claimed_until)
             VALUES (?, ?, ?, ?, now() + make_interval(secs => ?)) ON CONFLICT DO NOTHING",
        )
        .bind::<Integer, _>(client_id)
        .bind::<Text, _>(key)
        .bind::<Binary, _>(FINGERPRINT.seal(keyring, &row(client_id, key), fingerprint))
        .bind::<SqlUuid, _>(claim.holder)
        .bind::<Double, _>(CLAIM)
        .execute(conn)
        .await?;
        Ok((inserted > 0).then_some(claim))
    }

    /// It is good for as long again.
    pub async fn renew(&self, conn: &mut AsyncPgConnection) -> QueryResult<()> {
        Statement::new(
            "UPDATE idempotency_keys SET claimed_until = now() + make_interval(secs => ?)
             WHERE client_id = ? AND key = ? AND holder = ?",
        )
        .bind::<Double, _>(CLAIM)
        .bind::<Integer, _>(self.client_id)
        .bind::<Text, _>(&self.key)
        .bind::<SqlUuid, _>(self.holder)
        .execute(conn)
        .await
        .map(drop)
    }

    /// The request is done.
    pub async fn keep(
        &self,
        conn: &mut AsyncPgConnection,
        keyring: &Keyring,
        answer: &Answer,
    ) -> QueryResult<()> {
        let row = row(self.client_id, &self.key);
        Statement::new(
            "UPDATE idempotency_keys SET status = ?, content_type = ?, body = ?, claimed_until = now()
             WHERE client_id = ? AND key = ? AND holder = ?",
        )
        .bind::<Integer, _>(answer.status)
        .bind::<Nullable<Text>, _>(answer.content_type.as_deref())
        .bind::<Binary, _>(ANSWER.seal(keyring, &row, &answer.body))
        .bind::<Integer, _>(self.client_id)
        .bind::<Text, _>(&self.key)
        .bind::<SqlUuid, _>(self.holder)
        .execute(conn)
        .await
        .map(drop)
    }

    /// Nothing was done: the key is as one that was never used.
    pub async fn release(self, conn: &mut AsyncPgConnection) -> QueryResult<()> {
        Statement::new(
            "DELETE FROM idempotency_keys WHERE client_id = ? AND key = ? AND holder = ?",
        )
        .bind::<Integer, _>(self.client_id)
        .bind::<Text, _>(&self.key)
        .bind::<SqlUuid, _>(self.holder)
        .execute(conn)
        .await
        .map(drop)
    }
}

impl Request {
    /// What a client used a key for.
    pub async fn find(
        conn: &mut AsyncPgConnection,
        client_id: i32,
        key: &str,
    ) -> QueryResult<Option<Self>> {
        Statement::new(
            "SELECT client_id, key, fingerprint, holder, status, content_type, body FROM idempotency_keys
             WHERE client_id = ? AND key = ?",
        )
        .bind::<Integer, _>(client_id)
        .bind::<Text, _>(key)
        .get_result(conn)
        .await
        .optional()
    }

    /// Whether it is the one of this fingerprint.
    pub fn is_of(&self, keyring: &Keyring, fingerprint: &[u8]) -> Result<bool, SealError> {
        let row = row(self.client_id, &self.key);
        let known = FINGERPRINT.open(keyring, &row, &self.fingerprint)?;
        Ok(known == fingerprint)
    }

    /// `None`: it is not done.
    pub fn answer(&self, keyring: &Keyring) -> Result<Option<Answer>, SealError> {
        let (Some(status), Some(sealed)) = (self.status, &self.body) else {
            return Ok(None);
        };
        let body = ANSWER.open(keyring, &row(self.client_id, &self.key), sealed)?;
        Ok(Some(Answer {
            status,
            content_type: self.content_type.clone(),
            body,
        }))
    }

    /// Claims the key of one that is not done; `None` while somebody else may do it.
    pub async fn take_over(&self, conn: &mut AsyncPgConnection) -> QueryResult<Option<Claim>> {
        let holder = Uuid::new_v4();
        let taken = Statement::new(
            "UPDATE idempotency_keys SET holder = ?, claimed_until = now() + make_interval(secs => ?)
             WHERE client_id = ? AND key = ? AND holder = ? AND body IS NULL AND claimed_until <= now()",
        )
        .bind::<SqlUuid, _>(holder)
        .bind::<Double, _>(CLAIM)
        .bind::<Integer, _>(self.client_id)
        .bind::<Text, _>(&self.key)
        .bind::<SqlUuid, _>(self.holder)
        .execute(conn)
        .await?;
        Ok((taken > 0).then(|| Claim {
            client_id: self.client_id,
            key: self.key.clone(),
            holder,
        }))
    }
}

/// Rows that are deleted at once.
const ROWS: i64 = 5000;

/// Forgets those whose day is over.
pub async fn tidy(conn: &mut AsyncPgConnection) -> QueryResult<usize> {
    let mut all = 0;
    loop {
        let deleted = Statement::new(
            "DELETE FROM idempotency_keys WHERE ctid = ANY(ARRAY(
                 SELECT ctid FROM idempotency_keys WHERE claimed_until < now() - interval '1 day' LIMIT ?))
                 AND claimed_until < now() - interval '1 day'",
        )
        .bind::<BigInt, _>(ROWS)
        .execute(conn)
        .await?;
        all += deleted;
        if (deleted as i64) < ROWS {
            return Ok(all);
        }
    }
}

/// The name that a row's values are sealed by.
fn row(client_id: i32, key: &str) -> String {
    format!("{client_id}/{key}")
}
