//! Webhooks: one signed request for each beginning and end, repeated until it is taken.
//!
//! The headers and the signature are those of Standard Webhooks (standardwebhooks.com, 1.0): HMAC-SHA256
//! with the shared secret over `id.timestamp.body`, so that receivers check it with a library.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::StatusCode;
use serde_json::json;

use super::{GIVE_UP, Notifier, Refusal, Told, word};
use crate::config::NotifyTo;
use crate::slo::Notice;

/// Between the first two attempts; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// And at most: a receiver that comes back is told within five minutes.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// Tells all that want to know, beside each other; returns when each has taken it or was given up.
pub(super) async fn tell(notifier: &Notifier, notice: &Notice, id: &str) {
    let wanted = notifier.webhooks.iter().filter(|told| told.wants(notice.alert.severity));
    let body = Bytes::from(body(notifier, notice, id));
    let tasks: Vec<_> = wanted
        .map(|told| {
            let (told, id, body, clock) = (told.clone(), id.to_owned(), body.clone(), notifier.clock.clone());
            tokio::spawn(async move { deliver(&told, &id, body, || clock.wall_now_us() / 1_000_000).await })
        })
        .collect();
    for task in tasks {
        let _ = task.await;
    }
}

fn body(notifier: &Notifier, notice: &Notice, id: &str) -> Vec<u8> {
    let alert = (notifier.document)(notice.alert.clone());
    let document = json!({
        "type": word(notice.happened),
        "id": id,
        "tenant": notice.tenant.as_str(),
        "url": notifier.page_of(&notice.alert),
        "alert": alert,
    });
    serde_json::to_vec(&document).expect("a document has string keys only")
}

async fn deliver(told: &Arc<Told>, id: &str, body: Bytes, unix_seconds: impl Fn() -> u64) {
    let began = tokio::time::Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let headers = headers(told, id, unix_seconds(), &body);
        let result = told.post(told.target.path(), &headers, body.clone()).await;
        told.note(&result);
        let Err(why) = result else { return };
        let name = &told.config.name;
        if is_final(&why) || began.elapsed() + pause > GIVE_UP {
            return tracing::error!(to = name, notice = id, "a notification is given up: {why}");
        }
        tracing::warn!(to = name, notice = id, "a notification was not taken and is repeated: {why}");
        // Receivers that come back are not to be called by all at once.
        tokio::time::sleep(pause.mul_f64(0.75 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Whether the same would be refused again.
fn is_final(why: &Refusal) -> bool {
    let waits = [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_EARLY, StatusCode::TOO_MANY_REQUESTS];
    matches!(why, Refusal::Status(status) if status.is_client_error() && !waits.contains(status))
}

fn headers(told: &Told, id: &str, timestamp: u64, body: &[u8]) -> Vec<(&'static str, String)> {
    let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", timestamp.to_string())];
    if let NotifyTo::Webhook { secret: Some(secret), .. } = &told.config.to {
        headers.push(("webhook-signature", signature(secret.key(), id, timestamp, body)));
    }
    headers
}

fn signature(key: &[u8], id: &str, timestamp: u64, body: &[u8]) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key);
    let mut signing = ring::hmac::Context::with_key(&key);
    signing.update(format!("{id}.{timestamp}.").as_bytes());
    signing.update(body);
    format!("v1,{}", STANDARD.encode(signing.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::WebhookSecret;

    /// The example of the specification's own libraries.
    #[test]
    fn the_signature_is_that_of_standard_webhooks() {
        let secret = WebhookSecret::of("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = signature(
            secret.key(),
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            br#"{"test": 2432232314}"#,
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert_eq!(WebhookSecret::of("plain text").key(), b"plain text");
    }

    #[test]
    fn what_would_be_refused_again_is_not_repeated() {
        let status = |code| Refusal::Status(StatusCode::from_u16(code).expect("a status"));
        assert!([400, 401, 404, 410].into_iter().all(|code| is_final(&status(code))));
        assert!([302, 408, 425, 429, 500, 503].into_iter().all(|code| !is_final(&status(code))));
        assert!(!is_final(&Refusal::Late));
    }
}
