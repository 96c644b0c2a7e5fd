//! The names of events, and the filters by which a webhook chooses among them.

use std::str::FromStr;

use thiserror::Error;

macro_rules! event_types {
    ($($variant:ident = $name:literal),+ $(,)?) => {
        /// What an event tells of; the names stand in the delivery's `event` field.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum EventType { $($variant),+ }

        impl EventType {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name),+ }
            }
        }
    };
}

event_types! {
    Message = "message",
    MessageSent = "message.sent",
    MessageReaction = "message.reaction",
    MessageEdited = "message.edited",
    MessageRevoked = "message.revoked",
    MessageReceipt = "message.receipt",
    MessageUndecryptable = "message.undecryptable",
    ConnectionQr = "connection.qr",
    ConnectionOpen = "connection.open",
    ConnectionClosed = "connection.closed",
    ConnectionLoggedOut = "connection.logged_out",
    CallOffer = "call.offer",
    GroupUpdate = "group.update",
    WebhookFailing = "webhook.failing",
    WebhookRecovered = "webhook.recovered",
    WebhookDeactivated = "webhook.deactivated",
    Test = "test",
}

/// No event is named so.
#[derive(Debug, Error)]
#[error("{0:?} is not an event type")]
pub struct NoSuchEventType(String);

impl FromStr for EventType {
    type Err = NoSuchEventType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = Self::ALL.iter().find(|known| known.as_str() == text);
        named
            .copied()
            .ok_or_else(|| NoSuchEventType(text.to_owned()))
    }
}

/// A webhook's choice of events: a name, `*`, or a family such as `message.*`, which holds `message`
/// itself too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFilter(String);

/// The filter names no event that there is.
#[derive(Debug, Error)]
#[error("{0:?} is neither an event type nor a pattern such as \"message.*\" or \"*\"")]
pub struct UnknownEventType(String);

impl EventFilter {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventFilter {
    type Err = UnknownEventType;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match EventType::ALL.iter().any(|known| covers(text, *known)) {
            true => Ok(Self(text.to_owned())),
            false => Err(UnknownEventType(text.to_owned())),
        }
    }
}

/// Whether a stored filter lets an event through.
pub fn covers(filter: &str, event: EventType) -> bool {
    let name = event.as_str();
    match filter.strip_suffix('*') {
        None => filter == name,
        Some("") => true,
        Some(family) => match family.strip_suffix('.') {
            Some(root) if !root.is_empty() => name == root || name.starts_with(family),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_type_is_read_by_its_name() {
        for known in EventType::ALL {
            assert_eq!(known.as_str().parse::<EventType>().unwrap(), *known);
        }
        assert!("message.*".parse::<EventType>().is_err());
    }

    #[test]
    fn a_family_holds_its_root_and_its_members() {
        assert!(covers("message.*", EventType::Message));
        assert!(covers("message.*", EventType::MessageSent));
        assert!(!covers("message.*", EventType::ConnectionOpen));
        assert!(!covers("mess*", EventType::Message));
    }

    #[test]
    fn a_name_covers_only_itself() {
        assert!(covers("message", EventType::Message));
        assert!(!covers("message", EventType::MessageSent));
    }

    #[test]
    fn a_star_covers_everything() {
        assert!(EventType::ALL.iter().all(|event| covers("*", *event)));
    }

    #[test]
    fn filters_that_could_match_nothing_are_refused() {
        for text in ["", ".*", "messages", "message.", "connection.*.x", "**"] {
            assert!(text.parse::<EventFilter>().is_err(), "{text:?}");
        }
        for text in ["*", "message", "message.*", "connection.*"] {
            assert!(text.parse::<EventFilter>().is_ok(), "{text:?}");
        }
    }

    /// What could be meant for a filter: names, their beginnings, with and without stars and dots.
    fn filter() -> impl Strategy<Value = String> {
        let name = prop::sample::select(EventType::ALL).prop_map(EventType::as_str);
        (
            name,
            0..20_usize,
            prop::sample::select(&["", "*", ".*", ".", "**"][..]),
        )
            .prop_map(|(name, length, end)| format!("{}{end}", &name[..length.min(name.len())]))
    }

    proptest! {
        #[test]
        fn a_filter_covers_its_name_everything_or_a_whole_family(text in filter()) {
            let root = text.strip_suffix(".*");
            for event in EventType::ALL {
                let name = event.as_str();
                let family = name.split_once('.').map_or(name, |(root, _)| root);
                let expected = text == "*" || text == name || root == Some(family) || root == Some(name);
                prop_assert_eq!(covers(&text, *event), expected, "{} of {}", name, text);
            }
        }

        #[test]
        fn a_filter_is_taken_if_it_can_let_something_through(text in prop_oneof![filter(), ".{0,20}"]) {
            let covers_some = EventType::ALL.iter().any(|event| covers(&text, *event));
            prop_assert_eq!(text.parse::<EventFilter>().is_ok(), covers_some);
        }
    }
}
