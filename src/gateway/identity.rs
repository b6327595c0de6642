//! Credentials → [`Identity`]: who the user is comes from a trusted front end, a key of ours, or
//! nobody. What a client merely says about itself is never read here.

mod claim;
mod key;
#[cfg(test)]
mod recorded;
mod token;

use std::{net::IpAddr, sync::Arc, time::SystemTime};

use http::{
    HeaderMap, StatusCode,
    header::{AUTHORIZATION, HeaderName},
};

use crate::{
    config::{FrontEnd, IdentityRules, ToolStyle},
    error::Refusal,
};
use key::{Holder, bearer, holder};

/// The user we decided on, and why. Never what a client merely says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The user id: 1 to 512 bytes, as the front end gave it.
    pub user: String,
    /// Where it came from.
    pub source: Source,
    /// The user's name, when a front end said.
    pub name: Option<String>,
    /// The user's mail address, when a front end said.
    pub email: Option<String>,
    /// What a front end or the configuration calls the user's role, such as `admin` or `user`.
    pub role: Option<String>,
}

impl Identity {
    /// Whether the user is an admin; `None` when nobody said what the user is.
    pub fn is_admin(&self) -> Option<bool> {
        self.role.as_ref().map(|role| role == "admin")
    }

    /// An identity of which only the user id is known.
    fn bare(user: &str, source: Source) -> Self {
        Self { user: user.to_owned(), source, name: None, email: None, role: None }
    }
}

/// Where an identity came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A front end's signed token.
    Jwt,
    /// A front end's plain headers.
    Header,
    /// A key of ours.
    ApiKey,
    /// Development: the body's `user` member.
    Body,
    /// Development: nobody said.
    Anonymous,
}

impl Source {
    /// Its word in logs, files and headers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jwt => "jwt",
            Self::Header => "header",
            Self::ApiKey => "api_key",
            Self::Body => "body",
            Self::Anonymous => "anonymous",
        }
    }
}

/// Whoever sent the request, as far as its headers tell.
#[derive(Debug, Clone)]
pub enum Caller {
    /// The user is known.
    Known {
        /// The user.
        identity: Identity,
        /// The front end that vouches for the user; `None` for a key of ours.
        front_end: Option<Arc<FrontEnd>>,
        /// How tool activity is shown to this caller.
        tools: ToolStyle,
    },
    /// Development only: [`from_body`] decides, once the body has been read.
    Undecided,
}

impl Caller {
    /// The front end that vouches for the user, if one does.
    pub fn front_end(&self) -> Option<&FrontEnd> {
        match self {
            Self::Known { front_end, .. } => front_end.as_deref(),
            Self::Undecided => None,
        }
    }
}

/// Decides who calls, from the headers, the address of the peer and the time of `now`:
///
/// 1. the bearer key of a front end, from within its networks: the user it vouches for;
/// 2. a bearer key of ours: its user;
/// 3. in development, when no key was sent: [`Caller::Undecided`].
///
/// A key that is sent and matches nothing is refused in development too, except where no keys are
/// configured at all: OpenAI's libraries cannot be told to send none.
///
/// # Errors
/// 400 when a header that identifies is sent more than once or is unusable, else 401. An unknown
/// key and one that may not be used from `peer` get the same answer; the cause tells them apart.
pub fn decide(
    rules: &IdentityRules,
    headers: &HeaderMap,
    peer: Option<IpAddr>,
    now: SystemTime,
) -> Result<Caller, Refusal> {
    refuse_repeated(headers)?;
    let development = rules.body_user || rules.anonymous;
    let keyless = rules.front_ends.is_empty() && rules.api_keys.is_empty();
    let Some(authorization) = headers.get(AUTHORIZATION) else {
        return if development { Ok(Caller::Undecided) } else { Err(missing_key()) };
    };
    if development && keyless {
        return Ok(Caller::Undecided);
    }
    match holder(rules, bearer(authorization)?, peer)? {
        Holder::FrontEnd(front_end) => Ok(Caller::Known {
            identity: claim::of(front_end, headers, now)?,
            front_end: Some(Arc::clone(front_end)),
            tools: front_end.tools,
        }),
        Holder::User(key) => Ok(Caller::Known {
            identity: Identity {
                role: key.role.clone(),
                ..Identity::bare(&key.user, Source::ApiKey)
            },
            front_end: None,
            tools: key.tools,
        }),
    }
}

