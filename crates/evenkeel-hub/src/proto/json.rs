//! A cheap look at JSON before it is parsed: how deep, and how many values. A parser's work and memory grow with both, and
//! both are the sender's choice.
//!
//! And objects that are objects: [`Object`].

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// How deep arrays and objects may nest, the outermost included.
pub const MAX_DEPTH: usize = 16;

/// How many values a text may hold. The count is taken from brackets and commas, so an empty object or array counts as
/// two.
pub const MAX_NODES: usize = 1_000;

/// Why a text is not even parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapeError {
    /// It nests deeper than [`MAX_DEPTH`].
    TooDeep,
    /// It holds more values than [`MAX_NODES`].
    TooManyNodes,
}

impl fmt::Display for ShapeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ShapeError::TooDeep => write!(f, "JSON that nests deeper than {MAX_DEPTH} levels"),
            ShapeError::TooManyNodes => write!(f, "JSON with more than {MAX_NODES} values"),
        }
    }
}

impl std::error::Error for ShapeError {}

/// Checks that `json` nests at most [`MAX_DEPTH`] deep and holds at most [`MAX_NODES`] values, in one pass over its bytes
/// that stops at the first excess and allocates nothing. Whether it is JSON at all is left to the parser.
///
/// ```
/// use evenkeel_hub::proto::json::{ShapeError, check_shape};
/// assert_eq!(check_shape(br#"{"a":["[[[["]}"#), Ok(()));
/// assert_eq!(check_shape(&[b'['; 64]), Err(ShapeError::TooDeep));
/// ```
///
/// # Errors
/// Whichever limit is passed first.
pub fn check_shape(json: &[u8]) -> Result<(), ShapeError> {
    let mut depth = 0_usize;
    // Each comma ends a value and each bracket is one, so this counts at least every value.
    let mut nodes = 1_usize;
    let mut bytes = json.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                nodes += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => nodes += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(ShapeError::TooDeep);
        }
        if nodes > MAX_NODES {
            return Err(ShapeError::TooManyNodes);
        }
    }
    Ok(())
}

/// A `T` that is written as an object with named fields, and in no other way: what is derived takes an array, too, for the
/// fields in the order of their declaration, which is nobody's protocol.
///
/// ```
/// use evenkeel_hub::proto::json::Object;
/// #[derive(serde::Deserialize)]
/// struct Point { x: u8, y: u8 }
/// let Object(point): Object<Point> = serde_json::from_str(r#"{"y":2,"x":1}"#).unwrap();
/// assert_eq!((point.x, point.y), (1, 2));
/// assert!(serde_json::from_str::<Point>("[1,2]").is_ok() && serde_json::from_str::<Object<Point>>("[1,2]").is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Fields<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields))
            }
        }
        from.deserialize_map(Fields(PhantomData)).map(Object)
    }
}

/// Moves past the closing quote of a string whose opening quote was just read.
fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), ShapeError> {
        check_shape(text.as_bytes())
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(ShapeError::TooDeep));
        assert_eq!(check(&"{\"a\":".repeat(17)), Err(ShapeError::TooDeep));
        assert_eq!(check(&"[".repeat(65_536)), Err(ShapeError::TooDeep));
    }

    #[test]
    fn the_number_of_values_is_bounded() {
        let list = |n: usize| format!("[{}]", vec!["1"; n].join(","));
        assert_eq!(check(&list(MAX_NODES - 1)), Ok(()));
        assert_eq!(check(&list(MAX_NODES)), Err(ShapeError::TooManyNodes));
        assert_eq!(check(&"[[],[],[]]".repeat(200)), Err(ShapeError::TooManyNodes));
    }

    #[test]
    fn strings_do_not_count_and_are_not_fooled_by_escapes() {
        let brackets = "[".repeat(100);
        assert_eq!(check(&format!("\"{brackets}\"")), Ok(()));
        assert_eq!(check(&format!("\"\\\"{brackets}\"")), Ok(()));
        assert_eq!(check(&format!("\"\\\\\"{brackets}")), Err(ShapeError::TooDeep));
        assert_eq!(check("\"unfinished"), Ok(()));
        assert_eq!(check("\"\\"), Ok(()));
    }
}
