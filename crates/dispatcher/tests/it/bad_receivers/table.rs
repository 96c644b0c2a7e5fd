use std::time::Duration;

use testkit::Step;

const SECOND: Duration = Duration::from_secs(1);

/// What a receiver does, and what stands in the ledger after it: class (none: delivered) and status.
pub(super) struct Bad {
    pub(super) name: &'static str,
    pub(super) scheme: &'static str,
    pub(super) steps: Vec<Step>,
    pub(super) class: Option<&'static str>,
    pub(super) status: Option<i32>,
}

pub(super) fn all() -> impl Iterator<Item = Bad> {
    let all = [slow(), closing(), endless(), garbage(), tls()];
    all.into_iter().flatten()
}

fn bad(
    name: &'static str,
    steps: impl Into<Vec<Step>>,
    class: Option<&'static str>,
    status: Option<i32>,
) -> Bad {
    Bad {
        name,
        scheme: "http",
        steps: steps.into(),
        class,
        status,
    }
}

/// Answers the request with these bytes, and closes.
fn says(
    name: &'static str,
    answer: impl AsRef<[u8]>,
    class: Option<&'static str>,
    status: Option<i32>,
) -> Bad {
    bad(name, [Step::Read, Step::send(answer)], class, status)
}

/// Answers the request with these bytes, and keeps the connection.
fn says_and_stays(
    name: &'static str,
    answer: impl AsRef<[u8]>,
    class: Option<&'static str>,
    status: Option<i32>,
) -> Bad {
    let steps = [Step::Read, Step::send(answer), Step::Listen];
    bad(name, steps, class, status)
}

fn slow() -> Vec<Bad> {
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n";
    let late = Some("timeout");
    vec![
        bad(
            "reads and says nothing",
            [Step::Read, Step::Listen],
            late,
            None,
        ),
        bad("never reads", [Step::Hold], late, None),
        bad(
            "drips its head",
            [Step::Read, Step::drip(head, SECOND)],
            late,
            None,
        ),
        bad(
            "drips its body",
            [
                Step::Read,
                Step::send(head),
                Step::drip("x".repeat(100), SECOND),
            ],
            late,
            Some(200),
        ),
        says_and_stays("stops within its head", &head[..20], late, None),
        says_and_stays("promises more than it sends", head, late, Some(200)),
        bad(
            "is about to answer, again and again",
            [Step::Read, Step::endless("HTTP/1.1 102 Processing\r\n\r\n")],
            late,
            None,
        ),
        bad(
            "hints early, again and again",
            [
                Step::Read,
                Step::endless(
                    "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
                ),
            ],
            late,
            None,
        ),
        bad(
            "says continue and then nothing",
            [
                Step::Read,
                Step::send("HTTP/1.1 100 Continue\r\n\r\n"),
                Step::Listen,
            ],
            late,
            None,
        ),
    ]
}

fn closing() -> Vec<Bad> {
    let (closed, body) = (Some("closed"), Some("body"));
    vec![
        bad("closes at once", [], closed, None),
        bad("resets at once", [Step::Reset], closed, None),
        bad("closes after the request", [Step::Read], closed, None),
        bad(
            "resets after the request",
            [Step::Read, Step::Reset],
            closed,
            None,
        ),
        says("closes within the status line", "HTTP/1.1 20", closed, None),
        says(
            "closes within its head",
            "HTTP/1.1 200 OK\r\nContent-Le",
            closed,
            None,
        ),
        says(
            "closes half-way",
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
            body,
            Some(200),
        ),
        says(
            "closes within a chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nhalf",
            body,
            Some(200),
        ),
        says(
            "closes before the last chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            body,
            Some(200),
        ),
    ]
}

