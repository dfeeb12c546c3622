//! A server that gives the answers it was told to and remembers what it was asked: the
//! management API (and the gateway) as far as a client can see them.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// One canned answer.
pub(crate) struct Canned {
    /// `GET /functions`.
    pub(crate) request: String,
    pub(crate) status: u16,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

/// Shorthand for a JSON answer with status 200.
pub(crate) fn ok(request: &str, body: &str) -> Canned {
    answer(request, 200, "application/json", body)
}

/// Shorthand for a problem document.
pub(crate) fn problem(request: &str, status: u16, body: &str) -> Canned {
    answer(request, status, "application/problem+json", body)
}

/// Any answer.
pub(crate) fn answer(request: &str, status: u16, content_type: &'static str, body: &str) -> Canned {
    Canned { request: request.into(), status, content_type, body: body.into() }
}

/// What a client sent.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) line: String,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Seen {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("the request's body is JSON")
    }
}

struct Script {
    answers: Vec<Canned>,
    own_address: SocketAddr,
    seen: Mutex<Vec<Seen>>,
}

/// The running stub; it ends with its runtime when dropped.
pub(crate) struct Stub {
    script: Arc<Script>,
    _runtime: tokio::runtime::Runtime,
}

impl Stub {
    /// Starts on a free port. `GATEWAY` in an answer becomes the stub's own address.
    pub(crate) fn start(answers: impl IntoIterator<Item = Canned>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let own_address = listener.local_addr().expect("bound");
        let answers = answers.into_iter().collect();
        let script = Arc::new(Script { answers, own_address, seen: Mutex::default() });
        let served = Arc::clone(&script);
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let script = Arc::clone(&served);
                let service = service_fn(move |request| serve(Arc::clone(&script), request));
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { script, _runtime: runtime }
    }

    /// Its address.
    pub(crate) fn uri(&self) -> String {
        format!("http://{}", self.script.own_address)
    }

    /// Runs the program against this stub.
    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        let ran = run(command().env("FUNCTIONSPLATFORM_URI", self.uri()).args(arguments));
        let hide = |text: String| text.replace(&self.script.own_address.to_string(), "STUB");
        Ran { stdout: hide(ran.stdout), stderr: hide(ran.stderr), ..ran }
    }

    /// What the clients sent so far.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.script.seen.lock().expect("no panic in the stub").clone()
    }

    /// The last thing a client sent.
    pub(crate) fn last(&self) -> Seen {
        self.seen().pop().expect("a request came")
    }
}

async fn serve(script: Arc<Script>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let line = format!("{} {}", head.method, head.uri);
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let canned = script.answers.iter().find(|canned| canned.request == line);
    let (status, content_type, answer) = match canned {
        Some(canned) => (canned.status, canned.content_type, canned.body.clone()),
        None => {
            (404, "application/problem+json", format!(r#"{{"title":"Not in the script","detail":"{line}"}}"#))
        }
    };
    script.seen.lock().expect("no panic").push(Seen { line, headers: head.headers, body });
    let answer = answer.replace("GATEWAY", &script.own_address.to_string());
    let response = Response::builder().status(status).header("content-type", content_type);
    Ok(response.body(Full::new(Bytes::from(answer))).expect("the script is well-formed"))
}

/// The program with an empty environment.
pub(crate) fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_functionsplatform"));
    command.env_clear();
    command
}

/// How a run of the program ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) exit: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.exit, self.stdout, self.stderr)
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ran {
    let output = command.stdin(std::process::Stdio::null()).output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ran {
        exit: output.status.code().expect("it was not killed"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
