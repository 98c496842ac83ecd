//! One-line structured logs on standard error, as text for people or JSON for machines.
//!
//! What peers send ends up in logs, so every value is escaped, cut to [`FIELD_BYTES`], and always stays inside its field:
//! one event is one line, whatever the input. What can happen a million times a second goes through
//! [`Logger::limited`]. Time is an argument, as everywhere.
//!
//! ```
//! use evenkeel_hub::log::{Format, Level, Logger, Value};
//! let log = Logger::new(Format::Text, Level::Info, Box::new(std::io::stderr()));
//! log.event(Level::Warn, 1_700_000_000_000, "refused", &[("channel", Value::Text("a\nb"))]);
//! // 2023-11-14T22:13:20.000Z WARN refused channel="a\nb"
//! ```

use std::cell::{Cell, RefCell};
use std::fmt::{self, Write as _};
use std::io::Write;

use crate::text;

/// The longest value of a field, in bytes, escapes and the mark of a cut included.
pub const FIELD_BYTES: usize = 256;

/// How many lines a second [`Logger::limited`] writes for each key.
pub const LINES_PER_SECOND: u32 = 10;

/// How much an event matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something is broken and needs a person.
    Error,
    /// Something was refused or shed.
    Warn,
    /// The server's own life: started, reloaded, draining.
    Info,
    /// Single connections. Not for production.
    Debug,
}

impl Level {
    /// The name in the configuration and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
        }
    }

    fn upper(self) -> &'static str {
        match self {
            Self::Error => "ERROR",
            Self::Warn => "WARN",
            Self::Info => "INFO",
            Self::Debug => "DEBUG",
        }
    }
}

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `TIME LEVEL message name=value`.
    Text,
    /// One JSON object a line, with `time`, `level`, `message` and the fields.
    Json,
}

