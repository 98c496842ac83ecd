//! Reads options from a file's text, the environment and the command line into one [`Config`].

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::check;
use super::settings::{AppSettings, LimitSettings, LogSettings, ProxySettings, ServerSettings, SseSettings};
use super::table::Opt;
use super::{Config, Problem};
use crate::text;

/// What every variable of ours begins with.
pub(super) const ENVIRONMENT_PREFIX: &str = "EVENKEEL_HUB_";

/// The variable that names the configuration file. It is no option.
pub(super) const FILE_VARIABLE: &str = "EVENKEEL_HUB_CONFIG";

/// Where options come from. Later fields win over earlier ones.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources<'a> {
    /// A file's name, for messages, and its text.
    pub file: Option<(&'a str, &'a str)>,
    /// The environment. Variables that do not begin with `EVENKEEL_HUB_` are ignored; one that does and is no option is a
    /// problem, because a misspelt limit would otherwise be silently off.
    pub environment: &'a [(String, String)],
    /// Options from the command line, by their full names.
    pub arguments: &'a [(String, String)],
}

impl Config {
    /// Reads and checks the configuration.
    ///
    /// # Errors
    /// All that is wrong, in the order of the sources.
    pub fn load(sources: &Sources<'_>) -> Result<Self, Vec<Problem>> {
        let mut loader = Loader::default();
        if let Some((name, text)) = sources.file {
            loader.file(name, text);
        }
        loader.environment(sources.environment);
        for (name, value) in sources.arguments {
            loader.text_option(&format!("--set {}", text::escaped(name, 100)), name, value);
        }
        let Loader { mut config, app_places, mut problems } = loader;
        // What follows from a half-read configuration would only confuse.
        if problems.is_empty() {
            if config.apps.is_empty() && !config.exposed() {
                config.apps.push(AppSettings::demonstration());
                config.demo = true;
            }
            problems = check::problems(&config, &app_places);
        }
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }
}

/// The tables of the file, and `""` for what stands outside of them.
pub(super) const GROUPS: [&str; 5] = ["", "limits", "proxy", "sse", "log"];

#[derive(Default)]
struct Loader {
    config: Config,
    /// Where each application was described.
    app_places: Vec<String>,
    problems: Vec<Problem>,
}

/// What is wrong in a file, each with where it begins.
struct FileProblems<'a> {
    name: &'a str,
    source: &'a str,
    found: Vec<(usize, Problem)>,
}

impl FileProblems<'_> {
    fn problem(&mut self, at: Range<usize>, message: String) {
        let place = self.place(&at);
        self.found.push((at.start, Problem { place, message }));
    }

    /// `FILE:LINE` of the beginning of a span.
    fn place(&self, at: &Range<usize>) -> String {
        let before = &self.source.as_bytes()[..at.start.min(self.source.len())];
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        format!("{}:{line}", self.name)
    }
}

impl Loader {
    fn problem(&mut self, place: &str, message: String) {
        // Messages quote values, which may be of any length.
        let message = text::escaped(&message, 400);
        self.problems.push(Problem { place: place.to_owned(), message });
    }

    fn file(&mut self, name: &str, source: &str) {
        let (document, errors) = DeTable::parse_recoverable(source);
        let mut file = FileProblems { name, source, found: Vec::new() };
        for error in &errors {
            file.problem(error.span().unwrap_or(0..0), error.message().to_owned());
        }
        if errors.is_empty() {
            self.tables(&mut file, document.get_ref());
        }
        // A parsed table is in the order of its keys; a reader goes from top to bottom.
        file.found.sort_by_key(|(start, _)| *start);
        for (_, problem) in file.found {
            self.problem(&problem.place, problem.message);
        }
    }

    fn tables(&mut self, file: &mut FileProblems<'_>, document: &DeTable<'_>) {
        for (key, value) in document {
            let name = key.get_ref().as_ref();
            match value.get_ref() {
                DeValue::Table(table) if GROUPS.contains(&name) => {
                    for (key, value) in table {
                        self.toml_option(file, name, key, value.get_ref());
                    }
                }
                value if name == "apps" => self.apps(file, key.span(), value),
                DeValue::Table(_) => file.problem(key.span(), no_such_table(name)),
                _ if GROUPS.contains(&name) => {
                    file.problem(key.span(), format!("{name}: must be a table, [{name}]"));
                }
                value => self.toml_option(file, "", key, value),
            }
        }
    }

