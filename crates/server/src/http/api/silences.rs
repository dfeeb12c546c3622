//! Silences: alerts of which nobody is told for a while.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use fp_core::code::Code;
use fp_core::slo::{Indicator, Severity, Silence};
use fp_core::{FunctionName, Scope};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::UtoipaMethodRouter;
use utoipa_axum::routes;

use super::extract::{Answer, ApiJson, TextPath, no_function};
use super::time::rfc3339;
use crate::access::AccessError;
use crate::app::App;
use crate::http::caller::{Caller, refused};
use crate::http::openapi;
use crate::http::problem::Problem;
use crate::slo::SilenceRecord;

/// Longest reason, in characters.
const MOST_REASON: usize = 500;

pub(super) fn routes() -> [UtoipaMethodRouter<Arc<App>>; 2] {
    [routes!(list_silences, create_silence), routes!(end_silence)]
}

/// A silence.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Silence)]
struct SilenceView {
    /// Unique within the tenant.
    #[schema(example = "3f2a9c01d4e5b677")]
    id: String,
    /// Of this function's alerts; null for every one's.
    function: Option<String>,
    /// `availability` or `latency`; null for both.
    objective: Option<&'static str>,
    /// `page` or `ticket`; null for both.
    severity: Option<&'static str>,
    /// Why, in its maker's words.
    reason: String,
    /// When it was made.
    #[schema(format = DateTime)]
    created_at: String,
    /// When it ends.
    #[schema(format = DateTime)]
    ends_at: String,
}

impl From<SilenceRecord> for SilenceView {
    fn from(record: SilenceRecord) -> Self {
        let Silence { function, objective, severity, ends_us } = record.silence;
        Self {
            id: record.id,
            function: function.map(|name| name.to_string()),
            objective: objective.map(Indicator::word),
            severity: severity.map(Severity::word),
            reason: record.reason,
            created_at: rfc3339(record.created_us),
            ends_at: rfc3339(ends_us),
        }
    }
}

/// Silences that hold, the newest first.
#[derive(Debug, Serialize, ToSchema)]
struct SilencePage {
    /// All of them.
    items: Vec<SilenceView>,
    /// Always null: the list is complete.
    #[schema(value_type = Option<String>)]
    next: Option<()>,
}

/// Which alerts nobody is to be told of, and for how long. What is left out is not asked for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewSilence {
    /// Of this function's alerts.
    #[schema(pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$", example = "cats")]
    function: Option<String>,
    /// `availability` or `latency`.
    #[schema(pattern = "^(availability|latency)$", example = "latency")]
    objective: Option<String>,
    /// `page` or `ticket`.
    #[schema(pattern = "^(page|ticket)$", example = "page")]
    severity: Option<String>,
    /// How long, from now on.
    #[serde(rename = "for")]
    #[schema(pattern = "^[1-9][0-9]{0,3}(s|m|h|d)$", example = "2h")]
    lasts: String,
    /// Why: who looks at it in the night wants to know.
    #[schema(max_length = 500, example = "the database moves")]
    reason: Option<String>,
}

impl NewSilence {
    fn wrong(field: &'static str, detail: &str) -> Problem {
        Problem::new(Code::Unprocessable, detail.to_owned()).field(field)
    }

    fn read(&self, now_us: u64) -> Result<Silence, Problem> {
        let name = self.function.as_ref().map(|name| name.parse::<FunctionName>()).transpose();
        let function = name.map_err(|error| Self::wrong("function", &error.to_string()))?;
        let objective = match self.objective.as_deref() {
            None => None,
            Some("availability") => Some(Indicator::Availability),
            Some("latency") => Some(Indicator::Latency),
            Some(_) => return Err(Self::wrong("objective", "objective is neither availability nor latency")),
        };
        let severity = match self.severity.as_deref() {
            None => None,
            Some("page") => Some(Severity::Page),
            Some("ticket") => Some(Severity::Ticket),
            Some(_) => return Err(Self::wrong("severity", "severity is neither page nor ticket")),
        };
        let lasts = time_of(&self.lasts)
            .ok_or_else(|| Self::wrong("for", "for is a time such as 30m, 2h or 1d, above 0"))?;
        let ends_us = now_us + lasts.as_micros() as u64;
        Ok(Silence { function, objective, severity, ends_us })
    }
}

