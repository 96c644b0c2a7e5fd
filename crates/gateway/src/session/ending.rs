//! How sessions end, and what their rows and keys are left with.

use std::time::Duration;

use domain::connection::{Desired, Status};

use super::Goal;
use super::row::Row;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client wanted it.
    Wanted(Desired),
    /// The next gateway goes on with it, which may be this one when it is its turn to connect.
    HandedOver,
    /// Another gateway goes on with it already.
    Lost,
    /// WhatsApp, the account's phone or the clock ended it.
    Outside {
        status: Status,
        reason: &'static str,
    },
    /// WhatsApp turned it away for a while. It is still wanted, and tried again then.
    Paused {
        reason: &'static str,
        pause: Duration,
    },
    /// The phone that scanned has another number than was registered.
    NumberMismatch,
}

impl Ending {
    /// Nobody typed the code while it was good.
    pub(super) const CODE_EXPIRED: Self = Self::Outside {
        status: Status::Disconnected,
        reason: "code_expired",
    };

    /// WhatsApp offered to give a code for as long as it does, and gave none.
    pub(super) const NO_CODE: Self = Self::Outside {
        status: Status::Disconnected,
        reason: "code_unavailable",
    };

    /// By then a newer version may be known.
    pub(super) const OUTDATED: Self = Self::Paused {
        reason: "client_outdated",
        pause: Duration::from_secs(600),
    };

    pub(super) fn wanted(goal: Goal) -> Option<Self> {
        match goal {
            Goal::Connected => None,
            Goal::Disconnected => Some(Self::Wanted(Desired::Disconnected)),
            Goal::LoggedOut => Some(Self::Wanted(Desired::LoggedOut)),
            Goal::HandedOver => Some(Self::HandedOver),
        }
    }

    /// Whether the device is to be unlinked at WhatsApp.
    pub(super) fn unlinks(self) -> bool {
        matches!(
            self,
            Self::Wanted(Desired::LoggedOut) | Self::NumberMismatch
        )
    }

    /// Leaves the row, and the keys, as the ending asks. `unlinked`: WhatsApp knows of it, where it should.
    pub(super) async fn settle(self, row: &Row, unlinked: bool) -> anyhow::Result<()> {
        match self {
            Self::HandedOver | Self::Lost => Ok(()),
            Self::Wanted(Desired::LoggedOut) => {
                let unconfirmed = (!unlinked).then_some("unlink_unconfirmed");
                row.delete_keys().await?;
                row.fulfil(Desired::LoggedOut, unconfirmed).await?;
                row.remove_if_deleted().await
            }
            Self::Wanted(desired) => row.fulfil(desired, None).await,
            Self::Outside { status, reason } => {
                if status == Status::LoggedOut {
                    row.delete_keys().await?;
                }
                row.change(status, Some(reason)).await
            }
            Self::Paused { reason, pause } => row.pause(reason, pause).await,
            Self::NumberMismatch => {
                row.delete_keys().await?;
                row.change(Status::LoggedOut, Some("number_mismatch")).await
            }
        }
    }
}
