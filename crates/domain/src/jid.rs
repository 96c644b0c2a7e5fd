//! WhatsApp's addresses as text: `user[.agent][:device]@server`.

/// A parsed address. Borrowed from the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jid<'a> {
    pub user: &'a str,
    pub server: &'a str,
}

impl<'a> Jid<'a> {
    /// `None` when there is no `@`.
    pub fn parse(text: &'a str) -> Option<Self> {
        let (local, server) = text.split_once('@')?;
        let user = local.split([':', '.']).next().unwrap_or(local);
        Some(Self { user, server })
    }
}
