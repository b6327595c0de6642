//! Credentials → [`Identity`].

/// The user we decided on, and why. Never what a client merely says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user id: 1 to 512 bytes, as the front end gave it.
    pub user: String,
    /// Where it came from.
    pub source: Source,
    /// The user's name, when a front end said.
    pub name: Option<String>,
    /// The user's mail address, when a front end said.
    pub email: Option<String>,
    /// Whether a front end called the user an admin.
    pub is_admin: Option<bool>,
}

/// Where an identity came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A front end's signed token.
    Jwt,
    /// A front end's plain headers.
    Header,
    /// A key of ours.
    ApiKey,
    /// Development: the body's `user` member.
    Body,
    /// Development: nobody said.
    Anonymous,
}
