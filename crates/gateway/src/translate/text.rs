//! Text, alone or with the preview of a link.

use serde::Serialize;
use whatsapp_rust::waproto::whatsapp as wa;

use super::content::{Content, said};

#[derive(Serialize)]
struct Link<'a> {
    url: &'a str,
    title: Option<&'a str>,
    description: Option<&'a str>,
}

pub(super) fn of(message: &wa::Message) -> Option<Content<'_>> {
    if let Some(text) = &message.conversation {
        return Some(Content::new("text", text));
    }
    let extended = message.extended_text_message.as_option()?;
    let link = said(&extended.matched_text).map(|url| Link {
        url,
        title: said(&extended.title),
        description: said(&extended.description),
    });
    let text = extended.text.as_deref();
    let text = text.or(link.as_ref().map(|link| link.url))?;
    Some(
        Content::new("text", text)
            .with("link", link)
            .with("view_once", super::content::flag(extended.view_once)),
    )
}
