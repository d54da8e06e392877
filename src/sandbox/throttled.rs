//! What a refusal by a rate limit looks like; the service's is not documented, so settings choose.

use axum::http::HeaderValue;

use super::json::civil;
use super::limits::Standing;

/// The body of a 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RateLimitBody {
    /// An error object.
    #[default]
    Json,
    /// A page, as a proxy in between sends it.
    Html,
    /// Nothing.
    Empty,
}

/// The `Retry-After` of a 429.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RetryAfter {
    /// None.
    #[default]
    Absent,
    /// 0 seconds.
    Zero,
    /// The seconds until the window ends.
    Seconds,
    /// Ten years.
    Absurd,
    /// The end of the window as a date.
    HttpDate,
}

const HTML: &str =
    "<html>\n<head><title>429 Too Many Requests</title></head>\n<body><h1>Too Many Requests</h1></body>\n</html>\n";

impl RateLimitBody {
    /// Returns the body, given the one of an error object, and its type.
    pub(super) fn write(self, error: Vec<u8>) -> (Vec<u8>, &'static str) {
        match self {
            Self::Json => (error, super::server::JSON),
            Self::Html => (HTML.as_bytes().to_vec(), "text/html"),
            Self::Empty => (Vec::new(), super::server::JSON),
        }
    }
}

impl RetryAfter {
    /// Returns the header's value.
    pub(super) fn header(self, standing: Standing, now_ms: i64) -> Option<HeaderValue> {
        match self {
            Self::Absent => None,
            Self::Zero => Some(0.into()),
            Self::Seconds => Some((standing.reset_s - now_ms.div_euclid(1000)).max(1).into()),
            Self::Absurd => Some(315_360_000.into()),
            Self::HttpDate => HeaderValue::from_str(&http_date(standing.reset_s)).ok(),
        }
    }
}

/// Writes an instant as HTTP does: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub(super) fn http_date(seconds: i64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    let (weekday, month) = (DAYS[days.rem_euclid(7) as usize], MONTHS[month as usize - 1]);
    format!("{weekday}, {day:02} {month} {year} {:02}:{:02}:{:02} GMT", of_day / 3600, of_day / 60 % 60, of_day % 60)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::sandbox::SandboxSettings;
    use crate::sandbox::tests::{generous, rig};

    #[test]
    fn dates_are_those_of_http() {
        assert_eq!(http_date(784_111_777), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
    }

    #[tokio::test]
    async fn refusals_look_as_the_settings_say() {
        for (rate_limit_body, retry_after, rate_limit_headers, expected) in [
            (RateLimitBody::Json, RetryAfter::Absent, true, None),
            (RateLimitBody::Html, RetryAfter::Zero, true, Some("0")),
            (RateLimitBody::Empty, RetryAfter::Seconds, false, Some("23")),
            (RateLimitBody::Json, RetryAfter::Absurd, false, Some("315360000")),
            (RateLimitBody::Json, RetryAfter::HttpDate, false, Some("Sun, 22 Nov 2026 12:00:23 GMT")),
        ] {
            let settings =
                SandboxSettings { search_rpm: 0, rate_limit_body, retry_after, rate_limit_headers, ..generous(10) };
            let rig = rig(settings).await;
            let refused = rig.search("", &json!({})).await;
            assert_eq!(refused.status, 429);
            assert_eq!(refused.headers.get("retry-after").map(|value| value.to_str().unwrap()), expected);
            assert_eq!(refused.headers.contains_key("x-ratelimit-reset"), rate_limit_headers);
            assert_eq!(refused.body == Value::Null, rate_limit_body != RateLimitBody::Json);
            let html = refused.headers["content-type"].to_str().unwrap().contains("html");
            assert_eq!(html, rate_limit_body == RateLimitBody::Html);
            let good = rig.get("/v1/tags").await;
            assert_eq!((good.status, good.headers.contains_key("retry-after")), (200, false));
        }
    }
}
