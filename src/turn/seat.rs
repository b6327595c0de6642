//! A turn's place in a runner: its session with the prompt in it, and what must follow when the
//! turn is over or dropped.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    runtime::Handle,
    task::spawn_blocking,
    time::{sleep, timeout},
};

use super::{course::Course, failure, reply::Reply};
use crate::{
    chats::{Guard, Last, Place, Plan},
    egress::tab::Tab,
    error::Refusal,
    openai::request::{Ending, File, Part, Prompt, Speaker},
    opencode::{
        Client, ClientError, client,
        event::{Cache, Tokens},
        feed::{Listener, Loss},
    },
    pool::Lease,
    runner::Backend,
    workspace::Workspace,
};

/// A prompted session. Dropping it aborts what runs there, removes what is of no further use, and
/// only then gives the runner and the chat back.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) listener: Listener,
    pub(super) reply: Reply,
    /// What the egress counts for this turn; `None` for a runner that does not need it.
    tab: Option<Arc<Tab>>,
    closing: Closing,
}

impl Seat {
    /// Prompts the session that the chat's plan names. A session that its runner has lost is
    /// rebuilt once, from the transcript.
    pub(super) async fn take(
        course: &Course,
        workspace: &Workspace,
        lease: Lease,
        prompt: Prompt,
    ) -> Result<Self, Refusal> {
        let (plan, chat) = plan(course, workspace, &prompt).await?;
        let mut closing = Closing::of(lease, chat)?;
        let system = course.system(prompt.system.as_deref());
        let system = system.as_deref();
        if plan != Plan::Fresh {
            let parts = &prompt.parts;
            match Self::prompt(course, workspace, &mut closing, &plan, system, parts).await {
                Err(error) if error.is_session_lost() => closing.forget(&plan).await,
                prompted => {
                    return prompted
                        .map(|heard| heard.with(closing))
                        .map_err(|error| failure::of_call(&error));
                }
            }
        }
        let parts = prompt.replayed();
        let prompted = Self::prompt(course, workspace, &mut closing, &Plan::Fresh, system, &parts);
        prompted.await.map(|heard| heard.with(closing)).map_err(|error| failure::of_call(&error))
    }

    async fn prompt(
        course: &Course,
        workspace: &Workspace,
        closing: &mut Closing,
        plan: &Plan,
        system: Option<&str>,
        parts: &[Part],
    ) -> Result<Prompted, ClientError> {
        let client = Arc::clone(&closing.client);
        let session = match plan {
            Plan::Fresh => client.create_session(TITLE).await?,
            Plan::Keep { session } => session.clone(),
            Plan::Fork { session, before } => client.fork(session, Some(before)).await?,
        };
        let id = message_id();
        closing.enter(&session, &id).await;
        let listener = client.listen(&session, course.turn.config.limits.idle).await?;
        let model = &workspace.models.model;
        let prompt = client::Prompt {
            id: &id,
            agent: &course.choice.agent,
            model: client::Model { provider: &model.provider, model: &model.model },
            system,
            tools: course.tools(),
            parts: parts.iter().map(part).collect(),
        };
        let grant = closing.lease.as_ref().and_then(|lease| lease.grant.as_ref());
        let tab = grant.map(|grant| grant.open_tab(&session));
        closing.posting = true;
        let taken = client.prompt(&session, &prompt).await;
        closing.posting = false;
        taken?;
        Ok(Prompted { listener, reply: Reply::new(&session, &id), tab })
    }

    /// The runner, which lives while the lease does.
    pub(super) fn lease(&self) -> &Lease {
        self.closing.lease.as_ref().expect("a lease is given back when dropped, not before")
    }

    /// How to talk to the runner.
    pub(super) fn client(&self) -> &Client {
        &self.closing.client
    }

    /// The refusal for a stream that was lost, once it is known whether the runner ended.
    pub(super) async fn lost(&self, loss: Loss) -> Refusal {
        let ended = self.lease().ended.cancelled();
        // The stream breaks a moment before the launcher sees the runner's end.
        let ended = loss == Loss::Closed && timeout(LAUNCHER_SEES, ended).await.is_ok();
        failure::of_loss(loss, ended)
    }

