//! The Brigandine server: arguments, configuration, `run`; nothing else.

mod model;
mod store;

fn main() {}
