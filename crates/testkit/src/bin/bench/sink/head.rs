use uuid::Uuid;

/// A delivery has about fifteen.
const HEADERS: usize = 32;

/// What matters here of a request.
#[derive(Debug, PartialEq)]
pub(super) struct Head<'a> {
    pub(super) path: &'a str,
    /// The header `webhook-id`; nil where there is none.
    pub(super) id: Uuid,
}

/// This can't be answered, and nothing that follows on the connection either.
#[derive(Debug, PartialEq)]
pub(super) struct Malformed;

/// The first request in the buffer and where it ends with its body; `None` while it isn't whole.
pub(super) fn parse(buffer: &[u8]) -> Result<Option<(Head<'_>, usize)>, Malformed> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    let body = match request.parse(buffer).map_err(|_| Malformed)? {
        httparse::Status::Complete(body) => body,
        httparse::Status::Partial => return Ok(None),
    };
    let mut head = Head {
        path: request.path.ok_or(Malformed)?,
        id: Uuid::nil(),
    };
    let mut length = 0;
    for header in request.headers {
        let is = |name| header.name.eq_ignore_ascii_case(name);
        if is("webhook-id") {
            head.id = Uuid::try_parse_ascii(header.value).map_err(|_| Malformed)?;
        } else if is("content-length") {
            let text = str::from_utf8(header.value).map_err(|_| Malformed)?;
            length = text.parse().map_err(|_| Malformed)?;
        } else if is("transfer-encoding") {
            return Err(Malformed);
        }
    }
    let end = body.checked_add(length).ok_or(Malformed)?;
    Ok((end <= buffer.len()).then_some((head, end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &[u8] = b"POST /hooks/7 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\n\
        Webhook-Id: 01890a5d-ac96-774b-bcce-b302099a8057\r\n\r\nhello";

    #[test]
    fn a_request_is_found_when_it_is_whole() {
        for end in 0..REQUEST.len() {
            assert_eq!(parse(&REQUEST[..end]), Ok(None), "{end}");
        }
        let head = Head {
            path: "/hooks/7",
            id: "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap(),
        };
        assert_eq!(parse(REQUEST), Ok(Some((head, REQUEST.len()))));
    }

    #[test]
    fn what_follows_is_left_for_the_next_look() {
        let two = [REQUEST, REQUEST].concat();
        let (first, end) = parse(&two).unwrap().unwrap();
        assert_eq!(end, REQUEST.len());
        assert_eq!(parse(&two[end..]).unwrap().unwrap().0, first);
    }

    #[test]
    fn a_request_may_have_neither_body_nor_id() {
        let request = b"GET /_sink/count HTTP/1.1\r\n\r\n";
        let (head, end) = parse(request).unwrap().unwrap();
        assert_eq!((head.path, head.id), ("/_sink/count", Uuid::nil()));
        assert_eq!(end, request.len());
    }

    #[test]
    fn what_is_no_request_or_of_unknown_length_is_refused() {
        for bad in [
            "nonsense\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: five\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
            "POST / HTTP/1.1\r\nWebhook-Id: 7\r\n\r\n",
        ] {
            assert_eq!(parse(bad.as_bytes()), Err(Malformed), "{bad:?}");
        }
    }
}
