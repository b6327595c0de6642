//! What is known of one call: Pingora's per-request context.

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use pingora_core::{Error, ErrorSource, ErrorType};
use pingora_proxy::Session;
use tokio::{task::spawn_blocking, time::Instant};

use super::{
    asked::Asked,
    bill::Bill,
    grant::{Account, Grant},
    masked::Masked,
    observed::Form,
    refusal,
    route::Route,
    tab::Tab,
};
use crate::{
    config::{Config, Policy, Provider},
    error::Refusal,
    gateway::{connection::Stay, drain::Admission},
    secret::Secret,
    usage::{Money, Record, Tokens, Usage},
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
    /// Whose token it is, once that is known.
    pub(super) grant: Option<Arc<Grant>>,
    /// Who calls, and for what.
    pub(super) admitted: Option<Admitted>,
    pub(super) asked: Asked,
    /// Whether the whole request was let go.
    pub(super) is_sent: bool,
    bill: Option<Bill>,
    /// Whether the provider has begun to answer.
    pub(super) is_answered: bool,
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
            grant: None,
            admitted: None,
            asked: Asked::new(),
            is_sent: false,
            bill: None,
            is_answered: false,
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

    /// Whether it is a request of a model.
    pub(super) fn is_of_model(&self) -> bool {
        self.admitted.as_ref().is_some_and(|admitted| admitted.route.is_of_model())
    }

    /// Reads a piece of the request before it goes on. The piece that makes it whole stays here
    /// unless everything is allowed: nobody can work on less, and after it comes white space alone.
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
        self.asked.feed(piece.map_or(&[], |piece| piece)).map_err(refusal::malformed)?;
        if self.asked.bytes() > self.config.egress.body as u64 {
            return Err(refusal::too_large(self.config.egress.body));
        }
        if !knew_model {
            self.check_model()?;
        }
        if self.bill.is_none() && (end_of_stream || self.asked.is_whole()) {
            self.asked.finish().map_err(refusal::malformed)?;
            self.bill = Some(self.open_bill(usage)?);
        }
        if end_of_stream {
            self.is_sent = true;
            // Somebody reads the answer to its end, whoever waits for it.
            if let Some(stay) = &self.stay {
                stay.begin(self.config.egress.linger);
            }
        }
        Ok(())
    }

    fn open_bill(&self, usage: &Arc<Usage>) -> Result<Bill, Refusal> {
        let (Some(admitted), Some(provider)) = (&self.admitted, self.provider()) else {
            return Err(Refusal::internal());
        };
        let Route::Provider { endpoint, .. } = &admitted.route else {
            return Err(Refusal::internal());
        };
        let whose = (admitted.account.user.as_str(), &admitted.policy);
        Bill::open(usage, whose, provider, *endpoint, &self.asked)
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

    /// The provider has answered with `status`, and its answer has this form.
    pub(super) fn expect(&mut self, status: http::StatusCode, form: Form) -> Result<(), Refusal> {
        if !self.is_of_model() || !status.is_success() {
            return Ok(());
        }
        let Some(bill) = self.bill.as_mut() else {
            return Err(refusal::provider_failed().because("it answered half a request"));
        };
        bill.expect(form);
        Ok(())
    }

    /// Reads a piece of the answer as it goes by.
    pub(super) fn observe(&mut self, piece: &[u8]) {
        let changed = self.bill.as_mut().and_then(|bill| bill.observe(piece));
        // Before the runner hears of it, so that its turn finds it counted.
        if let (Some(tokens), Some((tab, call))) = (changed, &self.tab) {
            tab.note(*call, tokens);
        }
    }

    fn has_left(&self) -> bool {
        self.stay.as_ref().is_some_and(|stay| stay.has_left())
    }

    /// Writes down what was used, and the one line of this call.
    pub(super) async fn settle(&mut self, session: &Session, error: Option<&Error>) {
        let is_cut = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream);
        let bill = self.bill.take();
        let record = bill.as_ref().and_then(|bill| bill.record(is_cut && !self.is_answered));
        self.log(session, error, record.as_ref());
        if let Some(stay) = &self.stay {
            stay.end();
        }
        if let (Some(bill), Some(record)) = (bill, record) {
            let written = spawn_blocking(move || bill.settle(&record)).await;
            match written {
                Ok(Ok(())) => {}
                Ok(Err(error)) => log::error!("usage not written id={} cause={error}", self.id),
                Err(error) => log::error!("usage not written id={} cause={error}", self.id),
            }
        }
    }

    fn log(&self, session: &Session, error: Option<&Error>, record: Option<&Record>) {
        let (workspace, epoch) =
            self.grant.as_ref().map_or(("", 0), |grant| (grant.workspace.as_str(), grant.epoch));
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
        let Some(bill) = self.bill.take() else { return };
        let record = bill.record(!self.is_answered);
        if let Some(Err(error)) = record.map(|record| bill.settle(&record)) {
            log::error!("usage not written id={} cause={error}", self.id);
        }
    }
}