pub(super) fn endless() -> Vec<Bad> {
    let protocol = Some("protocol");
    let filler = "x".repeat(16 * 1024);
    let field = format!("X-Filler: {}\r\n", "x".repeat(1000));
    vec![
        // What was decided by the status stays so: the rest is not read.
        bad(
            "sends a body without an end",
            [
                Step::Read,
                Step::send("HTTP/1.1 200 OK\r\n\r\n"),
                Step::endless(&filler),
            ],
            None,
            Some(200),
        ),
        bad(
            "sends an error without an end",
            [
                Step::Read,
                Step::send("HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n"),
                Step::endless(format!("{:x}\r\n{filler}\r\n", filler.len())),
            ],
            Some("http_status"),
            Some(500),
        ),
        bad(
            "sends headers without an end",
            [
                Step::Read,
                Step::send("HTTP/1.1 200 OK\r\n"),
                Step::endless(&field),
            ],
            protocol,
            None,
        ),
        bad(
            "sends a header without an end",
            [
                Step::Read,
                Step::send("HTTP/1.1 200 OK\r\nX-Filler: "),
                Step::endless(&filler),
            ],
            protocol,
            None,
        ),
        bad(
            "sends a status line without an end",
            [
                Step::Read,
                Step::send("HTTP/1.1 200 "),
                Step::endless(&filler),
            ],
            protocol,
            None,
        ),
        bad(
            "sends noise without an end",
            [Step::Read, Step::endless([0x15, 0x00, 0xff, 0x80])],
            protocol,
            None,
        ),
        bad(
            "sends an extension of a chunk without an end",
            [
                Step::Read,
                Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;x="),
                Step::endless(&filler),
            ],
            protocol,
            Some(200),
        ),
        bad(
            "sends trailers without an end",
            [
                Step::Read,
                Step::send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"),
                Step::endless(&field),
            ],
            protocol,
            Some(200),
        ),
    ]
}

fn garbage() -> Vec<Bad> {
    let protocol = Some("protocol");
    vec![
        says("speaks SMTP", "220 mail.example ESMTP\r\n", protocol, None),
        says(
            "speaks HTTP/0.9",
            "<html>It works!</html>\r\n",
            protocol,
            None,
        ),
        says(
            "speaks HTTP/3 in text",
            "HTTP/3.0 200 OK\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "speaks binary",
            [0, 1, 2, 3, b'\r', b'\n', b'\r', b'\n'],
            protocol,
            None,
        ),
        says(
            "speaks TLS where nobody asked",
            [0x16, 3, 1, 0, 5, 1, 2, 3, 4, 5],
            protocol,
            None,
        ),
        says(
            "has a status of letters",
            "HTTP/1.1 OK 200\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "has a status too small",
            "HTTP/1.1 099 Low\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "has a status too large",
            "HTTP/1.1 2000 OK\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "has a NUL in a header",
            "HTTP/1.1 200 OK\r\nX-A: a\0b\r\nContent-Length: 0\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "has a header without a colon",
            "HTTP/1.1 200 OK\r\nwhat\r\nContent-Length: 0\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "has a length of letters",
            "HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "has a length below zero",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "has two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
            protocol,
            None,
        ),
        says(
            "has a length beyond all bounds",
            "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n",
            protocol,
            None,
        ),
        says(
            "has a chunk of no size",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n",
            protocol,
            Some(200),
        ),
        says(
            "has a chunk of an enormous size",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\nabc\r\n",
            protocol,
            Some(200),
        ),
        says(
            "says more than its length",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and a good deal more",
            None,
            Some(200),
        ),
        says(
            "switches protocols",
            "HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            Some("http_status"),
            Some(101),
        ),
        says(
            "has a status of its own",
            "HTTP/1.1 999 Blocked\r\n\r\n",
            Some("http_status"),
            Some(999),
        ),
    ]
}

fn tls() -> Vec<Bad> {
    let https = |name, steps: Vec<Step>, class| Bad {
        name,
        scheme: "https",
        steps,
        class: Some(class),
        status: None,
    };
    let bad_request = Step::send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
    vec![
        https(
            "speaks plain HTTP where TLS was asked for",
            vec![bad_request],
            "tls",
        ),
        // An alert: handshake_failure.
        https(
            "refuses the handshake",
            vec![Step::send([0x15, 3, 3, 0, 2, 2, 40])],
            "tls",
        ),
        https(
            "breaks off within the handshake",
            vec![Step::send([0x16, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3])],
            "tls",
        ),
        https("closes instead of a handshake", vec![], "tls"),
        https(
            "is silent instead of a handshake",
            vec![Step::Listen],
            "timeout",
        ),
        https(
            "drips its handshake",
            vec![Step::drip([0x16; 50], SECOND)],
            "timeout",
        ),
    ]
}