/// The value of a field.
#[derive(Clone, Copy)]
pub enum Value<'a> {
    /// Text, trusted or not.
    Text(&'a str),
    /// A count, a size, an id.
    Number(u64),
    /// Yes or no.
    Bool(bool),
    /// Whatever can be written out, such as an error or an address.
    Display(&'a dyn fmt::Display),
    /// A secret that is there: shown as `[redacted]`.
    Redacted,
}

/// A field: a name from our code and a value.
pub type Field<'a> = (&'static str, Value<'a>);

/// Writes events. Meant to be shared by reference on one loop.
pub struct Logger {
    format: Format,
    level: Level,
    sink: RefCell<Box<dyn Write>>,
    windows: RefCell<Vec<Window>>,
    lost: Cell<u64>,
}

/// What [`Logger::limited`] remembers for one key. There is one for each place in our code that uses it, so the list
/// cannot grow with traffic.
struct Window {
    key: &'static str,
    level: Level,
    second: u64,
    written: u32,
    suppressed: u64,
}

impl Logger {
    /// A logger of the events at `level` and above.
    pub fn new(format: Format, level: Level, sink: Box<dyn Write>) -> Self {
        Self { format, level, sink: RefCell::new(sink), windows: RefCell::default(), lost: Cell::new(0) }
    }

    /// Whether an event of this level would be written. Asks before work is done for a field.
    pub fn enabled(&self, level: Level) -> bool {
        level <= self.level
    }

    /// Writes one event. `unix_ms` is the time in milliseconds since 1970.
    ///
    /// A sink that fails or is full loses the line, which is counted: logging never stops the server.
    pub fn event(&self, level: Level, unix_ms: u64, message: &str, fields: &[Field<'_>]) {
        if !self.enabled(level) {
            return;
        }
        let mut line = match self.format {
            Format::Text => text_line(level, unix_ms, message, fields),
            Format::Json => json_line(level, unix_ms, message, fields),
        };
        line.push('\n');
        let written = match self.sink.try_borrow_mut() {
            Ok(mut sink) => sink.write_all(line.as_bytes()).is_ok(),
            Err(_) => false,
        };
        if !written {
            self.lost.set(self.lost.get() + 1);
        }
    }

    /// Like [`Logger::event`], but writes at most [`LINES_PER_SECOND`] lines a second for each `key`; the rest become one
    /// line with their number, written with the first event of a later second or by [`Logger::tick`].
    pub fn limited(
        &self,
        key: &'static str,
        level: Level,
        unix_ms: u64,
        message: &str,
        fields: &[Field<'_>],
    ) {
        if !self.enabled(level) {
            return;
        }
        let (write, summary) = self.admit(key, level, unix_ms / 1000);
        if let Some(suppressed) = summary {
            self.summarise(key, level, unix_ms, suppressed);
        }
        if write {
            self.event(level, unix_ms, message, fields);
        }
    }

    /// Writes the numbers of what was suppressed before the present second. Call it about once a second.
    pub fn tick(&self, unix_ms: u64) {
        let mut due = Vec::new();
        for window in self.windows.borrow_mut().iter_mut() {
            if window.second != unix_ms / 1000 && window.suppressed > 0 {
                due.push((window.key, window.level, window.suppressed));
                window.suppressed = 0;
            }
        }
        for (key, level, suppressed) in due {
            self.summarise(key, level, unix_ms, suppressed);
        }
    }

    /// How many lines could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }

    /// Whether to write this event, and how many of an earlier second were not.
    fn admit(&self, key: &'static str, level: Level, second: u64) -> (bool, Option<u64>) {
        let mut windows = self.windows.borrow_mut();
        let index = windows.iter().position(|window| window.key == key).unwrap_or_else(|| {
            windows.push(Window { key, level, second, written: 0, suppressed: 0 });
            windows.len() - 1
        });
        let window = &mut windows[index];
        let mut summary = None;
        if window.second != second {
            summary = (window.suppressed > 0).then_some(window.suppressed);
            *window = Window { key, level, second, written: 0, suppressed: 0 };
        }
        let write = window.written < LINES_PER_SECOND;
        if write {
            window.written += 1;
        } else {
            window.suppressed += 1;
        }
        (write, summary)
    }

    fn summarise(&self, key: &'static str, level: Level, unix_ms: u64, suppressed: u64) {
        let fields = [("kind", Value::Text(key)), ("count", Value::Number(suppressed))];
        self.event(level, unix_ms, "suppressed similar lines", &fields);
    }
}

fn text_line(level: Level, unix_ms: u64, message: &str, fields: &[Field<'_>]) -> String {
    let mut line = String::with_capacity(160);
    push_time(&mut line, unix_ms);
    line.push(' ');
    line.push_str(level.upper());
    line.push(' ');
    push_escaped(&mut line, Format::Text, message);
    for (name, value) in fields {
        line.push(' ');
        line.push_str(name);
        line.push('=');
        push_value(&mut line, Format::Text, value);
    }
    line
}

fn json_line(level: Level, unix_ms: u64, message: &str, fields: &[Field<'_>]) -> String {
    let mut line = String::with_capacity(200);
    line.push_str("{\"time\":\"");
    push_time(&mut line, unix_ms);
    line.push_str("\",\"level\":\"");
    line.push_str(level.name());
    line.push_str("\",\"message\":");
    push_quoted(&mut line, Format::Json, message);
    for (name, value) in fields {
        line.push_str(",\"");
        line.push_str(name);
        line.push_str("\":");
        push_value(&mut line, Format::Json, value);
    }
    line.push('}');
    line
}

fn push_value(line: &mut String, format: Format, value: &Value<'_>) {
    match value {
        Value::Number(number) => push_number(line, *number),
        Value::Bool(value) => line.push_str(if *value { "true" } else { "false" }),
        Value::Redacted => push_quoted(line, format, "[redacted]"),
        Value::Text(value) => push_quoted(line, format, value),
        Value::Display(value) => push_quoted(line, format, &head(*value)),
    }
}

/// In quotes, but for a text value of which no reader could mistake where it ends.
fn push_quoted(line: &mut String, format: Format, value: &str) {
    let bare = |c: char| c.is_alphanumeric() || "-_.:/@,+#*[]".contains(c);
    if format == Format::Text && !value.is_empty() && value.chars().all(bare) {
        push_escaped(line, format, value);
        return;
    }
    line.push('"');
    push_escaped(line, format, value);
    line.push('"');
}

/// Escapes quotes, backslashes and unsafe characters, and cuts what is longer than [`FIELD_BYTES`].
fn push_escaped(line: &mut String, format: Format, value: &str) {
    let limit = line.len() + FIELD_BYTES - '…'.len_utf8();
    for c in value.chars() {
        let before = line.len();
        match c {
            '"' => line.push_str("\\\""),
            '\\' => line.push_str("\\\\"),
            '\n' => line.push_str("\\n"),
            '\r' => line.push_str("\\r"),
            '\t' => line.push_str("\\t"),
            c if text::is_unsafe(c) && format == Format::Json => {
                // Every unsafe character is in the basic plane, so four digits do. Writing into a string cannot fail.
                let _ = write!(line, "\\u{:04x}", u32::from(c));
            }
            c if text::is_unsafe(c) => line.extend(c.escape_unicode()),
            c => line.push(c),
        }
        if line.len() > limit {
            line.truncate(before);
            line.push('…');
            return;
        }
    }
}

fn push_number(line: &mut String, number: u64) {
    // Writing into a string cannot fail.
    let _ = write!(line, "{number}");
}

/// The beginning of what `value` writes: no more than a field can show, however long the rest is.
fn head(value: &dyn fmt::Display) -> String {
    struct Head(String);
    impl fmt::Write for Head {
        fn write_str(&mut self, part: &str) -> fmt::Result {
            let room = (FIELD_BYTES + 1).saturating_sub(self.0.len());
            let end = (0..=room.min(part.len())).rev().find(|&end| part.is_char_boundary(end)).unwrap_or(0);
            self.0.push_str(&part[..end]);
            if end < part.len() { Err(fmt::Error) } else { Ok(()) }
        }
    }
    let mut head = Head(String::new());
    // An error means that the value is longer than the field, or that it failed to write itself: the head is shown.
    let _ = write!(head, "{value}");
    head.0
}

/// RFC 3339 in UTC, with milliseconds.
fn push_time(line: &mut String, unix_ms: u64) {
    let seconds = unix_ms / 1000;
    let (year, month, day) = civil_from_days(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let millis = unix_ms % 1000;
    let _ = write!(line, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
}

/// The Gregorian date of a day counted from 1970-01-01. Years are counted from March, so that a leap day comes last.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    const DAYS_FROM_YEAR_0_TO_1970: u64 = 719_468;
    let day = days + DAYS_FROM_YEAR_0_TO_1970;
    let era = day / DAYS_IN_400_YEARS;
    let of_era = day % DAYS_IN_400_YEARS;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, of_year - (153 * march_month + 2) / 5 + 1)
}

#[cfg(test)]
mod tests;
