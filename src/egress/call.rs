//! What is known of one call: Pingora's per-request context, and the account of what it used.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use pingora_core::{Error, ErrorType};
use pingora_proxy::Session;
use time::OffsetDateTime;
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    asked::Asked,
    grant::{Account, Grant},
    masked::Masked,
    observed::{Endpoint, Observed},
    refusal,
    route::Route,
    tab::Tab,
};
use crate::{
    config::{Config, Policy, Provider},
    error::Refusal,
    gateway::{connection::Stay, drain::Admission},
    secret::Secret,
    usage::{BudgetError, Money, Record, Reservation, Spend, Tokens, Usage},
};

/// One call of a runner and its answer.
#[derive(Debug)]
pub struct Call {
    pub(super) config: Arc<Config>,
    pub(super) id: String,
    pub(super) started: Instant,
    /// The switch that hides the runner's departure.
    pub(super) stay: Option<Arc<Stay>>,
    pub(super) admission: Option<Admission>,
    /// Who calls, and for what.
    pub(super) admitted: Option<Admitted>,
    pub(super) asked: Asked,
    /// Whether the whole request was let go.
    pub(super) is_sent: bool,
    reservation: Option<Reservation>,
    pub(super) status: u16,
    pub(super) observed: Option<Observed>,
    /// An error of the provider.
    pub(super) masked: Option<Masked>,
    tab: Option<(Arc<Tab>, u64)>,
    pub(super) refusal: Option<Refusal>,
    /// The code and cause of the refusal the runner was told.
    pub(super) refused: Option<(&'static str, String)>,
}

/// A call that may be made.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) route: Route,
    pub(super) grant: Arc<Grant>,
    pub(super) account: Arc<Account>,
    pub(super) policy: Policy,
    /// The provider's key, not the runner's.
    pub(super) key: Option<Secret>,
}

impl Call {
    pub(super) fn new(config: Arc<Config>, id: String, stay: Option<Arc<Stay>>) -> Self {
        Self {
            config,
            id,
            started: Instant::now(),
            stay,
            admission: None,
            admitted: None,
            asked: Asked::new(),
            is_sent: false,
            reservation: None,
            status: 0,
            observed: None,
            masked: None,
            tab: None,
            refusal: None,
            refused: None,
        }
    }

    /// Keeps `refusal` for [`super::reply::fail`] and gives Pingora the error that leads there.
    #[expect(clippy::unnecessary_box_returns, reason = "so Pingora's phases want it")]
    pub(super) fn fail(&mut self, refusal: Refusal) -> Box<Error> {
        let status = refusal.status.as_u16();
        self.refusal = Some(refusal);
        Error::new(ErrorType::HTTPStatus(status))
    }

    /// The provider that is asked; `None` for an integration.
    pub(super) fn provider(&self) -> Option<(&str, &Provider)> {
        match &self.admitted.as_ref()?.route {
            Route::Provider { id, .. } => Some((id, self.config.providers.get(id)?)),
            Route::Integration(_) => None,
        }
    }

    /// What it is: a request of a model, whose body says of which.
    pub(super) fn is_of_model(&self) -> bool {
        let route = self.admitted.as_ref().map(|admitted| &admitted.route);
        matches!(route, Some(Route::Provider { path, .. }) if path != super::route::LIST)
    }

    /// Reads a piece of the request before it goes on. The last piece stays here unless everything
    /// is allowed: a provider does nothing with a request that lacks its end.
    pub(super) fn ask(
        &mut self,
        piece: Option<&Bytes>,
        end_of_stream: bool,
        usage: &Arc<Usage>,
    ) -> Result<(), Refusal> {
        if !self.is_of_model() || self.is_sent {
            return Ok(());
        }
        let knew_model = self.asked.model().is_some();
        let malformed = |fault: super::asked::Fault| {
            Refusal::bad_request("invalid_request", format!("The request {fault}."))
        };
        self.asked.feed(piece.map_or(&[], |piece| piece)).map_err(malformed)?;
        if self.asked.bytes() > self.config.egress.body as u64 {
            return Err(refusal::too_large(self.config.egress.body));
        }
        if !knew_model {
            self.check_model()?;
        }
        if end_of_stream {
            self.asked.finish().map_err(malformed)?;
            if self.asked.in_background() {
                return Err(refusal::in_background());
            }
            self.reserve(usage)?;
            self.is_sent = true;
            // From here on it costs something, whoever waits for the answer.
            if let Some(stay) = &self.stay {
                stay.begin(self.config.egress.linger);
            }
        }
        Ok(())
    }