    /// Why the egress refused the turn's latest model call; `None` when it did not.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.tab.as_ref().and_then(|tab| tab.refusal()).map(failure::of_egress)
    }

    /// The tokens of all model calls of the turn: what their providers reported, which counts calls
    /// that failed later as well, else what the runner says.
    pub(super) fn tokens(&self) -> Tokens {
        let told = self.reply.tokens();
        let Some((seen, calls)) = self.tab.as_ref().map(|tab| tab.total()) else { return told };
        if calls == 0 {
            return told;
        }
        let seen = Tokens {
            input: seen.input,
            output: seen.output,
            reasoning: seen.reasoning,
            cache: Cache { read: seen.cached, write: seen.cache_write },
        };
        if seen != told {
            log::debug!("usage differs: providers reported {seen:?}, the runner {told:?}");
        }
        seen
    }

    /// Records that the whole answer was given. To be called before its last byte.
    pub(super) async fn leave(&mut self) {
        self.closing.leave().await;
    }
}

/// A session that took its prompt.
struct Prompted {
    listener: Listener,
    reply: Reply,
    tab: Option<Arc<Tab>>,
}

impl Prompted {
    fn with(self, closing: Closing) -> Seat {
        Seat { listener: self.listener, reply: self.reply, tab: self.tab, closing }
    }
}

/// What must follow.
#[derive(Debug)]
struct Closing {
    client: Arc<Client>,
    /// Taken only when dropped.
    lease: Option<Lease>,
    /// `None` when nothing is to be remembered. Shared with what is written at the moment, so that
    /// the chat stays reserved until the end of all that follows.
    chat: Option<Arc<Mutex<Guard>>>,
    /// Whether the session serves later turns too.
    keeps: bool,
    session: Option<String>,
    /// Whether something may still run in the session.
    abort: bool,
    /// Whether the prompt is on its way: it may arrive after an abort.
    posting: bool,
    /// Sessions of no further use.
    spent: Vec<String>,
}

impl Closing {
    fn of(lease: Lease, chat: Option<Guard>) -> Result<Self, Refusal> {
        let Backend::Opencode(client) = &lease.backend else { return Err(Refusal::internal()) };
        let client = Arc::clone(client);
        Ok(Self {
            client,
            lease: Some(lease),
            keeps: chat.as_ref().is_some_and(Guard::keeps),
            chat: chat.map(|chat| Arc::new(Mutex::new(chat))),
            session: None,
            abort: false,
            posting: false,
            spent: Vec::new(),
        })
    }

    /// From here on `prompt` may run in `session`.
    async fn enter(&mut self, session: &str, prompt: &str) {
        self.session = Some(session.to_owned());
        self.abort = true;
        let (session, prompt) = (session.to_owned(), prompt.to_owned());
        self.with_chat(move |chat| chat.prompting(&session, &prompt)).await;
    }

    /// The session of `plan` is gone: nothing runs there, and nothing goes on from it.
    async fn forget(&mut self, plan: &Plan) {
        self.session = None;
        self.abort = false;
        if let Plan::Keep { session } | Plan::Fork { session, .. } = plan {
            let session = session.clone();
            self.with_chat(move |chat| chat.forget_session(&session).map(|()| Vec::new())).await;
        }
    }

    async fn leave(&mut self) {
        self.abort = false;
        self.with_chat(Guard::remember).await;
    }

    /// Runs `work` on the chat off the async threads. A memory that fails costs a transcript
    /// replayed later, not the answer.
    async fn with_chat<E: std::fmt::Display + Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Guard) -> Result<Vec<String>, E> + Send + 'static,
    ) {
        let Some(chat) = self.chat.clone() else { return };
        match spawn_blocking(move || work(&mut chat.lock())).await {
            Ok(Ok(spent)) => self.spent.extend(spent),
            Ok(Err(error)) => log::error!("chat not remembered cause={error}"),
            Err(error) => log::error!("chat not remembered cause={error}"),
        }
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        let abort = self.session.clone().filter(|_| self.abort);
        let mut spent = std::mem::take(&mut self.spent);
        if !self.keeps {
            spent.extend(self.session.take());
        }
        let Ok(runtime) = Handle::try_current() else { return };
        let is_alive = self.lease.as_ref().is_some_and(|lease| lease.is_alive());
        if (abort.is_none() && spent.is_empty()) || !is_alive {
            return;
        }
        let (client, lease, chat) = (Arc::clone(&self.client), self.lease.take(), self.chat.take());
        let posting = self.posting;
        // Nobody waits for it: bounded by `TIDY`, and by the runner's own end.
        drop(runtime.spawn(async move {
            drop(timeout(TIDY, tidy(&client, abort, posting, spent)).await);
            drop((lease, chat));
        }));
    }
}

