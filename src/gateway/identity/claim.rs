//! What a front end says about the user: in Open WebUI's signed token, or in its plain headers.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode, header::HeaderName};
use percent_encoding::percent_decode_str;

use super::{Identity, Source, repeated, token};
use crate::{
    config::{FrontEnd, UserClaim},
    error::Refusal,
};

/// Reads the user from what `front_end` sent, in the way it is configured for and in no other:
/// Open WebUI falls back to plain headers when it cannot sign, and that must not pass.
pub(super) fn of(
    front_end: &FrontEnd,
    headers: &HeaderMap,
    now: SystemTime,
) -> Result<Identity, Refusal> {
    match &front_end.user {
        UserClaim::Jwt { secrets, issuer, leeway } => {
            let Some(value) = headers.get(JWT).filter(|value| !value.is_empty()) else {
                return Err(unsigned(front_end, headers));
            };
            token::Rules { secrets, issuer, leeway: leeway.as_secs() }.check(value.as_bytes(), now)
        }
        UserClaim::Headers => plain(front_end, headers),
    }
}

/// Checks a user id: 1 to 512 bytes, no control characters, no white space around it. It is never
/// changed, so that two different ids stay different.
pub(super) fn user_id(id: &str) -> Result<&str, Fault> {
    match id {
        "" => Err(Fault("is empty")),
        _ if id.len() > USER_ID_BYTES => Err(Fault("is longer than 512 bytes")),
        _ if id.chars().any(char::is_control) => Err(Fault("holds control characters")),
        _ if id.trim() != id => Err(Fault("begins or ends with white space")),
        _ => Ok(id),
    }
}

/// Text about a user that is only shown: control characters dropped, cut to 256 characters.
pub(super) fn shown(text: &str) -> Option<String> {
    let text = text.trim().chars().filter(|c| !c.is_control()).take(SHOWN_CHARACTERS);
    Some(text.collect::<String>()).filter(|text| !text.is_empty())
}

/// What is wrong with a user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fault(pub(super) &'static str);

impl Fault {
    /// A 400 that says where the id was.
    pub(super) fn refusal(self, place: &str) -> Refusal {
        let message = format!("{place} {}. Send the user's id there, 1 to 512 bytes.", self.0);
        Refusal::bad_request("invalid_user_id", message)
    }
}

fn plain(front_end: &FrontEnd, headers: &HeaderMap) -> Result<Identity, Refusal> {
    let Some(id) = headers.get(USER_ID).filter(|value| !value.is_empty()) else {
        return Err(missing(
            "This front end must send `X-OpenWebUI-User-Id`. In Open WebUI, set \
             `ENABLE_FORWARD_USER_INFO_HEADERS=true`.",
            format!("front end {:?} sent no user id", front_end.name),
        ));
    };
    // A comma is how proxies join repeated headers: whose id it is would be a guess.
    if id.as_bytes().contains(&b',') {
        return Err(repeated(&USER_ID));
    }
    let id = str::from_utf8(id.as_bytes()).map_err(|_| Fault("is not UTF-8")).and_then(user_id);
    Ok(Identity {
        user: id.map_err(|fault| fault.refusal("The header `X-OpenWebUI-User-Id`"))?.to_owned(),
        source: Source::Header,
        // Percent-encoded UTF-8, as Open WebUI 0.12 sends it.
        name: text(headers, &USER_NAME).and_then(|name| {
            let name = percent_decode_str(name).decode_utf8().ok()?;
            shown(&name)
        }),
        email: text(headers, &EMAIL).and_then(shown),
        role: text(headers, &ROLE).and_then(shown),
    })
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let value = str::from_utf8(headers.get(name)?.as_bytes()).ok()?;
    Some(value.trim()).filter(|value| !value.is_empty())
}

fn unsigned(front_end: &FrontEnd, headers: &HeaderMap) -> Refusal {
    let instead = if headers.contains_key(USER_ID) { "plain headers" } else { "nothing" };
    missing(
        "This front end must send `X-OpenWebUI-User-Jwt`. In Open WebUI, set \
         `FORWARD_USER_INFO_HEADER_JWT_SECRET` to the secret that the gateway knows.",
        format!("security: front end {:?} sent {instead} in place of a token", front_end.name),
    )
}

fn missing(message: &'static str, cause: String) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "missing_user", message).because(cause)
}

/// Open WebUI's headers about the user.
pub(super) const JWT: HeaderName = HeaderName::from_static("x-openwebui-user-jwt");
pub(super) const USER_ID: HeaderName = HeaderName::from_static("x-openwebui-user-id");
pub(super) const USER_NAME: HeaderName = HeaderName::from_static("x-openwebui-user-name");
pub(super) const EMAIL: HeaderName = HeaderName::from_static("x-openwebui-user-email");
pub(super) const ROLE: HeaderName = HeaderName::from_static("x-openwebui-user-role");

