//! The course of a turn: workspace → runner → session → prompt → events → answer.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};

use super::{
    Turn,
    ask::{self, Ask},
    failure,
    reply::{Finish, Heard, Outcome, SETTLE},
    seat::Seat,
    switches,
    voice::{Form, Voice},
};
use crate::{
    config::ToolStyle,
    error::Refusal,
    gateway::identity::{self, Caller, Identity},
    openai::{
        chunk::{Chunks, ModelDetails},
        request::{ChatRequest, Prompt},
    },
    opencode::{
        event::Event,
        feed::{Loss, Said},
    },
    persona::{self, Choice},
    workspace::Effective,
};

/// A turn that knows who asks, and for what.
pub(super) struct Course {
    pub(super) turn: Turn,
    pub(super) identity: Identity,
    pub(super) choice: Choice,
    voice: Voice,
}

impl Course {
    /// Decides what can be decided without waiting; gives the prompt beside the course.
    pub(super) fn of(turn: Turn, request: ChatRequest) -> Result<(Self, Prompt), Refusal> {
        let (identity, tools) = match &turn.caller {
            Caller::Known { identity, tools, .. } => (identity.clone(), *tools),
            Caller::Undecided => (
                identity::from_body(&turn.config.identity, request.user.as_deref())?,
                turn.config.turns.tools,
            ),
        };
        let original = turn.origin.model.as_deref();
        let meta = turn.origin.meta.as_ref();
        let template = meta.and_then(|meta| meta.template.as_deref());
        let choice = Choice::of(&turn.config, &request.model, original, template)?;
        let style = match tools {
            // Other clients than Open WebUI's browser chats get such frames unchanged.
            ToolStyle::Native if !turn.origin.is_browser_chat() => ToolStyle::Plain,
            style => style,
        };
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let chunks = Chunks::new(&format!("chatcmpl-{}", turn.id), created, &request.model);
        let form = if request.stream {
            Form::Stream { include_usage: request.include_usage }
        } else {
            Form::Document
        };
        let voice = Voice::new(chunks, form, style);
        Ok((Self { turn, identity, choice, voice }, request.prompt))
    }

    /// What is added to the agent's prompt: how the picked model tunes its persona, and the user's
    /// own system prompt.
    pub(super) fn system(&self, user_system: Option<&str>) -> Option<String> {
        let level = self.turn.origin.meta.as_ref().and_then(|meta| meta.self_reference_level);
        let tuned = level.filter(|_| self.choice.persona.is_some()).map(persona::self_reference);
        let system = self.choice.system(user_system);
        match (tuned, system) {
            (Some(tuned), Some(system)) => Some(format!("{tuned}\n\n{system}")),
            (tuned, system) => tuned.map(str::to_owned).or(system),
        }
    }

    /// The integrations that are on for this prompt, if its front end may say so.
    pub(super) fn tools(&self) -> BTreeMap<String, bool> {
        let is_believed = self.turn.caller.front_end().is_some_and(|it| it.meta_headers);
        if !is_believed {
            return BTreeMap::new();
        }
        let meta = self.turn.origin.meta.clone().unwrap_or_default();
        switches::of(&self.turn.config, &self.choice, &meta)
    }

    /// Carries the turn out and says its answer into `frames`. An `Err` is the answer's end.
    pub(super) async fn run(
        mut self,
        prompt: Prompt,
        frames: mpsc::Sender<Bytes>,
    ) -> Result<(), Refusal> {
        let limit = self.turn.config.limits.turn;
        let told = timeout(limit, self.carry_out(prompt, &frames)).await;
        let told = told.unwrap_or_else(|_| Err(failure::too_long(limit)));
        if told.is_err() {
            say(&frames, Some(self.voice.broken_off()).filter(|bytes| !bytes.is_empty())).await;
        }
        told
    }

    async fn carry_out(
        &mut self,
        prompt: Prompt,
        frames: &mpsc::Sender<Bytes>,
    ) -> Result<(), Refusal> {
        let keys = std::mem::take(&mut self.turn.origin.keys);
        let (workspace, lease) =
            self.turn.means.runner(&self.identity, keys, &self.turn.config).await?;
        let details = details(&workspace.models);
        let mut seat = Seat::take(self, &workspace, lease, prompt).await?;
        let finish = self.listen(&mut seat, frames).await?;
        if finish == Finish::Refused {
            let text = seat.reply.refused().map_or(REFUSED.into(), Ask::refusal);
            say(frames, self.voice.stop_short(&text)).await;
        }
        seat.leave().await;
        say(frames, Some(self.voice.end(finish, seat.tokens(), &details))).await;
        Ok(())
    }