/// Decides who an undecided caller is: the body's `user` member if such identities are allowed and
/// there is one, else `anonymous` if that is allowed. An empty member counts as absent.
pub fn from_body(rules: &IdentityRules, user: Option<&str>) -> Result<Identity, Refusal> {
    match user.filter(|user| rules.body_user && !user.is_empty()) {
        Some(user) => claim::user_id(user)
            .map(|user| Identity::bare(user, Source::Body))
            .map_err(|fault| fault.refusal("The body's `user` member").param("user")),
        None if rules.anonymous => Ok(Identity::bare("anonymous", Source::Anonymous)),
        None if rules.body_user => Err(Refusal::new(
            StatusCode::UNAUTHORIZED,
            "missing_user",
            "Nobody said who you are. Name the user in the body's `user` member, or send \
             `Authorization: Bearer <key>` with a key of this gateway.",
        )
        .param("user")),
        None => Err(missing_key()),
    }
}

/// Refuses more than one value of any header that identifies, whoever sends it.
fn refuse_repeated(headers: &HeaderMap) -> Result<(), Refusal> {
    match SINGLE.iter().find(|name| headers.get_all(*name).iter().nth(1).is_some()) {
        Some(name) => Err(repeated(name)),
        None => Ok(()),
    }
}

fn repeated(name: &HeaderName) -> Refusal {
    Refusal::bad_request(
        "repeated_header",
        format!("The header `{name}` must have exactly one value. Send it once, without commas."),
    )
}

fn missing_key() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "missing_api_key",
        "No API key was sent. Send `Authorization: Bearer <key>` with a key of this gateway.",
    )
}