const USER_ID_BYTES: usize = 512;
const SHOWN_CHARACTERS: usize = 256;

#[cfg(test)]
mod tests {
    use std::{collections::HashMap, time::UNIX_EPOCH};

    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::{
        config::{KeyCheck, ToolStyle},
        workspace::WorkspaceId,
    };

    fn webui() -> FrontEnd {
        FrontEnd {
            name: "webui".into(),
            key: KeyCheck([0; 32]),
            networks: Vec::new(),
            user: UserClaim::Headers,
            tools: ToolStyle::Plain,
            meta_headers: false,
            key_headers: true,
        }
    }

    fn read(lines: &[(&HeaderName, &[u8])]) -> Result<Identity, Refusal> {
        let lines = lines
            .iter()
            .map(|(name, value)| ((*name).clone(), HeaderValue::from_bytes(value).unwrap()));
        of(&webui(), &lines.collect(), UNIX_EPOCH)
    }

    #[test]
    fn plain_headers_are_read_with_the_name_decoded() {
        let identity = read(&[
            (&USER_ID, b"0779a753"),
            (&USER_NAME, b"Alice %C3%9Cn%C3%AF"),
            (&EMAIL, b"alice@example.test"),
            (&ROLE, b"admin"),
        ]);
        assert_eq!(
            identity.unwrap(),
            Identity {
                user: "0779a753".into(),
                source: Source::Header,
                name: Some("Alice Ünï".into()),
                email: Some("alice@example.test".into()),
                role: Some("admin".to_owned()),
            }
        );
    }

    #[test]
    fn a_user_id_that_is_missing_is_401_and_one_that_is_unusable_400() {
        let status = |id: &[u8]| read(&[(&USER_ID, id)]).map_err(|refusal| refusal.status.as_u16());
        assert_eq!(read(&[]).unwrap_err().status, 401);
        assert_eq!(status(b""), Err(401));
        for bad in [&b" "[..], b"alice ", b"a\tb", b"\xff", &[b'a'; 513], "\u{a0}a".as_bytes()] {
            assert_eq!(status(bad), Err(400), "{bad:?}");
        }
        for odd in [&b"../../etc"[..], b"/", &[b'a'; 512], b"anonymous", "\u{212b}".as_bytes()] {
            assert!(status(odd).is_ok(), "{odd:?}");
        }
    }

    #[test]
    fn what_is_only_shown_cannot_break_a_line_or_be_endless() {
        let name = [&b"a%0D%0A%1B%5B2Jb"[..], &[b'x'; 4000]].concat();
        let shown = read(&[(&USER_ID, b"u"), (&USER_NAME, &name)]).unwrap().name.unwrap();
        assert!(shown.starts_with("a[2Jbxx") && shown.chars().count() == 256, "{shown}");
        let broken = read(&[(&USER_ID, b"u"), (&USER_NAME, b"%FF%FE")]).unwrap();
        assert_eq!(broken.name, None);
    }

    #[test]
    fn ids_that_look_alike_stay_apart() {
        let twins = ["Å", "Å", "A\u{30a}", "alice", "Alice", "аlice"];
        let ids: HashMap<_, _> =
            twins.iter().map(|id| (WorkspaceId::of(user_id(id).unwrap()), id.as_bytes())).collect();
        let distinct: std::collections::HashSet<_> = twins.iter().map(|id| id.as_bytes()).collect();
        assert_eq!(ids.len(), distinct.len());
    }

    proptest! {
        #[test]
        fn an_accepted_id_is_kept_byte_for_byte(id in "\\PC{0,600}") {
            match user_id(&id) {
                Ok(kept) => prop_assert_eq!(kept, &id),
                Err(_) => prop_assert!(id.is_empty() || id.len() > 512 || id.trim() != id
                    || id.chars().any(char::is_control)),
            }
        }

        #[test]
        fn every_id_lands_in_sixteen_hex_digits_and_two_never_in_one(
            a in proptest::collection::vec(any::<u8>(), 1..600),
            b in proptest::collection::vec(any::<u8>(), 1..600),
        ) {
            let place = |bytes: &[u8]| {
                let id = str::from_utf8(bytes).ok().and_then(|id| user_id(id).ok())?;
                Some(WorkspaceId::of(id))
            };
            for each in [place(&a), place(&b)].into_iter().flatten() {
                prop_assert!(WorkspaceId::parse(each.as_str()).is_some());
            }
            if let (Some(x), Some(y)) = (place(&a), place(&b)) {
                prop_assert_eq!(x == y, a == b);
            }
        }
    }
}