    /// Passes on what is heard until the turn is over.
    async fn listen(
        &mut self,
        seat: &mut Seat,
        frames: &mpsc::Sender<Bytes>,
    ) -> Result<Finish, Refusal> {
        let first_byte = self.turn.config.limits.first_byte;
        let mut first_by = Some(Instant::now() + first_byte);
        let mut settle_by = None;
        let ended = seat.lease().ended.clone();
        let outcome = loop {
            let next = settle_by.or(first_by).unwrap_or_else(far_away);
            let said = tokio::select! {
                // What was said before the runner ended comes first.
                biased;
                said = seat.listener.next() => said,
                () = ended.cancelled() => Said::Lost(Loss::Closed),
                () = sleep_until(next) => match settle_by {
                    Some(_) => break seat.reply.settled(),
                    None => return Err(failure::no_first_byte(first_byte)),
                },
            };
            let event = match said {
                Said::Event(event) => event,
                Said::Lost(loss) => return Err(seat.lost(loss).await),
            };
            let Ok(event) = Event::parse(&event) else {
                log::warn!("event not understood id={} bytes={}", self.turn.id, event.len());
                continue;
            };
            let heard = seat.reply.hear(event);
            settle_by = if seat.reply.is_settling() {
                settle_by.or_else(|| Some(Instant::now() + SETTLE))
            } else {
                None
            };
            let Some(heard) = heard else { continue };
            // A retry or an empty beginning is no sign that the model answers.
            if !matches!(heard, Heard::Retry(_) | Heard::Begin(_)) {
                first_by = None;
            }
            let frame = match heard {
                Heard::Begin(strand) => {
                    self.voice.begin(strand);
                    None
                }
                Heard::Paragraph(strand, text) => {
                    self.voice.begin(strand);
                    self.voice.say(strand, &text)
                }
                Heard::Piece(strand, text) => self.voice.say(strand, &text),
                Heard::Tool(tool) => self.voice.tool(&tool),
                Heard::Ask(ask) => {
                    self.answer(seat, &ask).await?;
                    None
                }
                Heard::Retry(retry) if retry.told => {
                    return Err(failure::cut_by_retry(&retry.reason));
                }
                Heard::Retry(retry) => {
                    if let Some(refusal) = seat.refusal().filter(failure::is_for_good) {
                        return Err(refusal);
                    }
                    let wait = until(retry.next);
                    if wait > LONGEST_RETRY {
                        return Err(failure::wait_is_too_long(&retry.reason, wait));
                    }
                    None
                }
                Heard::End(outcome) => break outcome,
            };
            say(frames, frame).await;
        };
        match outcome {
            Outcome::Finished(finish) => Ok(finish),
            Outcome::Failed(failed) => {
                Err(seat.refusal().unwrap_or_else(|| failure::of_failure(&failed)))
            }
            Outcome::Interrupted => Err(seat.lost(Loss::Closed).await),
        }
    }

    async fn answer(&self, seat: &Seat, asked: &Ask) -> Result<(), Refusal> {
        let policy = self.turn.config.turns.permission;
        log::info!("asked id={} what={asked} policy={policy:?}", self.turn.id);
        match ask::answer(seat.client(), policy, asked).await {
            // One refusal refuses all that a session waits for: this was answered with another.
            Err(error) if error.is_gone() => Ok(()),
            answered => answered.map_err(|error| failure::of_call(&error)),
        }
    }
}

/// A closed channel means that the body, and this future with it, is being dropped.
async fn say(frames: &mpsc::Sender<Bytes>, frame: Option<Bytes>) {
    if let Some(frame) = frame {
        drop(frames.send(frame).await);
    }
}

fn details(models: &Effective) -> ModelDetails {
    ModelDetails {
        model: models.model.to_string(),
        small_model: models.small_model.to_string(),
        resolved_from: models.resolved_from.to_owned(),
    }
}

/// How long it is until `time`, in Unix milliseconds.
fn until(time: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(time).saturating_sub(now)
}

/// Later than any turn may last.
fn far_away() -> Instant {
    Instant::now() + Duration::from_hours(7 * 24)
}

/// What is said when a tool call was the end of the answer, and nobody knows what was refused.
pub(super) const REFUSED: &str = "I stopped here, without an answer: I could not go on after the last tool. \
                       Ask for it another way, or ask your admin to allow it.";
/// opencode's own delays stay under 40 s; a provider's `retry-after` has no limit (observed).
const LONGEST_RETRY: Duration = Duration::from_mins(1);