async fn tidy(client: &Client, abort: Option<String>, posting: bool, spent: Vec<String>) {
    // Deleting a session does not stop what runs in it (observed), so the abort comes first.
    if let Some(session) = abort {
        let mut looks = if posting { LOOKS } else { 0 };
        loop {
            if let Err(error) = client.abort(&session).await {
                log::warn!("session not aborted cause={error}");
            }
            // A prompt that was on its way when its turn was left may have arrived only now.
            while looks > 0 && !client.is_session_busy(&session).await.unwrap_or(false) {
                sleep(LOOK_EVERY).await;
                looks -= 1;
            }
            if looks == 0 {
                break;
            }
        }
    }
    for session in spent {
        if let Err(error) = client.delete_session(&session).await {
            log::debug!("session not removed cause={error}");
        }
    }
}

/// Which session the turn uses, and what is remembered of it.
async fn plan(
    course: &Course,
    workspace: &Workspace,
    prompt: &Prompt,
) -> Result<(Plan, Option<Guard>), Refusal> {
    let (origin, config) = (&course.turn.origin, &course.turn.config);
    let wanted = origin.meta.as_ref().and_then(|meta| meta.memory);
    let persona = course.choice.persona.as_ref().and_then(|persona| persona.memory);
    let remembers = wanted.or(persona).unwrap_or(config.turns.memory);
    // A task arrives beside its chat's turns and belongs to none of them.
    let Some(chat) = origin.chat.clone().filter(|_| remembers && origin.task.is_none()) else {
        return Ok((Plan::Fresh, None));
    };
    let (answer, parent) = (origin.message.clone(), origin.parent_message.clone());
    let said_by_user = prompt.transcript.iter().filter(|entry| entry.speaker == Speaker::User);
    let users = said_by_user.count() + usize::from(prompt.ending == Ending::User);
    let last = match prompt.ending {
        Ending::User => Last::User,
        Ending::Assistant => Last::Assistant,
        Ending::Tool => Last::Other,
    };
    let (chats, id) = (Arc::clone(&course.turn.means.chats), workspace.id.clone());
    let max_chats = config.turns.max_chats;
    let begun = spawn_blocking(move || {
        let users = u32::try_from(users).unwrap_or(u32::MAX);
        let place = Place { answer: answer.as_deref(), parent: parent.as_deref(), last, users };
        chats.begin(&id, &chat, place, max_chats)
    });
    let begun = begun.await.map_err(|error| Refusal::internal().because(error))?;
    let (plan, guard) = begun.map_err(|error| Refusal::internal().because(error))?;
    Ok((plan, Some(guard)))
}

fn part(part: &Part) -> client::Part<'_> {
    match part {
        Part::Text(text) => client::Part::Text { text },
        Part::File(File { mime, url, filename }) => {
            client::Part::File { mime, url, filename: filename.as_deref() }
        }
    }
}

/// An id of ours for a user message: starts with `msg` and is unique in opencode's database.
fn message_id() -> String {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system has entropy");
    format!("msg_{}", hex::encode(bytes))
}

/// With a title opencode asks no model for one.
const TITLE: &str = "Open Persona";
/// How long a launcher may take to see that a runner ended.
const LAUNCHER_SEES: Duration = Duration::from_millis(300);
/// How often a session is looked at for a prompt that arrives late, and how long apart: a prompt
/// was seen to take 5 to 15 ms, and longer when large.
const LOOKS: u32 = 8;
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// An abort was seen to take 10 to 300 ms.
const TIDY: Duration = Duration::from_secs(20);
