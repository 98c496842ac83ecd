//! The table of options: each has one place where its name, type, default, range and documentation are written, and the
//! file, the environment, the command line, the printed default and the documentation of the fields all come from it.

use std::fmt::Write as _;
use std::net::SocketAddr;

use toml::de::DeValue;

use super::secret::Secret;
use crate::log;
use crate::proto::origin::Origins;
use crate::proto::proxy::Cidr;

/// One option of a group of settings `T`.
pub struct Opt<T> {
    /// Its name in the file; upper-cased, in the environment.
    pub name: &'static str,
    /// Its documentation, a line each, as it stands on the field.
    pub doc: &'static [&'static str],
    /// The smallest and the largest number that it takes.
    pub range: Option<(u64, u64)>,
    /// Its value as TOML, or `None` when it is not set.
    pub get: fn(&T) -> Option<String>,
    /// Sets it from a value in a file.
    pub set_toml: fn(&mut T, &DeValue<'_>) -> Result<(), String>,
    /// Sets it from text: the environment or the command line.
    pub set_text: fn(&mut T, &str) -> Result<(), String>,
}

/// Declares a group of settings: the struct, its defaults, and its table of options.
///
/// `name: type = default;`, with `in MIN..=MAX` after the type for numbers. The documentation comment of a field is also
/// the comment in the printed configuration.
macro_rules! settings {
    (
        $(#[doc = $about:literal])*
        pub struct $group:ident {
            $(
                $(#[doc = $doc:literal])*
                $name:ident: $type:ty $(, in $min:literal..=$max:literal)? = $default:expr;
            )*
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $group {
            $( $(#[doc = $doc])* pub $name: $type, )*
        }

        impl Default for $group {
            fn default() -> Self {
                Self { $( $name: $default, )* }
            }
        }

        impl $group {
            /// The table of these options.
            pub const OPTIONS: &'static [$crate::config::table::Opt<Self>] = &[
                $( {
                    const RANGE: Option<(u64, u64)> = settings!(@range $($min, $max)?);
                    $crate::config::table::Opt {
                        name: stringify!($name),
                        doc: &[$($doc),*],
                        range: RANGE,
                        get: |group| $crate::config::table::Setting::to_toml(&group.$name),
                        set_toml: |group, value| $crate::config::table::assign(
                            &mut group.$name, $crate::config::table::Setting::from_toml(value), RANGE),
                        set_text: |group, text| $crate::config::table::assign(
                            &mut group.$name, $crate::config::table::Setting::from_text(text), RANGE),
                    }
                }, )*
            ];
        }
    };
    (@range) => { None };
    (@range $min:literal, $max:literal) => { Some(($min, $max)) };
}
pub(super) use settings;

/// Assigns a parsed value, if it is one and in its range.
pub(super) fn assign<S: Setting>(
    slot: &mut S,
    parsed: Result<S, String>,
    range: Option<(u64, u64)>,
) -> Result<(), String> {
    let value = parsed?;
    if let (Some((min, max)), Some(number)) = (range, value.number())
        && !(min..=max).contains(&number)
    {
        return Err(format!("must be {min} to {max}, not {number}"));
    }
    *slot = value;
    Ok(())
}

/// A type that an option can have.
pub(super) trait Setting: Sized {
    /// From a file.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String>;
    /// From the environment or the command line.
    fn from_text(text: &str) -> Result<Self, String>;
    /// As it would stand in a file; `None` when not set, or secret.
    fn to_toml(&self) -> Option<String>;
    /// The number, of numbers.
    fn number(&self) -> Option<u64> {
        None
    }
}

fn mismatch(expected: &str, value: &DeValue<'_>) -> String {
    format!("must be {expected}, not {} {}", article(value.type_str()), value.type_str())
}

fn article(word: &str) -> &'static str {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" }
}

macro_rules! number {
    ($($type:ty),*) => { $(
        impl Setting for $type {
            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                let integer = value.as_integer().ok_or_else(|| mismatch("a number", value))?;
                Self::from_str_radix(integer.as_str(), integer.radix())
                    .map_err(|_| format!("must be 0 to {}, not {}", Self::MAX, integer.as_str()))
            }
            fn from_text(text: &str) -> Result<Self, String> {
                text.trim().parse().map_err(|_| format!("must be a number from 0 to {}, not \"{text}\"", Self::MAX))
            }
            fn to_toml(&self) -> Option<String> {
                Some(self.to_string())
            }
            fn number(&self) -> Option<u64> {
                u64::try_from(*self).ok()
            }
        }
    )* };
}
number!(u32, u64, usize);

impl Setting for bool {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_bool().ok_or_else(|| mismatch("true or false", value))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        match text.trim() {
            "true" | "1" | "yes" | "on" => Ok(true),
            "false" | "0" | "no" | "off" => Ok(false),
            _ => Err(format!("must be true or false, not \"{text}\"")),
        }
    }
    fn to_toml(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Setting for String {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(str::to_owned).ok_or_else(|| mismatch("a text in quotes", value))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
    fn to_toml(&self) -> Option<String> {
        Some(quote(self))
    }
}

impl Setting for Secret {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        value.as_str().map(Self::new).ok_or_else(|| mismatch("a text in quotes", value))
    }
    fn from_text(text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }
    fn to_toml(&self) -> Option<String> {
        None
    }
}

impl<S: Setting> Setting for Option<S> {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        S::from_toml(value).map(Some)
    }
    /// Empty text unsets it: an environment can only set a variable to nothing.
    fn from_text(text: &str) -> Result<Self, String> {
        if text.is_empty() { Ok(None) } else { S::from_text(text).map(Some) }
    }
    fn to_toml(&self) -> Option<String> {
        self.as_ref().and_then(S::to_toml)
    }
    fn number(&self) -> Option<u64> {
        self.as_ref().and_then(S::number)
    }
}

/// What a list can hold.
pub(super) trait Item: Sized + ToString {
    fn parse(text: &str) -> Result<Self, String>;
}

impl Item for SocketAddr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            format!("\"{text}\" is not an address with a port, like 127.0.0.1:6001 or [::1]:6001")
        })
    }
}

