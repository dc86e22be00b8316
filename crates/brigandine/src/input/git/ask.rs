//! Questions about a clone. A reader answers them, or git itself if libgit2 cannot read the clone.

use super::by_git;
use super::error::FetchError;
use super::repositories::{Bare, Repositories};
use crate::input::objects::ObjectError;
use crate::input::reader::{About, AskError, Question};
use crate::model::redact;
use crate::os::process::CaptureError;

impl Repositories {
    /// Asks about a clone. `doing` is the verb of messages about failures.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        clone: Bare<'_>,
        about: About,
    ) -> Result<Vec<u8>, FetchError> {
        if by_git::is_for(clone.path) {
            return by_git::answer(self, doing, clone, &about).await;
        }
        let generation = self.known(clone.path, |known| known.generation);
        let question = Question { clone: clone.path.as_os_str().to_owned(), generation, about };
        let time = self.fetch_timeout.get();
        let answer = self.readers.ask(&question, time).await;
        let url = redact(&clone.origin.url);
        let process = |source, url| FetchError::Process { doing, url, source };
        answer.map_err(|error| match error {
            AskError::Object(ObjectError::Refused(said)) => {
                FetchError::Refused { doing, url, said }
            }
            AskError::Object(ObjectError::Failed(said)) | AskError::Died(said) => {
                FetchError::Git { doing, url, said }
            }
            AskError::Timeout => process(CaptureError::Timeout(time), url),
            AskError::Io(error) => process(CaptureError::Io(error), url),
        })
    }
}
