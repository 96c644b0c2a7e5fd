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

    /// `from` and `to` in a delivery: digits for a phone number, `<n>@lid` for somebody of whom only a
    /// LID is known, the whole address (without a device) for all else.
    pub fn display(self) -> String {
        match self.server {
            "s.whatsapp.net" | "c.us" | "hosted" => self.user.to_owned(),
            server => format!("{}@{}", self.user, server),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn display(text: &str) -> String {
        Jid::parse(text).unwrap().display()
    }

    #[test]
    fn phone_numbers_are_shown_as_digits_without_a_device() {
        assert_eq!(display("5511999999999:3@s.whatsapp.net"), "5511999999999");
    }

    #[test]
    fn bare_lid_digits_are_never_given_out_as_a_phone_number() {
        assert_eq!(display("100000012345678:3@lid"), "100000012345678@lid");
    }

    #[test]
    fn groups_keep_their_server() {
        assert_eq!(
            display("120363021033254949@g.us"),
            "120363021033254949@g.us"
        );
    }
}