impl Item for Cidr {
    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|error| format!("\"{text}\": {error}"))
    }
}

impl Item for Secret {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::new(text))
    }
}

impl Item for String {
    fn parse(text: &str) -> Result<Self, String> {
        Ok(text.to_owned())
    }
}

impl<I: Item> Setting for Vec<I> {
    /// A list, or one item by itself.
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        if let Some(text) = value.as_str() {
            return Ok(vec![I::parse(text)?]);
        }
        let items = value.as_array().ok_or_else(|| mismatch("a list of texts", value))?;
        items
            .iter()
            .map(|item| {
                let item = item.get_ref();
                I::parse(item.as_str().ok_or_else(|| mismatch("a list of texts", item))?)
            })
            .collect()
    }
    /// Separated by commas.
    fn from_text(text: &str) -> Result<Self, String> {
        text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(I::parse).collect()
    }
    fn to_toml(&self) -> Option<String> {
        let items: Vec<String> = self.iter().map(|item| quote(&item.to_string())).collect();
        Some(format!("[{}]", items.join(", ")))
    }
}

/// A list of rules. An empty one sets no rule: every origin is allowed.
impl Setting for Origins {
    fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
        origins(&Vec::from_toml(value)?)
    }
    fn from_text(text: &str) -> Result<Self, String> {
        origins(&Vec::from_text(text)?)
    }
    fn to_toml(&self) -> Option<String> {
        self.rules().map(|rule| rule.to_string()).collect::<Vec<String>>().to_toml()
    }
}

fn origins(rules: &[String]) -> Result<Origins, String> {
    if rules.is_empty() {
        return Ok(Origins::any());
    }
    Origins::parse(rules.iter().map(String::as_str)).map_err(|error| error.to_string())
}

/// A choice among names.
macro_rules! choice {
    ($type:ty: $($name:literal => $value:path),*) => {
        impl Setting for $type {
            fn from_toml(value: &DeValue<'_>) -> Result<Self, String> {
                Self::from_text(value.as_str().ok_or_else(|| mismatch("a text in quotes", value))?)
            }
            fn from_text(text: &str) -> Result<Self, String> {
                match text {
                    $($name => Ok($value),)*
                    _ => Err(format!("must be one of {}, not \"{text}\"", [$($name),*].join(", "))),
                }
            }
            fn to_toml(&self) -> Option<String> {
                match self { $($value => Some(quote($name)),)* }
            }
        }
    };
}
choice!(log::Level: "error" => log::Level::Error, "warn" => log::Level::Warn, "info" => log::Level::Info, "debug" => log::Level::Debug);
choice!(log::Format: "text" => log::Format::Text, "json" => log::Format::Json);

/// A basic TOML string.
fn quote(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            // Writing into a string cannot fail.
            c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
