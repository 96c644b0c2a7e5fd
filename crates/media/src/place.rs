//! Where a file is. Its path is what its sender said: only path and query of the URL are made of it, so
//! that whatever it says, the request goes to the media host.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use domain::media::{File, Kind};
use url::Url;

pub(crate) fn url(host: &Url, file: &File) -> Url {
    let mut url = host.clone();
    let path = file.direct_path.split('#').next().unwrap_or_default();
    let (path, query) = match path.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (path, None),
    };
    url.set_path(path);
    url.set_query(query.filter(|query| !query.is_empty()));
    url.query_pairs_mut()
        .append_pair(
            "hash",
            &BASE64_URL_SAFE_NO_PAD.encode(file.file_enc_sha256.0),
        )
        .append_pair("mms-type", mms_type(file.kind))
        .append_pair("__wa-mms", "");
    url
}

fn mms_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Sticker => "image",
        kind => kind.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use domain::media::Bytes32;

    use super::*;

    fn of(direct_path: &str) -> Url {
        let file = File {
            kind: Kind::Sticker,
            direct_path: direct_path.to_owned(),
            media_key: Bytes32([1; 32]),
            file_enc_sha256: Bytes32([0xff; 32]),
            file_sha256: Bytes32([3; 32]),
            size: 1,
            mimetype: None,
            file_name: None,
        };
        url(&"https://mmg.whatsapp.net".parse().unwrap(), &file)
    }

    #[test]
    fn what_the_path_is_signed_with_stays_as_it_is() {
        assert_eq!(
            of("/v/t62.7118-24/1_2_n.enc?ccb=11-4&oh=01_Q5%2FA&oe=68AB").as_str(),
            "https://mmg.whatsapp.net/v/t62.7118-24/1_2_n.enc?ccb=11-4&oh=01_Q5%2FA&oe=68AB\
             &hash=__________________________________________8&mms-type=image&__wa-mms="
        );
        assert!(
            of("/v/a.enc")
                .as_str()
                .starts_with("https://mmg.whatsapp.net/v/a.enc?hash=")
        );
    }

    #[test]
    fn no_path_leads_to_another_host() {
        for path in [
            "",
            "//evil.example/a",
            "///evil.example/a",
            "\\\\evil.example\\a",
            "/\\evil.example/a",
            "https://evil.example/a",
            "@evil.example/a",
            ":80@evil.example/a",
            ".evil.example/a",
            "/../../a",
            "/%2e%2e/a",
            "/a#@evil.example",
            "?@evil.example",
            "/a\r\nHost: evil.example",
            "\t//evil.example",
        ] {
            let url = of(path);
            assert_eq!(url.host_str(), Some("mmg.whatsapp.net"), "{path:?}");
            assert_eq!((url.scheme(), url.port()), ("https", None), "{path:?}");
            assert_eq!((url.username(), url.password()), ("", None), "{path:?}");
            assert!(!url.path().contains(".."), "{url}");
        }
    }
}