    fn apps(&mut self, file: &mut FileProblems<'_>, at: Range<usize>, value: &DeValue<'_>) {
        let form = "apps: must be a list of tables, each [[apps]]";
        let Some(list) = value.as_array() else {
            return file.problem(at, form.to_owned());
        };
        for app in list.iter() {
            match app.get_ref().as_table() {
                Some(table) => self.app(file, app.span(), table),
                None => file.problem(app.span(), form.to_owned()),
            }
        }
    }

    fn app(&mut self, file: &mut FileProblems<'_>, at: Range<usize>, table: &DeTable<'_>) {
        let mut app = AppSettings::default();
        for (key, value) in table {
            let result = set_toml(AppSettings::OPTIONS, &mut app, "apps", key.get_ref(), value.get_ref());
            if let Err(message) = result {
                file.problem(key.span(), format!("apps.{}: {message}", key.get_ref()));
            }
        }
        self.config.apps.push(app);
        self.app_places.push(file.place(&at));
    }

    fn toml_option(
        &mut self,
        file: &mut FileProblems<'_>,
        group: &str,
        key: &Spanned<DeString<'_>>,
        value: &DeValue<'_>,
    ) {
        let config = &mut self.config;
        let name = key.get_ref();
        let result = match group {
            "limits" => set_toml(LimitSettings::OPTIONS, &mut config.limits, group, name, value),
            "proxy" => set_toml(ProxySettings::OPTIONS, &mut config.proxy, group, name, value),
            "sse" => set_toml(SseSettings::OPTIONS, &mut config.sse, group, name, value),
            "log" => set_toml(LogSettings::OPTIONS, &mut config.log, group, name, value),
            _ => set_toml(ServerSettings::OPTIONS, &mut config.server, group, name, value),
        };
        if let Err(message) = result {
            file.problem(key.span(), format!("{}: {message}", full_name(group, name)));
        }
    }

    /// Sets an option by its full name, `GROUP.NAME` or `NAME`.
    fn text_option(&mut self, at: &str, full: &str, value: &str) {
        let (group, name) = full.split_once('.').unwrap_or(("", full));
        let config = &mut self.config;
        let result = match group {
            "" => set_text(ServerSettings::OPTIONS, &mut config.server, group, name, value),
            "limits" => set_text(LimitSettings::OPTIONS, &mut config.limits, group, name, value),
            "proxy" => set_text(ProxySettings::OPTIONS, &mut config.proxy, group, name, value),
            "sse" => set_text(SseSettings::OPTIONS, &mut config.sse, group, name, value),
            "log" => set_text(LogSettings::OPTIONS, &mut config.log, group, name, value),
            "apps" => {
                let variable = name.to_ascii_uppercase();
                Err(format!("applications are set in the file or by {ENVIRONMENT_PREFIX}APP_{variable}"))
            }
            _ => Err(no_such_option(group, name)),
        };
        if let Err(message) = result {
            self.problem(at, message);
        }
    }

    fn environment(&mut self, environment: &[(String, String)]) {
        // Sorted, so that the problems come in the same order each time.
        let ours: BTreeMap<&str, &str> = environment
            .iter()
            .filter(|(name, _)| name.starts_with(ENVIRONMENT_PREFIX) && name != FILE_VARIABLE)
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        let variables = variables();
        let mut app = Vec::new();
        for (&variable, &value) in &ours {
            match variables.get(variable) {
                Some(full) => match full.strip_prefix("apps.") {
                    Some(name) => app.push((variable, name.to_owned(), value)),
                    None => self.text_option(variable, full, value),
                },
                None => {
                    let nearest = nearest(variable, variables.keys().map(String::as_str));
                    let message = there_is_no_such("variable", nearest);
                    self.problem(&text::escaped(variable, 100), message);
                }
            }
        }
        if !app.is_empty() {
            self.environment_app(&app);
        }
    }

