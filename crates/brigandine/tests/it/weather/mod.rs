//! Bad weather: strangers on the network, faulty machines, repositories as git makes them, and pages and commands
//! that must tell the truth meanwhile. Each test has one situation and its neighbours.

mod browser;
mod logs;
mod pages;