    fn check_model(&self) -> Result<(), Refusal> {
        let (Some(model), Some(admitted), Some((provider, _))) =
            (self.asked.model(), &self.admitted, self.provider())
        else {
            return Ok(());
        };
        if admitted.policy.allows(&self.config, provider, model) {
            return Ok(());
        }
        Err(refusal::model_not_allowed(provider, model)
            .because(format!("user={:?}", admitted.account.user)))
    }

    /// Reserves the most the call can cost.
    fn reserve(&mut self, usage: &Arc<Usage>) -> Result<(), Refusal> {
        let Some(admitted) = &self.admitted else { return Err(Refusal::internal()) };
        let (model, price) = self.model();
        let context = model.map_or(DEFAULT_CONTEXT, |model| model.context);
        // No token is shorter than a byte; what the provider keeps is no longer than it can read.
        let kept = if self.asked.refers_elsewhere() { context } else { 0 };
        let output = self.asked.worst_output();
        let output = output.unwrap_or_else(|| {
            let each = model.map_or(DEFAULT_OUTPUT, |model| model.output);
            each.saturating_mul(self.asked.answers())
        });
        let input = self.asked.bytes().saturating_add(kept);
        let tokens = Tokens { input, output, ..Tokens::default() };
        let dearest = Tokens { cache_write: input, input: 0, ..tokens };
        let money = price.of(&tokens).max(price.of(&dearest));
        let worst = Spend { tokens: tokens.total(), money };
        let (user, budget) = (&admitted.account.user, &admitted.policy.budget);
        let begun = usage.begin(user, budget, worst, OffsetDateTime::now_utc());
        self.reservation = Some(begun.map_err(|error| match error {
            BudgetError::Over(over) => {
                refusal::over_budget(&over).because(format!("user={user:?}"))
            }
            BudgetError::Unknown(error) => Refusal::internal().because(error),
        })?);
        Ok(())
    }

    fn model(&self) -> (Option<&crate::config::Model>, crate::usage::Price) {
        let name = self.asked.model().unwrap_or_default();
        let model = self.provider().and_then(|(_, provider)| provider.models.get(name));
        (model, model.and_then(|model| model.price).unwrap_or_default())
    }

    /// Counts what follows for the turn that has `session`.
    pub(super) fn count_for(&mut self, grant: &Grant, session: &str, parent: Option<&str>) {
        self.tab = grant.tab_of(session, parent).map(|tab| {
            let call = tab.call();
            (tab, call)
        });
    }

    /// Tells the turn that the call is refused.
    pub(super) fn tell_turn(&self, refusal: &Refusal) {
        if let Some((tab, _)) = &self.tab {
            tab.refuse(refusal);
        }
    }

    /// Reads a piece of the answer as it goes by.
    pub(super) fn observe(&mut self, piece: &[u8]) {
        let Some(observed) = &mut self.observed else { return };
        let before = observed.tokens();
        observed.feed(piece);
        let now = observed.tokens();
        // Before the runner hears of it, so that its turn finds it counted.
        if let Some((tab, call)) = self.tab.as_ref().filter(|_| now != before) {
            tab.note(*call, now.unwrap_or_default());
        }
    }

