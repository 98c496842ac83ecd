//! The command line that the examples share: `--backend NAME`, `--port N`, `--own-buffer`.

use std::io::{Error, ErrorKind};

use evenkeel::Backend;

/// What the user asked for.
#[allow(dead_code, reason = "each example uses what it needs")]
pub(crate) struct Args {
    pub(crate) backend: Backend,
    pub(crate) port: u16,
    pub(crate) own_buffer: bool,
    /// Other words, in order.
    pub(crate) rest: Vec<String>,
}

/// Reads the command line.
pub(crate) fn args(port: u16) -> std::io::Result<Args> {
    let mut args = Args { backend: Backend::from_env()?, port, own_buffer: false, rest: Vec::new() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || {
            words.next().ok_or_else(|| Error::new(ErrorKind::InvalidInput, format!("{word} needs a value")))
        };
        match word.as_str() {
            "--backend" => args.backend = value()?.parse()?,
            "--port" => args.port = value()?.parse().map_err(|e| Error::new(ErrorKind::InvalidInput, e))?,
            "--own-buffer" => args.own_buffer = true,
            _ if word.starts_with('-') => {
                let usage = "the options are --backend NAME, --port N and, for echo_async, --own-buffer";
                return Err(Error::new(ErrorKind::InvalidInput, format!("{word} is not known: {usage}")));
            }
            _ => args.rest.push(word),
        }
    }
    Ok(args)
}