/// A number with its unit, as the schema has it.
fn time_of(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    let is_number = (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok().filter(|number| is_number && *number > 0)?;
    (!text.starts_with('0')).then(|| Duration::from_secs(number * seconds))
}

/// List the silences that hold.
#[utoipa::path(
    get,
    path = "/slo/silences",
    tag = "slo",
    responses((status = 200, description = "The silences", body = SilencePage))
)]
async fn list_silences(State(app): State<Arc<App>>, caller: Caller) -> Result<Answer<SilencePage>, Problem> {
    caller.require(Scope::Read)?;
    let items = app.slo.silences(&caller.tenant).into_iter().map(SilenceView::from).collect();
    Ok(Answer(SilencePage { items, next: None }))
}

/// Silence alerts for a while.
///
/// They begin, end and are listed as ever; nobody is told. What still fires when the silence ends is told then.
#[utoipa::path(
    post,
    path = "/slo/silences",
    tag = "slo",
    request_body = NewSilence,
    responses(
        (status = 200, description = "It holds from now on", body = SilenceView),
        (status = 404, description = "There is no such function"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn create_silence(
    State(app): State<Arc<App>>,
    caller: Caller,
    ApiJson(body): ApiJson<NewSilence>,
) -> Result<Answer<SilenceView>, Problem> {
    caller.require(Scope::Deploy)?;
    let silence = body.read(app.clock.wall_now_us())?;
    if let Some(name) = &silence.function
        && app.catalog.get(&caller.tenant, name).is_none()
    {
        return Err(no_function(name.as_str()));
    }
    let reason = body.reason.unwrap_or_default();
    if reason.chars().count() > MOST_REASON {
        return Err(NewSilence::wrong("reason", "reason is longer than 500 characters"));
    }
    let kept = app.slo.silence(&caller.tenant, silence, reason).await;
    let record = kept.map_err(|error| refused(AccessError::Store(error)))?;
    caller.acted_on("silence", &record.id);
    Ok(Answer(record.into()))
}

/// A silence that was ended.
#[derive(Debug, Serialize, ToSchema)]
struct EndedSilence {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
    /// Its id.
    id: String,
}

/// End a silence before its time.
#[utoipa::path(
    delete,
    path = "/slo/silences/{id}",
    tag = "slo",
    params(openapi::SilenceParam),
    responses(
        (status = 200, description = "Ended", body = EndedSilence),
        (status = 415, description = "A body came along, with a content type that is not accepted"),
        (status = 507, description = "The disk is full"),
    )
)]
async fn end_silence(
    State(app): State<Arc<App>>,
    caller: Caller,
    TextPath(id): TextPath,
) -> Result<Answer<EndedSilence>, Problem> {
    caller.require(Scope::Deploy)?;
    match app.slo.end_silence(&caller.tenant, &id).await {
        Ok(true) => Ok(Answer(EndedSilence { status: "ok", id })),
        Ok(false) => Err(Problem::new(Code::NotFound, format!("no silence has the id {id:?}"))),
        Err(error) => Err(refused(AccessError::Store(error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_with_a_unit() {
        assert_eq!(time_of("90m"), Some(Duration::from_secs(5_400)));
        assert_eq!(time_of("9999d"), Some(Duration::from_secs(9_999 * 86_400)));
        for wrong in ["", "h", "0h", "01h", "10000s", "1.5h", "-1h", "1w", "2 h", "1h ", "１h", "hé"] {
            assert_eq!(time_of(wrong), None, "{wrong:?}");
        }
    }
}