/// The headers that identify: none may have two values.
static SINGLE: [HeaderName; 6] =
    [AUTHORIZATION, claim::JWT, claim::USER_ID, claim::USER_NAME, claim::EMAIL, claim::ROLE];

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use http::HeaderValue;
    use sha2::{Digest, Sha256};

    use super::*;
    use crate::config::{ApiKey, KeyCheck, UserClaim};

    fn check(key: &str) -> KeyCheck {
        KeyCheck(Sha256::digest(key).into())
    }

    fn front_end(networks: &[&str]) -> Arc<FrontEnd> {
        Arc::new(FrontEnd {
            name: "webui".into(),
            key: check("front"),
            networks: networks.iter().map(|network| network.parse().unwrap()).collect(),
            user: UserClaim::Headers,
            tools: ToolStyle::Native,
            meta_headers: false,
            key_headers: true,
        })
    }

    fn rules(networks: &[&str]) -> IdentityRules {
        let key = |user: &str, key: &str| ApiKey {
            user: user.into(),
            key: check(key),
            role: None,
            tools: ToolStyle::None,
        };
        IdentityRules {
            front_ends: vec![front_end(networks)],
            api_keys: vec![key("carol", "carols"), key("mallory", "front")],
            ..IdentityRules::default()
        }
    }

    fn development() -> IdentityRules {
        IdentityRules { body_user: true, anonymous: true, ..IdentityRules::default() }
    }

    fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap())
        };
        lines.iter().fold(HeaderMap::new(), |mut map, each| {
            let (name, value) = line(each);
            map.append(name, value);
            map
        })
    }

    fn ask(
        rules: &IdentityRules,
        lines: &[(&'static str, &str)],
        peer: &str,
    ) -> Result<Caller, Refusal> {
        decide(rules, &headers(lines), peer.parse().ok(), UNIX_EPOCH)
    }

    fn user(caller: Result<Caller, Refusal>) -> (String, Source) {
        match caller.unwrap() {
            Caller::Known { identity, .. } => (identity.user, identity.source),
            Caller::Undecided => panic!("undecided"),
        }
    }

    #[test]
    fn a_front_end_says_who_the_user_is_and_a_key_of_ours_cannot() {
        let rules = rules(&[]);
        let says = ("x-openwebui-user-id", "alice");
        let front = ask(&rules, &[("authorization", "bearer  front"), says], "");
        assert_eq!(user(front), ("alice".into(), Source::Header));
        let own = ask(&rules, &[("authorization", "Bearer carols"), says], "");
        assert_eq!(user(own), ("carol".into(), Source::ApiKey));
    }

    #[test]
    fn a_front_end_key_from_elsewhere_gets_the_answer_of_an_unknown_key() {
        let rules = rules(&["10.0.0.0/8", "fd00::/8"]);
        let lines = [("authorization", "Bearer front"), ("x-openwebui-user-id", "alice")];
        for near in ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1"] {
            assert_eq!(user(ask(&rules, &lines, near)).0, "alice", "{near}");
        }
        let unknown = ask(&rules, &[("authorization", "Bearer nope")], "10.1.2.3").unwrap_err();
        for far in ["11.1.2.3", "::1", "::ffff:11.0.0.1", ""] {
            // The same key is listed for mallory as well: that must not become a way around.
            let refusal = ask(&rules, &lines, far).unwrap_err();
            assert_eq!(refusal.status, unknown.status);
            assert_eq!(refusal.body(), unknown.body());
            assert!(refusal.cause.contains("outside its networks"), "{}", refusal.cause);
        }
    }

    #[test]
    fn a_key_that_is_not_one_is_refused() {
        for value in
            ["", "Bearer", "Bearer ", "front", "Basic front", "Bearer fron", "Bearer\tfront"]
        {
            let refusal = ask(&rules(&[]), &[("authorization", value)], "").unwrap_err();
            assert_eq!(
                (refusal.status.as_u16(), refusal.code),
                (401, "invalid_api_key"),
                "{value}"
            );
        }
        assert_eq!(ask(&rules(&[]), &[], "").unwrap_err().code, "missing_api_key");
    }

    #[test]
    fn more_than_one_value_is_refused_whatever_the_order() {
        let (good, id) = (("authorization", "Bearer front"), ("x-openwebui-user-id", "alice"));
        for lines in [
            vec![good, id, ("x-openwebui-user-id", "mallory")],
            vec![id, good, id],
            vec![good, id, ("authorization", "Bearer nope")],
            vec![("authorization", "Bearer nope, Bearer front"), id],
            vec![good, ("x-openwebui-user-id", "alice, mallory")],
            vec![good, id, ("x-openwebui-user-jwt", "a"), ("x-openwebui-user-jwt", "b")],
            vec![good, id, ("x-openwebui-user-role", "user"), ("x-openwebui-user-role", "admin")],
        ] {
            let refusal = ask(&rules(&[]), &lines, "").unwrap_err();
            assert_eq!(
                (refusal.status.as_u16(), refusal.code),
                (400, "repeated_header"),
                "{lines:?}"
            );
        }
    }

    #[test]
    fn development_decides_from_the_body_unless_a_wrong_key_was_sent() {
        let key = [("authorization", "Bearer sk-whatever")];
        assert!(matches!(ask(&development(), &[], ""), Ok(Caller::Undecided)));
        assert!(matches!(ask(&development(), &key, ""), Ok(Caller::Undecided)));
        let with_keys = IdentityRules { anonymous: true, ..rules(&[]) };
        assert!(matches!(ask(&with_keys, &[], ""), Ok(Caller::Undecided)));
        assert_eq!(ask(&with_keys, &key, "").unwrap_err().code, "invalid_api_key");
    }

    #[test]
    fn the_body_names_the_user_only_where_that_is_allowed() {
        let named = |rules: &IdentityRules, user| {
            from_body(rules, user).map(|identity| identity.user).map_err(|r| r.status.as_u16())
        };
        let only_body = IdentityRules { anonymous: false, ..development() };
        let only_anonymous = IdentityRules { body_user: false, ..development() };
        assert_eq!(named(&development(), Some("testuser")), Ok("testuser".into()));
        assert_eq!(named(&development(), Some("")), Ok("anonymous".into()));
        assert_eq!(named(&development(), Some("a\nb")), Err(400));
        assert_eq!(named(&only_body, None), Err(401));
        assert_eq!(named(&only_anonymous, Some("admin")), Ok("anonymous".into()));
        assert_eq!(named(&rules(&[]), Some("admin")), Err(401));
    }
}
