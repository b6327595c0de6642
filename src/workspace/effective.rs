//! Which models a workspace gets.

use serde_json::Value;

use crate::config::{Config, LauncherKind, ModelRef};

/// The models a workspace's runner uses, and who chose the main one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    /// The model that answers.
    pub model: ModelRef,
    /// The model for side work; the main one when nobody chose.
    pub small_model: ModelRef,
    /// Who chose `model`: `workspace`, `template`, `environment` or `default`.
    pub resolved_from: &'static str,
}

/// The longest model name that is believed, in bytes.
const LONGEST: usize = 256;

impl Effective {
    /// Chooses among the workspace's own wishes, the template's, the configuration and the built-in
    /// default, in that order. A model of a provider that runners cannot reach counts as not set;
    /// `tell` hears of it.
    pub(super) fn of(
        own: &Value,
        template: &Value,
        config: &Config,
        mut tell: impl FnMut(String),
    ) -> Self {
        let mut first = |name: &str, ours: Option<&ModelRef>| {
            let wishes = [(own, "workspace"), (template, "template")]
                .into_iter()
                .filter_map(|(wishes, from)| Some((wishes.get(name)?.as_str()?, from)));
            for (text, from) in wishes {
                match parse(text) {
                    Some(model) if reachable(&model, config) => return Some((model, from)),
                    _ => {
                        let text: String = text.chars().take(80).collect();
                        tell(format!("{name} {text:?} of the {from} is of no configured provider"));
                    }
                }
            }
            let ours = ours?;
            if !reachable(ours, config) {
                tell(format!("{name} {ours} of the environment is of no configured provider"));
                return None;
            }
            Some((ours.clone(), "environment"))
        };
        let main = first("model", config.models.main.as_ref());
        let small = first("small_model", config.models.small.as_ref());
        let (model, resolved_from) = main.unwrap_or_else(|| (built_in(), "default"));
        let small_model = small.map_or_else(|| model.clone(), |(small, _)| small);
        Self { model, small_model, resolved_from }
    }
}

/// The model when nobody chose one.
fn built_in() -> ModelRef {
    ModelRef { provider: "openai".to_owned(), model: "gpt-5".to_owned() }
}

fn parse(text: &str) -> Option<ModelRef> {
    let plain = text.len() <= LONGEST && !text.chars().any(char::is_control);
    plain.then(|| ModelRef::parse(text)).flatten()
}

/// A shared server has providers of its own: when none are configured, we cannot know them.
fn reachable(model: &ModelRef, config: &Config) -> bool {
    let unknown = matches!(config.runners.launcher, LauncherKind::Static { .. })
        && config.providers.is_empty();
    unknown || config.providers.contains_key(&model.provider)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workspace::tests::config;

    fn of(own: &Value, template: &Value, config: &Config) -> (String, String, &'static str, usize) {
        let mut told = 0;
        let it = Effective::of(own, template, config, |_| told += 1);
        (it.model.to_string(), it.small_model.to_string(), it.resolved_from, told)
    }

    #[test]
    fn the_first_that_is_set_wins() {
        let mut config = config();
        let own = json!({"model": "gpt-own"});
        let template = json!({"model": "openai/template", "small_model": "openai/small"});
        let nobody = Value::Null;
        config.models.main = ModelRef::parse("openai/environment");
        config.models.small = ModelRef::parse("openai/environment-small");
        let expect = |own, template, config: &Config, model: &str, small: &str, from| {
            assert_eq!(of(own, template, config), (model.into(), small.into(), from, 0));
        };
        expect(&own, &template, &config, "openai/gpt-own", "openai/small", "workspace");
        expect(&nobody, &template, &config, "openai/template", "openai/small", "template");
        let small = "openai/environment-small";
        expect(&nobody, &nobody, &config, "openai/environment", small, "environment");
        config.models.small = None;
        expect(
            &nobody,
            &nobody,
            &config,
            "openai/environment",
            "openai/environment",
            "environment",
        );
        config.models.main = None;
        expect(&nobody, &nobody, &config, "openai/gpt-5", "openai/gpt-5", "default");
    }

    #[test]
    fn a_model_that_cannot_be_reached_counts_as_not_set() {
        let mut config = config();
        let nobody = Value::Null;
        let long = format!("openai/{}", "x".repeat(300));
        for bad in ["elsewhere/x", "claude", "", "openai/", "openai/a\nb", long.as_str()] {
            let (model, _, from, told) = of(&json!({"model": bad}), &nobody, &config);
            assert_eq!((model.as_str(), from, told), ("openai/gpt-5", "default", 1), "{bad:?}");
        }
        let (_, _, from, told) = of(&json!({"model": ["openai/x"]}), &nobody, &config);
        assert_eq!((from, told), ("default", 0));
        config.models.main = ModelRef::parse("elsewhere/x");
        assert_eq!(of(&nobody, &nobody, &config).2, "default");
    }
}