    /// What the call used; `None` when that was nothing.
    fn record(&self) -> Option<Record> {
        let (provider, _) = self.provider()?;
        let model = format!("{provider}/{}", self.asked.model()?);
        let (_, price) = self.model();
        let of = |tokens: Tokens, estimated: bool| Record {
            model: model.clone(),
            tokens,
            money: price.of(&tokens),
            estimated,
        };
        let guessed_input = self.asked.bytes() / BYTES_PER_TOKEN;
        match &self.observed {
            Some(observed) => {
                if let Some(tokens) = observed.tokens().filter(|_| observed.is_final()) {
                    return Some(of(tokens, false));
                }
                let mut tokens = observed
                    .tokens()
                    .unwrap_or(Tokens { input: guessed_input, ..Tokens::default() });
                tokens.output = tokens.output.max(self.guessed_output(observed));
                Some(of(tokens, true))
            }
            // We cut it before there was an answer: the provider has read it all the same.
            None if self.is_sent && self.status == 0 && self.has_left() => {
                Some(of(Tokens { input: guessed_input, ..Tokens::default() }, true))
            }
            None => None,
        }
    }

    /// What a provider that said nothing of it may have written.
    fn guessed_output(&self, observed: &Observed) -> u64 {
        match self.admitted.as_ref().map(|it| &it.route) {
            Some(Route::Provider { endpoint: Endpoint::Embeddings, .. }) => 0,
            _ if self.asked.streams() => observed.events(),
            _ => observed.bytes() / BYTES_PER_TOKEN,
        }
    }

    fn has_left(&self) -> bool {
        self.stay.as_ref().is_some_and(|stay| stay.has_left())
    }

    /// Writes down what was used, and the one line of this call.
    pub(super) async fn settle(&mut self, session: &Session, error: Option<&Error>) {
        let record = self.reservation.take().map(|it| (it, self.record()));
        self.log(session, error, record.as_ref().and_then(|(_, record)| record.as_ref()));
        if let Some(stay) = &self.stay {
            stay.end();
        }
        if let Some((reservation, Some(record))) = record {
            let written = spawn_blocking(move || reservation.settle(&record)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::error!("usage not written id={} cause={error}", self.id),
                Err(error) => log::error!("usage not written id={} cause={error}", self.id),
            }
        }
    }

    fn log(&self, session: &Session, error: Option<&Error>, record: Option<&Record>) {
        let (workspace, epoch) = self
            .admitted
            .as_ref()
            .map_or(("", 0), |it| (it.grant.workspace.as_str(), it.grant.epoch));
        let target = match self.admitted.as_ref().map(|it| &it.route) {
            Some(Route::Provider { id, path, .. }) => format!("{id}/{path}"),
            Some(Route::Integration(name)) => format!("mcp/{name}"),
            None => String::new(),
        };
        let (code, cause) = self.refused.as_ref().map_or(("", ""), |(code, cause)| (code, cause));
        // Only the type of Pingora's error: its text may quote headers.
        let failure = error.map(|error| error.etype().as_str()).unwrap_or_default();
        let used = record.map_or_else(String::new, |it| {
            let Tokens { input, cached, cache_write, output, reasoning } = it.tokens;
            let Money(cost) = it.money;
            format!(
                " input={input} cached={cached} cache_write={cache_write} output={output} \
                 reasoning={reasoning} nanodollars={cost} estimated={}",
                it.estimated
            )
        });
        log::info!(
            "call id={} workspace={workspace} epoch={epoch} to={target:?} model={:?} status={} \
             ms={} left={}{used} code={code:?} failure={failure:?} cause={cause:?}",
            self.id,
            self.asked.model().unwrap_or_default(),
            session.response_written().map_or(0, |response| response.status.as_u16()),
            self.started.elapsed().as_millis(),
            self.has_left(),
        );
    }

    /// Where the runner calls from.
    pub(super) fn source(session: &Session) -> Option<IpAddr> {
        let address = session.client_addr().and_then(|address| address.as_inet());
        address.map(std::net::SocketAddr::ip)
    }
}

/// A call that is dropped before its end, as when the gateway stops, is paid for too.
impl Drop for Call {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else { return };
        let record = self.record();
        if let Some(Err(error)) = record.map(|record| reservation.settle(&record)) {
            log::error!("usage not written id={} cause={error}", self.id);
        }
    }
}

/// What is taken for the limits of a model of which only the name is known.
const DEFAULT_CONTEXT: u64 = 1_000_000;
const DEFAULT_OUTPUT: u64 = 128_000;
/// Of English text and code, which is what there is most of.
const BYTES_PER_TOKEN: u64 = 4;
