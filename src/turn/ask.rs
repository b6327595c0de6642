//! The answers to what a runner asks in the middle of a turn: nobody is there to be asked, so a
//! policy answers, at once.

use std::time::Duration;

use tokio::time::timeout;

use crate::{
    config::PermissionPolicy,
    opencode::{Client, ClientError},
};

/// Something a runner waits for, for ever if nobody answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// A tool wants to do what its rules leave open.
    Permission {
        /// opencode's id of the request.
        request: String,
        /// What kind of thing, in opencode's words.
        permission: String,
    },
    /// The model asks the user something.
    Question {
        /// opencode's id of the request.
        request: String,
    },
}

/// Answers `ask` as `policy` says.
pub(super) async fn answer(
    client: &Client,
    policy: PermissionPolicy,
    ask: &Ask,
) -> Result<(), ClientError> {
    let answer = async {
        match ask {
            Ask::Permission { request, .. } => {
                let refusal = (policy == PermissionPolicy::Reject).then_some(NO);
                client.answer_permission(request, refusal).await
            }
            Ask::Question { request } => client.reject_question(request).await,
        }
    };
    timeout(PATIENCE, answer).await.unwrap_or(Err(ClientError::Slow(PATIENCE)))
}

/// What the model reads, and tells the user.
const NO: &str = "This is not allowed here, and nobody is there to be asked. Do without it, and \
                  tell the user what you left out and that an admin can allow it.";
/// A runner that does not take an answer within this is not well.
const PATIENCE: Duration = Duration::from_secs(10);
