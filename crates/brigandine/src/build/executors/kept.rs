//! The end of a job by what it leaves behind.

use crate::build::dispatch::{Lost, Outcome};
use crate::model::BuildStatus;
use crate::os::file::is_full;
use crate::outputs::{Kept, NotKept};

/// The end of a job whose command succeeded.
///
/// # Errors
/// The disk has no room for its outputs, which is no fault of the build.
pub(super) fn kept_or_not(kept: Result<Kept, NotKept>) -> Result<Outcome, Lost> {
    match kept {
        Ok(Kept { digest, products, hold, notes }) => Ok(Outcome {
            outputs: vec![("out".to_owned(), digest)],
            products,
            hold,
            notes,
            ..Outcome::ended(BuildStatus::Succeeded, String::new())
        }),
        Err(NotKept::Rule(message)) => Ok(Outcome::ended(BuildStatus::FailedOther, message)),
        Err(NotKept::Io(error)) => {
            let message = format!("cannot keep its outputs: {error}");
            match is_full(&error) {
                true => Err(Lost(message)),
                false => Ok(Outcome::ended(BuildStatus::FailedOther, message)),
            }
        }
    }
}
