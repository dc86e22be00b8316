//! SQLite for concurrent programs.
