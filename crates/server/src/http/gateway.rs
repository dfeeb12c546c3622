//! The gateway: bytes in, an invocation, bytes out.
//!
//! [`Gateway::answer`] is the whole life of a request at the edge: find the route, read what the
//! caller sent along (deadline, trace context, correlation id, class), read the body up to the
//! function's limit, let [`Invoker`] run it, and put the answer into HTTP. What it refuses, it
//! refuses before a worker is asked. Bodies are passed on as they came; only the syntax of JSON
//! is looked at, so that a handler never sees a body that does not parse.

mod address;
pub(crate) mod answer;
mod body;
mod door;
pub(in crate::http) mod entrance;
pub(in crate::http) mod intake;
mod look;

use std::hash::{BuildHasher, Hash as _, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fp_core::code::Code;
use fp_core::deadline::Given;
use fp_core::record::Trigger;
use fp_core::{FunctionName, Tenant};
use http::header::ALLOW;
use http::request::Parts;
use http::{Method, Request as HttpRequest, Response, Version};
use http_body::Body as _;
use serde_json::Value;
use tokio_util::task::TaskTracker;

use self::address::Addressee;
use self::answer::Edge;
use self::body::GatewayBody;
use self::door::Doorkeeper;
use self::entrance::{Entrance, Visitor};
use self::look::Look;
use super::listener::Upload;
use super::problem::Problem;
use super::whole::{self, Unread};
use crate::access::Access;
use crate::bodies::BodyBudget;
use crate::catalog::{Catalog, Deployed, Matched, Route};
use crate::clock::Clock;
use crate::invoke::{Completed, Invoker, Reply, Request};

/// Everything that answering a request needs.
#[derive(Debug)]
pub(crate) struct Gateway {
    catalog: Arc<Catalog>,
    invoker: Arc<Invoker>,
    clock: Clock,
    access: Arc<Access>,
    bodies: Arc<BodyBudget>,
    /// Names below which tenants have names of their own, besides `localhost`.
    hosts: Vec<String>,
    errors: Detail,
    /// Second, third, … functions of an event type; they outlive the caller.
    others: TaskTracker,
    look: Look,
    door: Arc<Doorkeeper>,
    hasher: std::hash::RandomState,
}

impl Gateway {
    pub(crate) fn new(
        catalog: Arc<Catalog>,
        invoker: Arc<Invoker>,
        access: Arc<Access>,
        bodies: Arc<BodyBudget>,
        clock: Clock,
        hosts: Vec<String>,
        errors: Detail,
    ) -> Self {
        Self {
            catalog,
            invoker,
            door: Doorkeeper::new(clock.clone()),
            clock,
            access,
            bodies,
            hosts,
            errors,
            others: TaskTracker::new(),
            look: Look::default(),
            hasher: std::hash::RandomState::new(),
        }
    }

    /// Waits for functions that run besides the one that answered.
    pub(crate) async fn drain(&self) {
        self.others.close();
        self.others.wait().await;
    }

    /// Answers one request.
    pub(crate) async fn answer(
        self: Arc<Self>,
        request: HttpRequest<Upload>,
        peer: Peer,
    ) -> Response<GatewayBody> {
        let arrived = self.clock.now();
        let (mut parts, body) = request.into_parts();
        // What the session of the pages is none of the functions' business: cookies know no ports.
        intake::keep_session_out(&mut parts.headers);
        let edge = Edge::of(&parts, arrived);
        // Over HTTP/1 hyper sees to it.
        let head_only = parts.method == Method::HEAD && parts.version == Version::HTTP_2;
        let response = match self.admit(parts, body, peer, &edge).await {
            Ok(admitted) => self.run(admitted, edge).await,
            Err(Refusal::Unrouted(problem)) => edge.refuse(*problem, self.clock.now()),
            Err(Refusal::Recorded(completed)) => edge.respond(*completed, &self.clock, self.full_errors()),
        };
        if head_only { answer::without_body(response) } else { response }
    }

    /// Everything up to the point where a worker is needed.
    async fn admit(
        &self,
        mut parts: Parts,
        body: Upload,
        peer: Peer,
        edge: &Edge,
    ) -> Result<Admitted, Refusal> {
        if let Err(problem) = intake::check_framing(&parts) {
            return Err(refuse_reading(problem, body).into());
        }
        let asked = parts.uri.clone();
        let addressee = address::addressee(&mut parts, &peer, &self.access, &self.hosts);
        if let Addressee::Tenant(tenant) = &addressee {
            self.door.enter(tenant, self.caller(&peer)).await;
        }
        let visitor = Visitor::of(&self.access, &parts.headers, &peer);
        let matched = match self.find(&addressee, &visitor, &parts, asked.path()) {
            Ok(matched) => matched,
            Err(problem) => return Err(refuse_reading(problem, body).into()),
        };
        let entrance = visitor.enter(&matched.functions).await;
        let Some(open) = entrance.first_open() else {
            let problem = entrance.into_refusal().err().expect("each of them refuses");
            return Err(refuse_reading(problem, body).into());
        };
        let first = &matched.functions[open];
        if visitor.may_carry_key() {
            entrance::keep_keys_out(&mut parts.headers);
        }
        let time_given = match intake::time_given(&parts.headers) {
            Ok(time_given) => time_given,
            Err(problem) => return Err(refuse_reading(problem, body).into()),
        };
        let limit = first.settings.limits.body.as_u64();
        // Who may not call is not read, either.
        if !body.is_end_stream()
            && let Some(spent) = self.invoker.spent_quota(first)
        {
            tokio::spawn(whole::discard(body));
            let (first, nothing) = (first.clone(), Read::nothing());
            let tenant = first.tenant.clone();
            let request = self.request_of(tenant, matched, parts, nothing, time_given, Some(peer), edge)?;
            let completed = self.invoker.refuse_over_quota(first, request, &spent);
            return Err(Refusal::Recorded(Box::new(completed)));
        }
        let head_read = self.clock.now();
        let purse = self.bodies.purse(&first.tenant);
        let (body, unread) = match whole::read(body, &parts.headers, limit, Some(purse)).await {
            Ok(body) => (body, None),
            Err(Unread::Broken(fault)) => return Err(fault.problem().into()),
            Err(unread) => (Bytes::new(), Some(unread)),
        };
        let entrance = if unread.is_none() {
            let (entrance, json) = self.look.at(entrance, &matched.functions, &parts.headers, &body).await;
            if entrance.first_open().is_none() {
                return Err(entrance.into_refusal().err().expect("each of them refuses").into());
            }
            json?;
            entrance
        } else {
            entrance
        };
        let first = first.clone();
        let functions = matched.functions.clone();
        let upload = self.clock.now().saturating_sub(head_read);
        let read = Read { body, upload };
        let tenant = first.tenant.clone();
        let request = self.request_of(tenant, matched, parts, read, time_given, Some(peer), edge)?;
        let completed = match unread {
            None | Some(Unread::Broken(_)) => return Ok(Admitted { functions, request, entrance }),
            Some(Unread::TooLarge) => self.invoker.refuse_body(first, request),
            Some(Unread::NoRoom) => self.invoker.refuse_for_room(first, request),
        };
        Err(Refusal::Recorded(Box::new(completed)))
    }

    /// Runs one function, whatever else its event type calls, on a request that is whole already.
    /// The answer is as if it had come through the listener, and so are its checks, but for who may
    /// call: that was asked on the way in, and `by` says who it is.
    pub(in crate::http) async fn invoke(
        &self,
        function: Arc<Deployed>,
        mut parts: Parts,
        body: Bytes,
        by: Arc<Value>,
    ) -> Response<GatewayBody> {
        let edge = Edge::of(&parts, self.clock.now());
        entrance::keep_keys_out(&mut parts.headers);
        match self.admit_whole(&function, parts, body, &edge) {
            Ok(mut request) => {
                Arc::make_mut(&mut request).auth = Some(by);
                let completed = self.invoker.call(function, request).await;
                edge.respond(completed, &self.clock, self.full_errors())
            }
            Err(Refusal::Unrouted(problem)) => edge.refuse(*problem, self.clock.now()),
            Err(Refusal::Recorded(completed)) => edge.respond(*completed, &self.clock, self.full_errors()),
        }
    }

    fn admit_whole(
        &self,
        function: &Arc<Deployed>,
        parts: Parts,
        body: Bytes,
        edge: &Edge,
    ) -> Result<Arc<Request>, Refusal> {
        let (verb, path) = (parts.method.as_str(), parts.uri.path());
        let own = Catalog::route_within(function, verb, path);
        let Route::Found(matched) =
            own.map_err(|error| Problem::new(Code::InvalidPath, error.to_string()).field("http_path"))?
        else {
            let events: Vec<_> = function.events.iter().map(ToString::to_string).collect();
            let detail =
                format!("{} answers {}, not http|{verb}|{path}", function.name, events.join(" and "));
            return Err(Problem::new(Code::Unprocessable, detail).field("http_path").into());
        };
        let time_given = intake::time_given(&parts.headers)?;
        let too_large = body.len() as u64 > function.settings.limits.body.as_u64();
        let mut purse = self.bodies.purse(&function.tenant);
        let has_room = purse.grow(body.len() as u64).is_ok();
        let body = purse.with(body);
        if !too_large {
            intake::check_json(&parts.headers, &body)?;
        }
        let read = Read { body, upload: Duration::ZERO };
        let tenant = function.tenant.clone();
        let request = self.request_of(tenant, matched, parts, read, time_given, None, edge)?;
        if too_large {
            let completed = self.invoker.refuse_body(function.clone(), request);
            return Err(Refusal::Recorded(Box::new(completed)));
        }
        if !has_room {
            let completed = self.invoker.refuse_for_room(function.clone(), request);
            return Err(Refusal::Recorded(Box::new(completed)));
        }
        Ok(request)
    }

    /// Whether error answers tell types, messages and near routes: by default only while all who
    /// can read them are one.
    fn full_errors(&self) -> bool {
        match self.errors {
            Detail::Always(full) => full,
            Detail::WithoutTenants => !self.access.has_named_tenants(),
        }
    }

    /// The request as functions and records get it.
    #[expect(clippy::too_many_arguments, reason = "each is a part of the request, read at its own time")]
    fn request_of(
        &self,
        tenant: Tenant,
        matched: Matched,
        parts: Parts,
        Read { body, upload }: Read,
        time_given: Option<Given>,
        peer: Option<Peer>,
        edge: &Edge,
    ) -> Result<Arc<Request>, Problem> {
        let path = Catalog::decoded_path(parts.uri.path())
            .map_err(|error| Problem::new(Code::InvalidPath, error.to_string()))?;
        // Between tenants nobody is anybody's parent, and who calls is not told.
        let is_own = peer.as_ref().is_none_or(|peer| peer.is_of(&tenant));
        let context = intake::trace(&parts.headers);
        let (trace, link) = if is_own { (context, None) } else { (None, context) };
        Ok(Arc::new(Request {
            event_type: matched.event_type,
            trigger: Trigger::Http,
            verb: parts.method.as_str().into(),
            path: path.into(),
            query: parts.uri.query().unwrap_or_default().into(),
            params: matched.params,
            body,
            correlation_id: edge.correlation_id.clone(),
            trace,
            link,
            time_given,
            criticality: intake::criticality(&parts.headers),
            caller: peer.as_ref().map_or(NO_PEER, |peer| self.caller(peer)),
            called_by: peer.filter(|_| is_own).and_then(Peer::into_function),
            tenant,
            arrived: edge.arrived,
            upload,
            headers: parts.headers,
            auth: None,
        }))
    }

    /// The route of a path that may have had a prefix, among what the visitor sees; `asked` is the
    /// path as it came.
    fn find(
        &self,
        of: &Addressee,
        visitor: &Visitor<'_>,
        parts: &Parts,
        asked: &str,
    ) -> Result<Matched, Problem> {
        let (verb, raw_path) = (parts.method.as_str(), parts.uri.path());
        let route = match of {
            Addressee::Tenant(tenant) => {
                self.catalog.route_seen(tenant, verb, raw_path, || visitor.sight(tenant))
            }
            Addressee::Nobody => Catalog::decoded_path(raw_path).map(|_| Route::Nothing { near: Vec::new() }),
        };
        match route.map_err(|error| Problem::new(Code::InvalidPath, error.to_string()))? {
            Route::Found(matched) => Ok(matched),
            Route::OtherVerbs(verbs) => {
                let allow = verbs.join(", ");
                let detail = format!("{asked} answers {allow}, not {verb}");
                Err(Problem::new(Code::MethodNotAllowed, detail).header(ALLOW, &allow))
            }
            Route::Nothing { near } => {
                let problem = Problem::new(Code::NoRoute, format!("no function answers http|{verb}|{asked}"));
                Err(if self.full_errors() && !near.is_empty() {
                    problem.extra("near", near)
                } else {
                    problem
                })
            }
        }
    }

    /// Whom the queues are fair between: functions where they are known, else addresses.
    fn caller(&self, peer: &Peer) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        match peer {
            Peer::Function { tenant, function } => (tenant, function).hash(&mut hasher),
            Peer::Address(address) => match address.ip() {
                std::net::IpAddr::V4(ip) => hasher.write(&ip.octets()),
                std::net::IpAddr::V6(ip) => hasher.write(&ip.octets()),
            },
        }
        hasher.finish()
    }

    async fn run(&self, admitted: Admitted, edge: Edge) -> Response<GatewayBody> {
        let Admitted { functions, request, entrance } = admitted;
        for (place, other) in functions.iter().enumerate().skip(1) {
            let Some(request) = entrance.request(place, request.clone()) else { continue };
            // The body was read up to the limit of the first that lets its caller in.
            if request.body.len() as u64 > other.settings.limits.body.as_u64() {
                self.invoker.refuse_body(other.clone(), request);
                continue;
            }
            let (invoker, other) = (self.invoker.clone(), other.clone());
            self.others.spawn(async move {
                let mut completed = invoker.call(other, request).await;
                if let Reply::Stream { pieces, .. } = &mut completed.reply {
                    while let Some(Ok(_)) = pieces.recv().await {}
                }
            });
        }
        let entrance = match entrance.into_refusal() {
            Ok(entrance) => entrance,
            Err(problem) => return edge.refuse(problem, self.clock.now()),
        };
        let request = entrance.request(0, request).expect("the first does not refuse");
        let completed = self.invoker.call(functions[0].clone(), request).await;
        edge.respond(completed, &self.clock, self.full_errors())
    }
}

