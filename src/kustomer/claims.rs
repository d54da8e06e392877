//! What an API key says of itself: keys are JSON Web Tokens, whose claims can be read without their signature.
//!
//! The claims decide nothing here, they explain: when the key expires, which pod and which organisation it belongs to. A key
//! of another form has none. The token is never kept, and texts that do not look like names are dropped.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::secret::SecretString;

/// The claims that are of use to an operator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Claims {
    /// When the token expires; nothing when it does not.
    pub expires: Option<Timestamp>,
    /// The pod (region) that accepts it, e.g. `prod1`.
    pub pod: Option<String>,
    /// The organisation's name, as in its address.
    pub organisation: Option<String>,
    /// `machine` for an API key.
    pub user_type: Option<String>,
}

impl Claims {
    /// Reads the claims of a token; nothing when it is no JSON Web Token.
    #[must_use]
    pub fn of(token: &SecretString) -> Option<Self> {
        let mut parts = token.expose().trim().split('.');
        let (_, claims, _) = (parts.next()?, parts.next()?, parts.next()?);
        let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(claims.trim_end_matches('=')).ok()?);
        let claims: Value = serde_json::from_slice(&claims).ok()?;
        let name = |claim: &str| {
            let is_name = |text: &&str| {
                (1..=64).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
            };
            claims.get(claim).and_then(Value::as_str).filter(is_name).map(str::to_owned)
        };
        let expires = claims.get("exp").and_then(Value::as_f64);
        Some(Self {
            expires: expires.and_then(|seconds| Timestamp::from_second(seconds as i64).ok()),
            pod: name("pod"),
            organisation: name("orgName"),
            user_type: name("userType"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(claims: &str) -> SecretString {
        SecretString::new(format!("eyJhbGciOiJIUzI1NiJ9.{}.c2lnbmF0dXJl", URL_SAFE_NO_PAD.encode(claims)))
    }

    #[test]
    fn claims_are_read_and_what_is_no_name_is_dropped() {
        let claims = Claims::of(&token(
            r#"{"exp":1800000000,"pod":"prod2","orgName":"acme","userType":"machine","user":"5822","roles":["org"]}"#,
        ))
        .unwrap();
        assert_eq!(claims.expires, Timestamp::from_second(1_800_000_000).ok());
        assert_eq!(
            (claims.pod.as_deref(), claims.organisation.as_deref(), claims.user_type.as_deref()),
            (Some("prod2"), Some("acme"), Some("machine"))
        );
        let odd = Claims::of(&token(r#"{"pod":"prod 2\nok","orgName":"jane@example.com","exp":"soon"}"#)).unwrap();
        assert_eq!(odd, Claims::default());
    }

    #[test]
    fn key_of_another_form_has_no_claims() {
        for key in ["", "plain", "a.b", "a.b.c", "a.e30.c.d.e"] {
            let claims = Claims::of(&SecretString::new(key.to_owned()));
            assert!(claims.is_none_or(|claims| claims == Claims::default()), "{key}");
        }
    }
}
