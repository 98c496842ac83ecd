//! Query strings.

use std::borrow::Cow;

use crate::proto::percent::{PercentError, Plus, decode};

/// The decoded names and values of a query string, in order. A parameter without an equals sign has an empty value;
/// empty parameters are skipped.
///
/// ```
/// use evenkeel_hub::proto::head::query;
///
/// let pairs: Result<Vec<_>, _> = query::pairs("name=a%20b&flag").collect();
/// assert_eq!(pairs.unwrap(), [("name".into(), "a b".into()), ("flag".into(), "".into())]);
/// ```
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(Cow<'_, str>, Cow<'_, str>), PercentError>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(name, Plus::Space)?, decode(value, Plus::Space)?))
    })
}

/// The decoded value of the first parameter called `name`.
///
/// # Errors
///
/// That parameter, or one in front of it, cannot be decoded.
pub fn get<'q>(query: &'q str, name: &str) -> Result<Option<Cow<'q, str>>, PercentError> {
    for pair in pairs(query) {
        let (key, value) = pair?;
        if key == name {
            return Ok(Some(value));
        }
    }
    Ok(None)
}
