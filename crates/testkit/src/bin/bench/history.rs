//! Events of a month, long settled: what lists of events are asked of.

use chrono::{Days, Utc};
use diesel_async::{AsyncPgConnection, SimpleAsyncConnection};
use domain::partition;

use crate::seed::{CONTACT, CONTENT, METADATA};

/// Days that the events are spread over.
pub(crate) const DAYS: u64 = 30;

/// Commits so many events for the webhooks that there are: half of them for the first one, one in fifty failed. The
/// partitions that take nothing but these have no room for the changes that they will not see.
pub(crate) async fn seed(conn: &mut AsyncPgConnection, events: usize) -> anyhow::Result<()> {
    for days in (2..=DAYS + 1).step_by(4) {
        partition::maintain(conn, Utc::now() - Days::new(days), None).await?;
    }
    conn.batch_execute(
        "DO $$ DECLARE partition regclass; BEGIN
             FOR partition IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'whatsapp_webhook_events'::regclass
             LOOP
                 EXECUTE format('ALTER TABLE %s SET (fillfactor = 100)', partition);
             END LOOP;
         END $$",
    )
    .await?;
    // The last one is a day old, so that the partition of the load is as it always is.
    let insert = format!(
        r#"INSERT INTO whatsapp_webhook_events (id, client_id, webhook_id, connection_id, source_id, event_type,
               message_id, chat, "from", "to", message_type, content, metadata, "timestamp", status,
               attempt_count, http_status, response, created_at, delivered_at, message_stored)
           SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || substr(md5(n::text), 13))::uuid,
               webhook.client_id, webhook.id, connection.id, md5(n::text)::uuid, 'message',
               '3EB0' || upper(lpad(to_hex(n), 18, '0')), '{CONTACT}@s.whatsapp.net', '{CONTACT}',
               webhook.phone_number, 'text', '{CONTENT}', '{METADATA}', at,
               CASE WHEN n % 50 = 7 THEN 'failed' ELSE 'delivered' END,
               1, 200, 'ok', at, at, true
           FROM (SELECT n, now() - interval '1 day' - (1 - n / {events}.0) * interval '{DAYS} days' AS at,
                     CASE WHEN n % 2 = 0 THEN 1 ELSE n / 2 % (SELECT count(*) FROM whatsapp_webhooks) + 1 END AS place
                 FROM generate_series(1, {events}) n) AS event
           JOIN (SELECT *, row_number() OVER (ORDER BY phone_key) AS place FROM whatsapp_webhooks) AS webhook
               USING (place)
           JOIN whatsapp_connections AS connection USING (phone_key)"#
    );
    conn.batch_execute(&insert).await?;
    conn.batch_execute("VACUUM ANALYZE").await?;
    conn.batch_execute("CHECKPOINT").await?;
    Ok(())
}
