//! The answers to what a runner asks in the middle of a turn: nobody is there to be asked, so a
//! policy answers, at once.

use std::{fmt, time::Duration};

use tokio::time::timeout;

use super::plain;
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
        /// The commands or paths it is for.
        patterns: Vec<String>,
    },
    /// The model asks the user something.
    Question {
        /// opencode's id of the request.
        request: String,
        /// In the model's words.
        questions: Vec<String>,
    },
}

impl Ask {
    /// opencode's id of the request.
    pub fn request(&self) -> &str {
        match self {
            Self::Permission { request, .. } | Self::Question { request, .. } => request,
        }
    }

    /// What the user reads when the answer was no and the turn ended with it.
    pub fn refusal(&self) -> String {
        match self {
            Self::Permission { permission, patterns, .. } => {
                let what = match patterns.first() {
                    Some(pattern) => {
                        format!("{} {}", plain::line(permission), plain::code(pattern))
                    }
                    None => plain::line(permission),
                };
                format!(
                    "I stopped here: this needs a permission that I do not have in this \
                     workspace ({what}). Ask for it another way, or ask your admin to allow it."
                )
            }
            Self::Question { questions, .. } => {
                let mut text = "I stopped here to ask you something. Please answer in your next \
                                message:\n"
                    .to_owned();
                for question in questions {
                    text.push_str("\n- ");
                    text.push_str(&plain::line(question));
                }
                text
            }
        }
    }
}

/// What kind of thing is asked, for the log: not what for.
impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Permission { permission, .. } => write!(f, "permission {permission:?}"),
            Self::Question { .. } => f.write_str("question"),
        }
    }
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
            Ask::Question { request, .. } => client.reject_question(request).await,
        }
    };
    timeout(PATIENCE, answer).await.unwrap_or(Err(ClientError::Slow(PATIENCE)))
}

/// What the model reads, and tells the user.
const NO: &str = "This is not allowed here, and nobody is there to be asked. Do without it, and \
                  tell the user what you left out and that an admin can allow it.";
/// A runner that does not take an answer within this is not well.
const PATIENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_command_is_named_and_cannot_leave_its_quotes() {
        let ask = Ask::Permission {
            request: "per_1".to_owned(),
            permission: "bash".to_owned(),
            patterns: vec!["echo `date`\nrm -rf /".to_owned()],
        };
        assert!(ask.refusal().contains("(bash `echo 'date'`)"), "{}", ask.refusal());
        assert!(!ask.to_string().contains("date"));
    }

    #[test]
    fn a_question_is_passed_on_to_the_user() {
        let questions = vec!["Which colour?".to_owned(), "Why?".to_owned()];
        let ask = Ask::Question { request: "que_1".to_owned(), questions };
        assert!(ask.refusal().ends_with("message:\n\n- Which colour?\n- Why?"));
    }
}
