//! The whole database against a map: one client, step by step, with shrinking; and many clients at
//! once, whose history must be linearizable.
//!
//! Every write numbers itself: it raises `version` and notes its own identity in `history`, in its
//! own transaction. So the file says in which order the writes took effect, which canceled ones
//! did, and every answer can name the version that it saw. A history is linearizable if the answers
//! are those of the map at their versions, and if the versions agree with real time: what was
//! answered before a call was made is seen by it. That order is a witness, so no search is needed.

mod history;
mod many;
mod map;
mod one;