    /// Changes the application that the environment describes, or adds it. Without an id it is the only one that there
    /// is, so that a file can have all but the secret.
    fn environment_app(&mut self, variables: &[(&str, String, &str)]) {
        let id = variables.iter().find(|(_, name, _)| name == "id").map(|&(_, _, value)| value);
        let apps = &mut self.config.apps;
        let known = match id {
            Some(id) => apps.iter().position(|app| app.id == id),
            None if apps.len() > 1 => {
                let message = "is needed, to say which of the applications the other variables are for";
                return self.problem(&format!("{ENVIRONMENT_PREFIX}APP_ID"), message.to_owned());
            }
            None => apps.len().checked_sub(1),
        };
        let index = known.unwrap_or_else(|| {
            self.config.apps.push(AppSettings::default());
            self.app_places.push(format!("{ENVIRONMENT_PREFIX}APP_*"));
            self.config.apps.len() - 1
        });
        for (variable, name, value) in variables {
            let result = match option(AppSettings::OPTIONS, name) {
                Some(option) => (option.set_text)(&mut self.config.apps[index], value),
                None => Err(no_such_option("apps", name)),
            };
            if let Err(message) = result {
                self.problem(variable, message);
            }
        }
    }
}

/// Every variable with the full name of its option.
pub(super) fn variables() -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for full in all_names() {
        let variable = match full.strip_prefix("apps.") {
            Some(name) => format!("{ENVIRONMENT_PREFIX}APP_{name}"),
            None => format!("{ENVIRONMENT_PREFIX}{}", full.replace('.', "_")),
        };
        variables.insert(variable.to_ascii_uppercase(), full);
    }
    variables
}

/// The full names of all options.
pub(super) fn all_names() -> Vec<String> {
    let mut names = Vec::new();
    let mut add = |group: &str, options: Vec<&str>| {
        names.extend(options.into_iter().map(|name| full_name(group, name)));
    };
    add("", option_names(ServerSettings::OPTIONS));
    add("limits", option_names(LimitSettings::OPTIONS));
    add("proxy", option_names(ProxySettings::OPTIONS));
    add("sse", option_names(SseSettings::OPTIONS));
    add("log", option_names(LogSettings::OPTIONS));
    add("apps", option_names(AppSettings::OPTIONS));
    names
}

fn option_names<T>(options: &[Opt<T>]) -> Vec<&'static str> {
    options.iter().map(|option| option.name).collect()
}

fn full_name(group: &str, name: &str) -> String {
    if group.is_empty() { name.to_owned() } else { format!("{group}.{name}") }
}

fn option<'a, T>(options: &'a [Opt<T>], name: &str) -> Option<&'a Opt<T>> {
    options.iter().find(|option| option.name == name)
}

fn set_toml<T>(
    options: &[Opt<T>],
    settings: &mut T,
    group: &str,
    name: &str,
    value: &DeValue<'_>,
) -> Result<(), String> {
    let option = option(options, name).ok_or_else(|| no_such_option(group, name))?;
    (option.set_toml)(settings, value)
}

fn set_text<T>(
    options: &[Opt<T>],
    settings: &mut T,
    group: &str,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let option = option(options, name).ok_or_else(|| no_such_option(group, name))?;
    (option.set_text)(settings, value)
}

/// Says what the user may have meant: the option of that name in another table, or the one spelt most alike.
fn no_such_option(group: &str, name: &str) -> String {
    let names = all_names();
    let elsewhere = names.iter().find(|full| full.rsplit('.').next() == Some(name)).map(String::as_str);
    let full = full_name(group, name);
    let nearest = elsewhere.or_else(|| nearest(&full, names.iter().map(String::as_str)));
    there_is_no_such("option", nearest)
}

fn no_such_table(name: &str) -> String {
    let tables = GROUPS.iter().copied().filter(|group| !group.is_empty()).chain(["apps"]);
    let nearest = nearest(name, tables)
        .map(|table| if table == "apps" { "[[apps]]".to_owned() } else { format!("[{table}]") });
    format!("{name}: {}", there_is_no_such("table", nearest.as_deref()))
}

fn there_is_no_such(kind: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("there is no such {kind}; did you mean {nearest}?"),
        None => format!("there is no such {kind}"),
    }
}

/// The candidate with the fewest changed letters, if they are few.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // A name from outside may be of any length, and the comparison is quadratic.
    if name.len() > 100 {
        return None;
    }
    candidates
        .map(|candidate| (edit_distance(name, candidate), candidate))
        .min()
        .filter(|&(distance, candidate)| distance <= 2.max(candidate.len() / 4))
        .map(|(_, candidate)| candidate)
}

/// How many bytes must be inserted, removed or replaced to make `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(a != b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
