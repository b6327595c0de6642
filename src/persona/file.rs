//! `conf/personas/<name>.md` → [`Persona`]: YAML between two lines of `---`, then the prompt.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use super::{Persona, Personas, RESERVED, USER_HEADING, well_named};

/// Why the personas could not be read. Names the file, and the line where there is one.
#[derive(Debug, thiserror::Error)]
pub enum PersonaError {
    /// The directory is missing or cannot be listed.
    #[error("cannot list the personas directory {}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file cannot be read, or is not UTF-8.
    #[error("cannot read {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is not a persona.
    #[error("{}:{line}: {problem}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong there.
        problem: String,
    },
}

/// The front matter as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Front {
    description: String,
    #[serde(default = "user_heading")]
    user_heading: String,
    #[serde(default)]
    integrations: Vec<String>,
    #[serde(default)]
    memory: Option<bool>,
    #[serde(default)]
    tools: Vec<String>,
}

fn user_heading() -> String {
    USER_HEADING.to_owned()
}

/// Reads every `*.md` in `directory` whose name does not start with a dot. One that is not a
/// persona fails the whole: a persona that quietly disappears is worse than a reload refused.
pub fn load(directory: &Path) -> Result<Personas, PersonaError> {
    let unlisted = |source| PersonaError::Directory { path: directory.to_owned(), source };
    let mut personas = Vec::new();
    for entry in fs::read_dir(directory).map_err(unlisted)? {
        let path = entry.map_err(unlisted)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes()[0] == b'.');
        if !hidden && path.extension().is_some_and(|extension| extension == "md") {
            let unread = |source| PersonaError::File { path: path.clone(), source };
            let text = fs::read_to_string(&path).map_err(unread)?;
            let stem = path.file_stem().unwrap_or_default().to_string_lossy();
            let persona = parse(&stem, &text).map_err(|(line, problem)| PersonaError::Invalid {
                path: path.clone(),
                line,
                problem,
            })?;
            personas.push(Arc::new(persona));
        }
    }
    personas.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Personas(personas))
}

/// Reads the text of the file `<name>.md`, or says what is wrong with it and on which line.
fn parse(name: &str, text: &str) -> Result<Persona, (usize, String)> {
    let wrong = |line: usize, problem: &str| Err((line, problem.to_owned()));
    if !well_named(name) {
        return wrong(1, "a persona's file name is 1 to 64 of a-z, 0-9 and -, then .md");
    }
    if RESERVED.contains(&name) {
        return wrong(1, "this name belongs to one of opencode's own agents");
    }

    let text = text.trim_start_matches('\u{feff}').replace("\r\n", "\n");
    let Some(rest) = text.strip_prefix("---\n") else {
        return wrong(
            1,
            "the file must start with a line of ---, its front matter and another ---",
        );
    };
    let Some((front, core)) = rest.split_once("\n---\n") else {
        return wrong(1, "the front matter is not closed with a line of ---");
    };
    let end = front.lines().count() + 2;

    let front: Front = serde_saphyr::from_str(front).map_err(|error| {
        let line = error.location().map_or(0, |location| location.line());
        // The line of the opening `---` comes before those the parser saw.
        (usize::try_from(line).unwrap_or(0) + 1, error.without_snippet().to_string())
    })?;

    if front.description.trim().is_empty() || front.description.contains('\n') {
        return wrong(2, "description must be one line of text");
    }
    if front.user_heading.trim().is_empty() || front.user_heading.contains('\n') {
        return wrong(2, "user_heading must be one line of text");
    }
    if front.tools.iter().any(|tool| tool.is_empty() || tool.contains('*')) {
        return wrong(2, "tools must be the names of tools, without *");
    }
    if core.trim().is_empty() {
        return wrong(end, "there is no prompt below the front matter");
    }
    Ok(Persona {
        name: name.to_owned(),
        description: front.description.trim().to_owned(),
        core: core.trim().to_owned(),
        user_heading: front.user_heading.trim().to_owned(),
        integrations: front.integrations,
        memory: front.memory,
        tools: front.tools,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(name: &str, text: &str) -> (usize, String) {
        parse(name, text).unwrap_err()
    }

    #[test]
    fn a_file_becomes_a_persona() {
        let text = "---\ndescription: Helps\nuser_heading: '## Wishes'\nintegrations: [mail]\n\
                    memory: false\ntools: [read, grep]\n---\n\nYou help.\n\n---\n\nAlways.\n";
        let expected = Persona {
            name: "izzy".to_owned(),
            description: "Helps".to_owned(),
            core: "You help.\n\n---\n\nAlways.".to_owned(),
            user_heading: "## Wishes".to_owned(),
            integrations: vec!["mail".to_owned()],
            memory: Some(false),
            tools: vec!["read".to_owned(), "grep".to_owned()],
        };
        assert_eq!(parse("izzy", text).unwrap(), expected);
        assert_eq!(parse("izzy", &text.replace('\n', "\r\n")).unwrap(), expected);
    }

    #[test]
    fn only_the_description_must_be_there() {
        let persona = parse("izzy", "---\ndescription: Helps\n---\nYou help.").unwrap();
        assert_eq!(persona.user_heading, "## From the user");
        assert_eq!(persona.memory, None);
    }

    #[test]
    fn a_member_nobody_knows_is_named_with_its_line() {
        let (line, problem) =
            problem("izzy", "---\ndescription: Helps\ntoools: [read]\n---\nYou help.\n");
        assert_eq!(line, 3);
        assert!(problem.contains("toools"), "{problem}");
    }

    #[test]
    fn what_is_not_a_persona_is_refused() {
        let good = "---\ndescription: Helps\n---\nYou help.\n";
        assert!(parse("izzy", good).is_ok());
        for name in ["", "Izzy", "izzy__plan", "a.b", "build", "plan", "task", "title"] {
            assert_eq!(problem(name, good).0, 1, "{name:?}");
        }
        assert_eq!(problem("izzy", "You help.\n").0, 1);
        assert_eq!(problem("izzy", "---\ndescription: Helps\nYou help.\n").0, 1);
        assert_eq!(problem("izzy", "---\ndescription: Helps\n---\n \n").0, 3);
        let (_, starred) = problem("izzy", &good.replace("\n---\nYou", "\ntools: ['*']\n---\nYou"));
        assert!(starred.starts_with("tools"), "{starred}");
    }

    #[test]
    fn a_directory_is_read_in_name_order_and_only_its_markdown() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["zoe.md", "izzy.md", ".#izzy.md", "notes.txt"] {
            let text = "---\ndescription: Helps\n---\nYou help.\n";
            fs::write(directory.path().join(name), text).unwrap();
        }
        let names: Vec<_> =
            load(directory.path()).unwrap().0.iter().map(|p| p.name.clone()).collect();
        assert_eq!(names, ["izzy", "zoe"]);

        fs::write(directory.path().join("izzy.md"), "---\nno\n").unwrap();
        let error = load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("izzy.md:1: "), "{error}");
    }

    #[test]
    fn a_missing_directory_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let error = load(&directory.path().join("none")).unwrap_err();
        assert!(matches!(error, PersonaError::Directory { .. }), "{error}");
    }

    #[test]
    fn the_personas_that_come_along_are_personas() {
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/personas");
        let names: Vec<_> = load(&shipped).unwrap().0.iter().map(|p| p.name.clone()).collect();
        assert_eq!(names, ["grant-draft", "izzy"]);
    }
}
