//! From a request to its answer, or to the board that will answer it.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::SystemTime;

use super::access::{Hosts, Origin, Standing};
use super::clients::Token;
use super::control::Control;
use super::counters::Counters;
use super::exposition::Format;
use super::head::Refusal;
use super::response::Response;
use super::routes::{self, Route};
use super::server::{Method, Request};
use super::{metrics, page, status};
use crate::pg::tls::CertificateWatch;
use crate::probe::board::{Asker, Board, Report};
use crate::probe::guard_status::{Guard, GuardWatch};
use crate::probe::verdict::Verdict;

/// How far the front door is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everybody is answered.
    Open,
    /// Told to stop: nobody is ready any more.
    Draining,
    /// Each is answered for the last time.
    Closing,
}

/// Works on one request after the other; never waits for anything.
pub struct Handler<'a> {
    /// Who is asked.
    pub board: &'a Board<Waiter>,
    /// What is counted.
    pub counts: &'a Counters,
    /// Where verdicts go.
    pub control: Arc<Control>,
    /// When the process began.
    pub started: SystemTime,
    /// Who reads what the guard says of itself.
    pub guard: Option<Arc<GuardWatch>>,
    /// Names by which details may be asked for.
    pub hosts: &'a Hosts,
    /// Who sees the nodes' certificates.
    pub certificates: &'a [CertificateWatch],
    /// What was put together in this round.
    pub documents: RefCell<Documents>,
}

/// Documents about all that is known: who asks in the same round gets the same one, so
/// that many who do cost others little.
#[derive(Default)]
pub struct Documents {
    status: Option<Response>,
    metrics: [Option<Response>; 2],
}

/// Who asks, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    /// Who gets the answer.
    pub client: Token,
    /// Where its connection stands.
    pub standing: Standing,
    /// Where its request comes from.
    pub origin: Origin,
}

/// A parked request: the verdict goes to the client.
pub struct Waiter {
    client: Token,
    control: Arc<Control>,
}

impl Asker for Waiter {
    fn settle(self, verdict: Verdict) {
        self.control.settled(self.client, verdict);
    }
}

impl Handler<'_> {
    /// Answers a request; `None` if its verdict will come.
    ///
    /// # Errors
    ///
    /// Fails if it would have to wait for a verdict and `is_full`: no more may.
    pub fn handle(
        &self,
        request: &Request,
        caller: Caller,
        phase: Phase,
        is_full: bool,
    ) -> Result<Option<Response>, Refusal> {
        if !is_known(request.method()) {
            return Ok(Some(routes::wrong_method()));
        }
        let route = routes::route(request.url(), &self.board.rules().nodes);
        if let Some(refusal) = self.refuse(&route, caller, request.url()) {
            return Ok(Some(refusal));
        }
        let reply = match route {
            Route::Health => Response::health(self.board.turns()),
            Route::Refused(reply) => reply,
            Route::Status => self.status(),
            Route::Metrics => self.metrics(Format::accepted(accept(request).as_deref())),
            Route::Page => page(),
            Route::Question(_) if phase != Phase::Open => self.verdict(&Verdict::draining()),
            Route::Question(_) if is_full => return Err(Refusal::Overloaded),
            Route::Question(question) => {
                let (client, control) = (caller.client, Arc::clone(&self.control));
                self.board.ask(question, Waiter { client, control });
                return Ok(None);
            }
        };
        Ok(Some(reply))
    }

    /// Refuses what is not for everybody to whom it is not told.
    fn refuse(&self, route: &Route, caller: Caller, target: &str) -> Option<Response> {
        let (origin, standing) = (caller.origin, caller.standing);
        match route {
            Route::Status | Route::Metrics | Route::Page => {
                origin.refuse_details(standing, routes::label(target), self.hosts)
            }
            Route::Question(question) if question.ask.has_trials() => {
                origin.refuse_trials(standing, self.hosts)
            }
            Route::Question(_) | Route::Health | Route::Refused(_) => None,
        }
    }

    /// Begins another round: what is known may have changed.
    pub fn forget_documents(&self) {
        self.documents.take();
    }

    /// Says a verdict.
    pub fn verdict(&self, verdict: &Verdict) -> Response {
        Response::verdict(verdict, &self.board.rules().nodes)
    }

    fn status(&self) -> Response {
        let render = || {
            let (report, rules) = (self.report(), self.board.rules());
            let guard = self.guard();
            let text = status::render(&report, rules, self.board.uptime(), guard.as_ref());
            Response::json(200, text)
        };
        let status = &mut self.documents.borrow_mut().status;
        status.get_or_insert_with(render).clone()
    }

    fn metrics(&self, format: Format) -> Response {
        let render = || {
            let (report, rules) = (self.report(), self.board.rules());
            let guard = self.guard();
            let (counts, started) = (self.counts, self.started);
            let text = metrics::render(&report, rules, guard.as_ref(), counts, started, format);
            Response::document(200, format.content_type(), text)
        };
        let metrics = &mut self.documents.borrow_mut().metrics[format as usize];
        metrics.get_or_insert_with(render).clone()
    }

    fn report(&self) -> Report {
        let mut report = self.board.report();
        for (node, watch) in report.nodes.iter_mut().zip(self.certificates) {
            node.certificate_good_until = watch.good_until();
        }
        report
    }

    fn guard(&self) -> Option<Guard> {
        self.guard.as_ref().map(|watch| watch.guard())
    }
}

fn page() -> Response {
    Response {
        policy: Some(page::POLICY),
        ..Response::document(200, "text/html; charset=utf-8", page::PAGE)
    }
}

fn is_known(method: &Method) -> bool {
    matches!(method, Method::Get | Method::Head | Method::Options)
}

/// Joins the values of all `Accept` headers: several are one list.
fn accept(request: &Request) -> Option<String> {
    let values = request
        .headers()
        .iter()
        .filter(|header| header.field.equiv("Accept"))
        .map(|header| header.value.as_str());
    values
        .map(str::to_owned)
        .reduce(|all, next| all + "," + &next)
}
