//! The version of WhatsApp Web that sessions say they are.

use diesel::QueryableByName;
use diesel::sql_types::{Nullable, Text};
use diesel_async::RunQueryDsl as _;
use serde_json::json;
use testkit::eventually;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

use crate::rig::{LIMIT, NUMBER, Rig};

/// A page that names a revision; 0: a server that is out of order.
struct Page {
    url: String,
    revision: watch::Sender<u32>,
    asked: watch::Receiver<usize>,
    _serving: AbortOnDropHandle<()>,
}

impl Page {
    async fn serve(revision: u32) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/sw.js", listener.local_addr().unwrap());
        let (revision, named) = watch::channel(revision);
        let (counted, asked) = watch::channel(0);
        let serving = tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut request = [0; 4096];
                let _ = socket.read(&mut request).await;
                counted.send_modify(|count| *count += 1);
                let revision = *named.borrow();
                let body = format!(r#"x={{"client_revision":{revision}}}"#);
                let status = match revision {
                    0 => "500 Internal Server Error",
                    _ => "200 OK",
                };
                let length = body.len();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{body}"
                );
                let _ = socket.write_all(answer.as_bytes()).await;
            }
        });
        Self {
            url,
            revision,
            asked,
            _serving: AbortOnDropHandle::new(serving),
        }
    }

    fn asked(&self) -> usize {
        *self.asked.borrow()
    }
}

#[derive(QueryableByName)]
struct Known {
    #[diesel(sql_type = Nullable<Text>)]
    version: Option<String>,
}

async fn known(rig: &Rig) -> Option<String> {
    let query = diesel::sql_query("SELECT version FROM whatsapp_client_version");
    let rows: Vec<Known> = query.load(&mut rig.conn().await).await.unwrap();
    rows.into_iter().find_map(|row| row.version)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_version_is_found_out_once_for_all_gateways_and_for_the_next_start() {
    let rig = Rig::start().await;
    let page = Page::serve(2_000_000_000).await;
    let program = || {
        let program = rig.program().env("WHATSAPP_VERSION", "auto");
        program.env("WHATSAPP_VERSION_URL", page.url.as_str())
    };
    let mut first = program().start().await;
    eventually(LIMIT, async || known(&rig).await.is_some()).await;
    assert_eq!(known(&rig).await.as_deref(), Some("2.3000.2000000000"));
    let says = "version=2.3000.2000000000";
    eventually(LIMIT, async || first.logs().contains(says)).await;

    page.revision.send_replace(0);
    let second = program().start().await;
    assert!(first.stop().await.success());
    first.start_again().await;
    for gateway in [&first, &second] {
        eventually(LIMIT, async || gateway.logs().contains(says)).await;
    }
    assert_eq!(page.asked(), 1);
    rig.link(NUMBER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_begin_where_the_newest_version_cannot_be_found_out() {
    let rig = Rig::start().await;
    let page = Page::serve(0).await;
    let gateway = rig.gateway_with(&[
        ("WHATSAPP_VERSION", "auto"),
        ("WHATSAPP_VERSION_URL", &page.url),
    ]);
    rig.link(NUMBER).await;
    eventually(LIMIT, async || page.asked() == 1).await;
    assert_eq!(known(&rig).await, None);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_turned_away_for_its_version_comes_back_with_the_next() {
    let rig = Rig::start().await;
    let page = Page::serve(2_000_000_000).await;
    let gateway = rig.gateway_with(&[
        ("WHATSAPP_VERSION", "auto"),
        ("WHATSAPP_VERSION_URL", &page.url),
    ]);
    let linked = rig.link(NUMBER).await;
    eventually(LIMIT, async || known(&rig).await.is_some()).await;

    // Nobody asks again so soon after.
    let outdated = json!({"account": NUMBER, "failure": 405}).to_string();
    rig.post("/admin/faults", outdated.clone()).await;
    let hang_up = format!("/admin/accounts/{NUMBER}/disconnect");
    rig.post(&hang_up, String::new()).await;
    let turned_away = async || {
        let row = rig.row(linked.id).await;
        row.reason.as_deref() == Some("client_outdated") && row.owner.is_none()
    };
    eventually(LIMIT, turned_away).await;
    assert_eq!(page.asked(), 1);

    page.revision.send_replace(2_000_000_001);
    rig.run_sql("UPDATE whatsapp_client_version SET asked_at = now() - interval '1 hour'")
        .await;
    let try_again = "UPDATE whatsapp_connections SET retry_at = now()";
    rig.run_sql(try_again).await;
    eventually(LIMIT, async || page.asked() == 2).await;
    rig.post(
        "/admin/faults",
        json!({"account": NUMBER, "reset": true}).to_string(),
    )
    .await;
    // Not after the ten minutes that it would wait for otherwise.
    let row = rig.wait_for(linked.id, "connected").await;
    assert_eq!((row.reason, row.retry_at), (None, None));
    assert_eq!(known(&rig).await.as_deref(), Some("2.3000.2000000001"));
    gateway.stop().await;
}
