//! Open WebUI's signed user token, `X-OpenWebUI-User-Jwt`: HS256 with `sub`, `email`, `name`,
//! `role`, `iss`, `iat` and `exp`, minted for each request (seen in Open WebUI 0.12.4).

use std::time::{SystemTime, UNIX_EPOCH};

use http::StatusCode;
use jsonwebtoken::{
    Algorithm, DecodingKey, TokenData, Validation, decode,
    errors::{Error, ErrorKind},
};
use serde::{Deserialize, de::IgnoredAny};

use super::{
    Identity, Source,
    claim::{shown, user_id},
};
use crate::{error::Refusal, secret::Secret};

/// What a token must satisfy.
pub(super) struct Rules<'a> {
    /// Any of these may have signed it.
    pub(super) secrets: &'a [Secret],
    /// The required `iss`.
    pub(super) issuer: &'a str,
    /// How far clocks may differ, in seconds.
    pub(super) leeway: u64,
}

impl Rules<'_> {
    /// Reads the user from `token` at the time of `now`. 400 for a token beyond 8 KiB, else 401.
    pub(super) fn check(&self, token: &[u8], now: SystemTime) -> Result<Identity, Refusal> {
        if token.len() > TOKEN_BYTES {
            return Err(Refusal::bad_request(
                "user_token_too_large",
                "The user token in `X-OpenWebUI-User-Jwt` is longer than 8 KiB.",
            ));
        }
        let TokenData { header, claims } = self.verify(token).map_err(|e| invalid(cause(&e)))?;
        // RFC 7515, 4.1.11: what is critical must be understood, and we understand nothing.
        if header.crit.is_some() {
            return Err(invalid("it has critical header parameters"));
        }
        self.in_time(&claims, now)?;
        // RFC 7519, 4.1.3: a token for an audience is for somebody else.
        if claims.aud.is_some() {
            return Err(invalid("it is meant for another audience"));
        }
        let user = user_id(&claims.sub).map_err(|fault| invalid(&format!("`sub` {}", fault.0)))?;
        Ok(Identity {
            user: user.to_owned(),
            source: Source::Jwt,
            name: claims.name.as_deref().and_then(shown),
            email: claims.email.as_deref().and_then(shown),
            role: claims.role.as_deref().and_then(shown),
        })
    }

    /// Checks algorithm, signature, issuer and presence. Times are [`Self::in_time`]'s, because
    /// the library can only take them from its own clock.
    fn verify(&self, token: &[u8]) -> Result<TokenData<Claims>, Error> {
        let mut rules = Validation::new(Algorithm::HS256);
        rules.validate_exp = false;
        rules.validate_aud = false;
        rules.set_required_spec_claims(&["exp", "iss", "sub"]);
        rules.set_issuer(&[self.issuer]);
        // The configuration refuses short secrets. Should one come in by another way, it is void.
        let secrets = self.secrets.iter().filter(|secret| secret.expose().len() >= SECRET_BYTES);
        let mut found = Err(ErrorKind::InvalidSignature.into());
        for secret in secrets {
            let key = DecodingKey::from_secret(secret.expose().as_bytes());
            found = found.or_else(|_: Error| decode(token, &key, &rules));
        }
        found
    }

    fn in_time(&self, claims: &Claims, now: SystemTime) -> Result<(), Refusal> {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let latest = now.saturating_add(self.leeway);
        if now > claims.exp.saturating_add(self.leeway) {
            return Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "expired_user_token",
                "The user token in `X-OpenWebUI-User-Jwt` has expired. Check that the clocks of \
                 Open WebUI and of the gateway agree.",
            ));
        }
        if claims.iat.max(claims.nbf).is_some_and(|from| from > latest) {
            return Err(invalid("it comes from the future"));
        }
        Ok(())
    }
}

/// The members we read; others are ignored, and so are header parameters such as `kid` and `jku`.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
    // Declared so that a list of issuers does not pass.
    #[serde(rename = "iss")]
    _iss: String,
    iat: Option<u64>,
    nbf: Option<u64>,
    aud: Option<IgnoredAny>,
    name: Option<String>,
    email: Option<String>,
    role: Option<String>,
}

fn invalid(cause: &str) -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "invalid_user_token",
        "The user token in `X-OpenWebUI-User-Jwt` is not valid. Check that Open WebUI's \
         `FORWARD_USER_INFO_HEADER_JWT_SECRET` and issuer are those that the gateway knows.",
    )
    .because(format!("security: the user token was refused: {cause}"))
}

