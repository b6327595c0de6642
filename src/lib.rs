//! One private opencode agent per person, behind one OpenAI-compatible URL.
//!
//! # The life of a request
//!
//! `POST /v1/chat/completions`, from socket to socket:
//!
//! 1. A Pingora listener accepts the connection, and [`Guarded`](gateway::connection::Guarded) gives
//!    its request head a deadline. What follows are the phases of [`Gateway`](gateway::Gateway), a
//!    `ProxyHttp`; what is known of the request grows in its [`Exchange`](gateway::Exchange).
//! 2. The request filter looks at the head alone: [`route`](gateway::route) has a closed table of
//!    paths, and [`Drain`](gateway::Drain) lets the request in unless the gateway stops.
//! 3. [`identity::decide`](gateway::identity::decide) says who calls: a front end that is trusted to
//!    say for whom, a key of ours, or, in development only, nobody yet. It gives a
//!    [`Caller`](gateway::identity::Caller); [`Origin`](gateway::origin::Origin) is what a trusted
//!    front end says of the chat.
//! 4. [`header::strip`](gateway::header::strip) removes every header that could be taken for
//!    identity. The body is held back, measured, and passed on in one piece.
//! 5. [`upstream`] gives Pingora a peer. A runner that speaks OpenAI's dialect is one by itself, and
//!    [`Scan`](openai::splice::Scan) sets the model in a body that otherwise stays as it is. For one
//!    that speaks opencode's, the peer is a [`Turn`](turn::Turn): an HTTP service in this process, at
//!    the far end of a pipe in memory. The rest is about those.
//! 6. The turn reads the body as a [`ChatRequest`](openai::request::ChatRequest), and
//!    [`Choice::of`](persona::Choice::of) makes the model's name an agent and a prompt.
//! 7. The [`Identity`](gateway::identity::Identity) names a
//!    [`WorkspaceId`](workspace::WorkspaceId); [`Workspaces::bind`](workspace::Workspaces::bind)
//!    makes it the one directory of this owner and writes what belongs in there.
//! 8. [`Pool::lease`](pool::Pool::lease) gives the workspace's [`Runner`](runner::Runner). If there
//!    is none, the [`Launcher`](launcher::Launcher) starts one from a [`Spec`](launcher::Spec), once
//!    for everybody who waits.
//! 9. [`Chats::begin`](chats::Chats::begin) says which session of the runner's goes on, or that a
//!    new one begins with the whole transcript.
//! 10. [`Client::listen`](opencode::Client::listen) registers for the session's events on the one
//!     stream that all of the runner's turns share, and then
//!     [`Client::prompt`](opencode::Client::prompt) sends the prompt, under a message id of our own.
//! 11. The runner asks its model. It holds no provider key: its one way out is the
//!     [`Egress`](egress::Egress), a second `ProxyHttp` with a listener of its own. There the runner's
//!     token gives a [`Grant`](egress::grant::Grant), the user's key takes the token's place, the
//!     request is [read](egress::asked::Asked) for what it asks and the reply
//!     [for what it used](egress::observed::Observed) as they stream through, and
//!     [`Usage`](usage::Usage) holds the user to a budget.
//! 12. Each event is [parsed](opencode::event::Event::parse), heard by the
//!     [`Reply`](turn::reply::Reply), which knows when *this* prompt is answered, and said by the
//!     [`Voice`](turn::voice::Voice) as [chunks](openai::chunk::Chunks). What a tool asks in between,
//!     [a policy answers](turn::ask).
//! 13. The end is recorded before the last byte, and the [`Lease`](pool::Lease) is given back.
//!
//! To leave is to drop: when the caller goes, Pingora drops its end of the pipe, and with it the turn
//! wherever it is, which aborts the prompt. A no on the way is a [`Refusal`](error::Refusal): an HTTP
//! error before the first byte, an error event after it.
//!
//! # Around it
//!
//! [`config`] is the configuration as used, and [`reload`] replaces it while requests go on.
//! [`serve`] puts the pieces together, for the program and for
//! [a Pingora server of your own](serve::mount); `examples/embed.rs` shows how. [`state`] is what the
//! gateway remembers across restarts, and [`keys`] the providers' keys that users brought. [`scrub`]
//! and [`secret`] keep keys out of texts, [`skim`] finds few members in much JSON, [`cli`] is the
//! command line, and [`demo`] a model provider that needs no key.

pub mod chats;
pub mod cli;
pub mod config;
pub mod demo;
pub mod egress;
pub mod error;
pub mod gateway;
pub mod keys;
pub mod launcher;
pub mod openai;
pub mod opencode;
pub mod persona;
pub mod pool;
pub mod reload;
pub mod runner;
pub mod scrub;
pub mod secret;
pub mod serve;
pub mod skim;
pub mod state;
pub mod turn;
pub mod upstream;
pub mod usage;
pub mod workspace;
