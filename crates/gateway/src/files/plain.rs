//! A server that is spoken to without TLS has its media hosts without TLS as well. The library knows
//! https:// only.

use whatsapp_rust::http::{HttpClient, HttpRequest, HttpResponse, UreqHttpClient};
use whatsapp_rust::wacore::net::StreamingHttpResponse;
use whatsapp_rust::{anyhow, async_trait};

/// The library's own client, for http://.
#[derive(Default)]
pub(crate) struct Plain(UreqHttpClient);

fn plain(mut request: HttpRequest) -> HttpRequest {
    if let Some(rest) = request.url.strip_prefix("https://") {
        request.url = format!("http://{rest}");
    }
    request
}

#[async_trait]
impl HttpClient for Plain {
    async fn execute(&self, request: HttpRequest) -> anyhow::Result<HttpResponse> {
        self.0.execute(plain(request)).await
    }

    fn supports_streaming(&self) -> bool {
        self.0.supports_streaming()
    }

    fn execute_streaming(&self, request: HttpRequest) -> anyhow::Result<StreamingHttpResponse> {
        self.0.execute_streaming(plain(request))
    }
}
