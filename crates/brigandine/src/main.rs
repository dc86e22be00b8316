//! The Brigandine server: arguments, configuration, `run`; nothing else.

fn main() {}
