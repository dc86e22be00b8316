//! The whole database compared with a map: one client step by step, where a failure is shrunk; and many clients at the
//! same time, whose history must be linearizable.
//!
//! Every write numbers itself: in its own transaction it raises `version` and notes its own identity in `history`. So
//! the file shows the order of the writes and which canceled writes were stored, and every answer names the version
//! that it saw. A history is linearizable if each answer is that of the map at its version, and if the versions agree
//! with real time: a call sees everything that was answered before the call was made. Because `history` gives the
//! order, no search for an order is needed.
//! answered before a call was made is seen by it. That order is a witness, so no search is needed.

mod history;
mod many;
mod map;
mod one;