/// A word for the log; the library's own text can quote the token.
fn cause(error: &Error) -> &'static str {
    match error.kind() {
        ErrorKind::InvalidSignature => "none of the secrets signed it",
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => "it is not HS256",
        ErrorKind::InvalidIssuer => "another issuer",
        ErrorKind::MissingRequiredClaim(_) => "`sub`, `iss` or `exp` is missing",
        _ => "it cannot be read",
    }
}

const TOKEN_BYTES: usize = 8 * 1024;
const SECRET_BYTES: usize = 32;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
    use jsonwebtoken::{EncodingKey, crypto::sign};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "an-old-secret-of-at-least-32-bytes";
    const NEXT: &str = "the-next-secret-of-at-least-32-byte";
    const NOW: u64 = 1_800_000_000;

    fn claims() -> Value {
        json!({"sub": "alice", "iss": "open-webui", "iat": NOW - 1, "exp": NOW + 299,
            "name": "Alice", "email": "alice@example.test", "role": "user"})
    }

    fn with(name: &str, value: Value) -> Value {
        let mut claims = claims();
        claims[name] = value;
        claims
    }

    fn without(name: &str) -> Value {
        let mut claims = claims();
        claims.as_object_mut().unwrap().remove(name);
        claims
    }

    fn signed(header: &str, claims: &str, secret: &str, algorithm: Algorithm) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        let message = format!("{}.{}", encode(header), encode(claims));
        let key = EncodingKey::from_secret(secret.as_bytes());
        format!("{message}.{}", sign(message.as_bytes(), &key, algorithm).unwrap())
    }

    fn token(header: &Value, claims: &Value) -> String {
        signed(&header.to_string(), &claims.to_string(), SECRET, Algorithm::HS256)
    }

    fn hs256(claims: &Value) -> String {
        token(&json!({"typ": "JWT", "alg": "HS256"}), claims)
    }

    fn check(token: &str) -> Result<Identity, Refusal> {
        check_with(&[SECRET, NEXT], token)
    }

    fn check_with(secrets: &[&str], token: &str) -> Result<Identity, Refusal> {
        let secrets: Vec<_> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
        Rules { secrets: &secrets, issuer: "open-webui", leeway: 60 }
            .check(token.as_bytes(), UNIX_EPOCH + Duration::from_secs(NOW))
    }

    #[test]
    fn a_token_of_either_secret_names_the_user() {
        for secret in [SECRET, NEXT] {
            let token =
                signed(r#"{"alg":"HS256"}"#, &claims().to_string(), secret, Algorithm::HS256);
            let identity = check(&token).unwrap();
            assert_eq!((identity.user.as_str(), identity.source), ("alice", Source::Jwt));
            assert_eq!(identity.is_admin(), Some(false));
        }
    }

    #[test]
    fn clocks_may_differ_by_the_leeway_and_no_more() {
        assert!(check(&hs256(&with("exp", json!(NOW - 60)))).is_ok());
        assert!(check(&hs256(&with("iat", json!(NOW + 60)))).is_ok());
        let late = check(&hs256(&with("exp", json!(NOW - 61)))).unwrap_err();
        assert_eq!((late.status.as_u16(), late.code), (401, "expired_user_token"));
        let early = check(&hs256(&with("iat", json!(NOW + 61)))).unwrap_err();
        assert_eq!((early.status.as_u16(), early.code), (401, "invalid_user_token"));
    }

    #[test]
    fn header_parameters_that_name_other_keys_are_ignored() {
        for (name, value) in [
            ("kid", json!("../../dev/null")),
            ("jku", json!("http://127.0.0.1/keys")),
            ("x5u", json!("http://127.0.0.1/cert")),
            ("jwk", json!({"kty": "oct", "k": "AAAA"})),
        ] {
            let mut header = json!({"alg": "HS256"});
            header[name] = value;
            assert_eq!(check(&token(&header, &claims())).unwrap().user, "alice", "{name}");
        }
    }

    #[test]
    fn no_forged_token_passes() {
        let good = hs256(&claims());
        let (head, rest) = good.split_once('.').unwrap();
        let (body, signature) = rest.split_once('.').unwrap();
        let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
        let mallory = URL_SAFE_NO_PAD.encode(with("sub", json!("mallory")).to_string());
        let text = claims().to_string();
        let alg = |name: &str| token(&json!({"alg": name}), &claims());
        let twice = |member: &str| {
            let text = format!("{{{member},{}", &text[1..]);
            signed(r#"{"alg":"HS256"}"#, &text, SECRET, Algorithm::HS256)
        };
        let forged = [
            ("nothing", String::new()),
            ("dots", "..".into()),
            ("words", "not a token".into()),
            ("two parts", format!("{head}.{body}")),
            ("four parts", format!("{good}.{signature}")),
            ("no signature", format!("{head}.{body}.")),
            ("another body", format!("{head}.{mallory}.{signature}")),
            ("none", format!("{none}.{body}.")),
            ("none with a signature", format!("{none}.{body}.{signature}")),
            ("None", alg("None")),
            ("hs256", alg("hs256")),
            ("HS384 by name", alg("HS384")),
            ("RS256 by name", alg("RS256")),
            ("ES256 by name", alg("ES256")),
            ("EdDSA by name", alg("EdDSA")),
            ("HS384", signed(r#"{"alg":"HS384"}"#, &text, SECRET, Algorithm::HS384)),
            ("HS512", signed(r#"{"alg":"HS512"}"#, &text, SECRET, Algorithm::HS512)),
            ("no algorithm", token(&json!({"typ": "JWT"}), &claims())),
            ("two algorithms", {
                let header = r#"{"alg":"HS256","alg":"none"}"#;
                signed(header, &text, SECRET, Algorithm::HS256)
            }),
            ("critical", token(&json!({"alg": "HS256", "crit": ["exp"]}), &claims())),
            ("empty secret", signed(r#"{"alg":"HS256"}"#, &text, "", Algorithm::HS256)),
            ("another secret", signed(r#"{"alg":"HS256"}"#, &text, "other", Algorithm::HS256)),
            ("another issuer", hs256(&with("iss", json!("open-persona-filter")))),
            ("a list of issuers", hs256(&with("iss", json!(["open-webui"])))),
            ("no issuer", hs256(&without("iss"))),
            ("no expiry", hs256(&without("exp"))),
            ("expiry null", hs256(&with("exp", Value::Null))),
            ("expiry as text", hs256(&with("exp", json!("9999999999")))),
            ("expiry below zero", hs256(&with("exp", json!(-1)))),
            ("expired long ago", hs256(&with("exp", json!(0)))),
            ("issued in a year", hs256(&with("iat", json!(NOW + 31_536_000)))),
            ("not yet valid", hs256(&with("nbf", json!(NOW + 3600)))),
            ("for another audience", hs256(&with("aud", json!("open-persona-gateway")))),
            ("for no audience", hs256(&with("aud", json!([])))),
            ("no user", hs256(&without("sub"))),
            ("user empty", hs256(&with("sub", json!("")))),
            ("user a number", hs256(&with("sub", json!(7)))),
            ("user with a line break", hs256(&with("sub", json!("alice\n")))),
            ("user too long", hs256(&with("sub", json!("a".repeat(513))))),
            ("two users", twice(r#""sub":"mallory""#)),
            ("a list", signed(r#"{"alg":"HS256"}"#, "[]", SECRET, Algorithm::HS256)),
            ("padded", format!("{good}=")),
            ("joined", format!("{good},{good}")),
        ];
        for (name, token) in forged {
            let refusal = check(&token).expect_err(name);
            assert_eq!(refusal.status, 401, "{name}: {refusal:?}");
            assert!(!refusal.cause.contains("alice"), "{name}: {refusal:?}");
        }
        assert_eq!(check(&good).unwrap().user, "alice");
    }

    #[test]
    fn a_short_secret_signs_nothing() {
        let short = "31-bytes-are-not-enough-to-sign";
        for secret in ["", short] {
            let token =
                signed(r#"{"alg":"HS256"}"#, &claims().to_string(), secret, Algorithm::HS256);
            assert_eq!(check_with(&[secret], &token).unwrap_err().status, 401, "{secret}");
        }
        assert_eq!(check_with(&[], &hs256(&claims())).unwrap_err().status, 401);
    }

    #[test]
    fn a_huge_token_is_not_even_read() {
        let huge = hs256(&with("name", json!("a".repeat(8192))));
        let refusal = check(&huge).unwrap_err();
        assert_eq!((refusal.status.as_u16(), refusal.code), (400, "user_token_too_large"));
    }
}