/// A request that functions are to run.
struct Admitted {
    /// Those of its event type.
    functions: Arc<[Arc<Deployed>]>,
    request: Arc<Request>,
    /// Which of them let its caller in.
    entrance: Entrance,
}

/// How much error answers tell.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Detail {
    /// Everything, or what is safe.
    Always(bool),
    /// Everything until there are named tenants.
    WithoutTenants,
}

/// Who asks, by the connection that it came on: nothing in a request can change it.
#[derive(Debug, Clone)]
pub(crate) enum Peer {
    /// Whoever reaches the gateway from there.
    Address(SocketAddr),
    /// A worker of that function: the connection came from inside its own network.
    Function {
        /// Whose it is.
        tenant: Tenant,
        /// Which.
        function: FunctionName,
    },
}

impl Peer {
    /// Whose functions it means when it names no tenant; a stranger the operator's.
    fn tenant(&self) -> Tenant {
        match self {
            Self::Address(_) => Tenant::default(),
            Self::Function { tenant, .. } => tenant.clone(),
        }
    }

    /// Whether it is known to be a function of the tenant.
    fn is_function_of(&self, tenant: &Tenant) -> bool {
        matches!(self, Self::Function { tenant: own, .. } if own == tenant)
    }

    /// Whether it is not known to be another tenant's.
    fn is_of(&self, tenant: &Tenant) -> bool {
        match self {
            Self::Address(_) => true,
            Self::Function { tenant: own, .. } => own == tenant,
        }
    }

    fn into_function(self) -> Option<FunctionName> {
        match self {
            Self::Address(_) => None,
            Self::Function { function, .. } => Some(function),
        }
    }
}

/// A body that is whole, and how long that took.
struct Read {
    body: Bytes,
    upload: Duration,
}

impl Read {
    fn nothing() -> Self {
        Self { body: Bytes::new(), upload: Duration::ZERO }
    }
}

/// Why no worker is asked.
enum Refusal {
    /// There is no invocation to speak of.
    Unrouted(Box<Problem>),
    /// It is on the function's record.
    Recorded(Box<Completed>),
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        Self::Unrouted(Box::new(problem))
    }
}

/// A refusal while the caller may still be sending: what it sends is read and dropped for a
/// while, so that the answer reaches it instead of a reset connection.
fn refuse_reading(problem: Problem, body: Upload) -> Problem {
    if !body.is_end_stream() {
        tokio::spawn(whole::discard(body));
    }
    problem
}

/// What stands for the address of a caller that came through the management API.
const NO_PEER: u64 = 0;
