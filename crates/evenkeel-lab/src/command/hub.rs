//! hub
use crate::machine::Places;
use clap::Args;
use std::io;
#[derive(Args)]
pub(crate) struct Hub {}
impl Hub {
    pub(crate) fn run(&self, _places: &Places) -> io::Result<()> {
        Ok(())
    }
}
