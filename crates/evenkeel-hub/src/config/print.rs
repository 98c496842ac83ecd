//! The configuration file with every option, its documentation and its default.

use super::settings::{AppSettings, LimitSettings, LogSettings, ProxySettings, ServerSettings, SseSettings};
use super::table::Opt;

/// The longest comment line.
const WIDTH: usize = 100;

/// The default configuration as a commented TOML file. Applications have no default, so theirs is an example, commented
/// out.
pub fn default_toml() -> String {
    let mut out = String::new();
    comment(
        &mut out,
        "The configuration of evenkeel-hub, with every option at its default. An option GROUP.NAME can also be set by \
         the environment variable EVENKEEL_HUB_GROUP_NAME and by --set GROUP.NAME=VALUE.",
    );
    options(&mut out, ServerSettings::OPTIONS, &ServerSettings::default());
    group(&mut out, "limits", LimitSettings::OPTIONS, &LimitSettings::default());
    group(&mut out, "proxy", ProxySettings::OPTIONS, &ProxySettings::default());
    group(&mut out, "sse", SseSettings::OPTIONS, &SseSettings::default());
    group(&mut out, "log", LogSettings::OPTIONS, &LogSettings::default());
    out.push('\n');
    comment(&mut out, "An application; there may be several. Take away the # of the lines that you need.");
    out.push_str("#[[apps]]\n");
    let mut apps = String::new();
    options(&mut apps, AppSettings::OPTIONS, &AppSettings::default());
    for line in apps.lines() {
        if line.is_empty() || line.starts_with('#') {
            out.push_str(line);
        } else {
            out.push('#');
            out.push_str(line);
        }
        out.push('\n');
    }
    out
}

fn group<T>(out: &mut String, name: &str, table: &[Opt<T>], settings: &T) {
    out.push_str("\n[");
    out.push_str(name);
    out.push_str("]\n");
    options(out, table, settings);
}

fn options<T>(out: &mut String, table: &[Opt<T>], settings: &T) {
    for option in table {
        out.push('\n');
        let mut doc: Vec<String> = option.doc.iter().map(|line| line.trim().to_owned()).collect();
        if let Some((min, max)) = option.range {
            doc.push(format!("({min} to {max})"));
        }
        comment(out, &doc.join(" "));
        match (option.get)(settings) {
            Some(value) => out.push_str(&format!("{} = {value}\n", option.name)),
            // Not set: what would stand there. Of numbers the largest, which does the least if someone takes it.
            None => match option.range {
                Some((_, max)) => out.push_str(&format!("#{} = {max}\n", option.name)),
                None => out.push_str(&format!("#{} = \"\"\n", option.name)),
            },
        }
    }
}

/// Wraps `text` into comment lines. They begin with `# `, and options that are commented out with `#` alone.
fn comment(out: &mut String, text: &str) {
    let mut line = String::from("#");
    // Where rustdoc wants code, a file has quotes.
    let text = text.replace('`', "\"");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(&line);
    out.push('\n');
}
