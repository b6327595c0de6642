//! Which models people may use, and how much of them.

use std::collections::BTreeMap;

use super::{Config, ModelRef};
use crate::usage::Budget;

/// What each role and each user may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policies {
    /// By role. `default` is everybody's whose role is not here.
    pub roles: BTreeMap<String, Policy>,
    /// By user id.
    pub users: BTreeMap<String, UserPolicy>,
}

/// What somebody may use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Policy {
    /// Which models; `None` allows those that are listed with their provider.
    pub models: Option<Vec<ModelPattern>>,
    /// How much of them.
    pub budget: Budget,
}

/// What is different for one user.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPolicy {
    /// The user's role, whatever a front end says.
    pub role: Option<String>,
    /// Instead of the role's.
    pub models: Option<Vec<ModelPattern>>,
    /// Instead of the role's.
    pub budget: Option<Budget>,
}

/// `provider/model`, or the beginning of one followed by `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelPattern(String);

impl ModelPattern {
    /// Reads a pattern; `*` may only stand at its end.
    pub fn parse(text: &str) -> Option<Self> {
        let start = text.strip_suffix('*').unwrap_or(text);
        let whole = text.ends_with('*') || ModelRef::parse(text).is_some();
        (whole && !start.contains('*')).then(|| Self(text.to_owned()))
    }

    /// The pattern as it is written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn fits(&self, provider: &str, model: &str) -> bool {
        let rest = |text: &str| {
            let after = text.strip_prefix(provider)?.strip_prefix('/')?;
            Some(after.to_owned())
        };
        match self.0.strip_suffix('*') {
            None => rest(&self.0).is_some_and(|wanted| wanted == model),
            Some(start) => match rest(start) {
                Some(start) => model.starts_with(&start),
                // The pattern ends within the provider's name.
                None => !start.contains('/') && provider.starts_with(start),
            },
        }
    }
}

impl Policies {
    /// The policy of `user`, who has `role`.
    pub fn of(&self, user: &str, role: Option<&str>) -> Policy {
        let own = self.users.get(user);
        let role = own.and_then(|own| own.role.as_deref()).or(role);
        let of_role = role.and_then(|role| self.roles.get(role));
        let mut policy = of_role.or_else(|| self.roles.get(DEFAULT)).cloned().unwrap_or_default();
        if let Some(own) = own {
            policy.models = own.models.clone().or(policy.models);
            policy.budget = own.budget.unwrap_or(policy.budget);
        }
        policy
    }
}

impl Policy {
    /// Whether `model` of `provider` may be used. Without a list these may: what is listed with the
    /// provider, anything of a provider that lists nothing, and the models of the configuration.
    pub fn allows(&self, config: &Config, provider: &str, model: &str) -> bool {
        if let Some(patterns) = &self.models {
            return patterns.iter().any(|pattern| pattern.fits(provider, model));
        }
        let ours = [&config.models.main, &config.models.small];
        let is_ours = |it: &ModelRef| it.provider == provider && it.model == model;
        let listed = config.providers.get(provider).map(|provider| &provider.models);
        listed.is_some_and(|listed| listed.is_empty() || listed.contains_key(model))
            || ours.into_iter().flatten().any(is_ours)
    }
}

/// The role of everybody whose role is not in the file.
pub(super) const DEFAULT: &str = "default";

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> ModelPattern {
        ModelPattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_ends_in_its_star() {
        for (text, provider, model, fits) in [
            ("openai/gpt-5", "openai", "gpt-5", true),
            ("openai/gpt-5", "openai", "gpt-5-mini", false),
            ("openai/gpt-5*", "openai", "gpt-5-mini", true),
            ("openai/*", "openai", "anything/at:all", true),
            ("openai/*", "openai2", "gpt-5", false),
            ("openai*", "openai2", "gpt-5", true),
            ("*", "any", "thing", true),
            ("openrouter/openai/*", "openrouter", "openai/gpt-5", true),
            ("openrouter/openai/*", "openrouter", "anthropic/x", false),
        ] {
            assert_eq!(pattern(text).fits(provider, model), fits, "{text} {provider}/{model}");
        }
        for bad in ["", "openai", "*/gpt-5", "openai/*-mini", "**"] {
            assert_eq!(ModelPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_user_s_own_policy_comes_before_the_role_s() {
        let role =
            |models: &str| Policy { models: Some(vec![pattern(models)]), ..Policy::default() };
        let mine = Budget {
            day: crate::usage::Allowance { tokens: Some(1), money: None },
            ..Budget::default()
        };
        let policies = Policies {
            roles: [("default", role("a/*")), ("admin", role("*"))]
                .map(|(n, r)| (n.to_owned(), r))
                .into(),
            users: [
                ("ann", UserPolicy { budget: Some(mine), ..UserPolicy::default() }),
                ("bob", UserPolicy { role: Some("admin".to_owned()), ..UserPolicy::default() }),
            ]
            .map(|(n, u)| (n.to_owned(), u))
            .into(),
        };
        assert_eq!(policies.of("eve", None), role("a/*"));
        assert_eq!(policies.of("eve", Some("intern")), role("a/*"));
        assert_eq!(policies.of("eve", Some("admin")), role("*"));
        assert_eq!(policies.of("bob", Some("intern")), role("*"));
        assert_eq!(policies.of("ann", None), Policy { budget: mine, ..role("a/*") });
    }
}
