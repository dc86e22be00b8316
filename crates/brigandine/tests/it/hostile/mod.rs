//! A person who may push, or who writes a specification, tries to reach what is somebody else's.

mod bounds;
mod identity;
mod sharing;
mod submodules;
mod turns;
