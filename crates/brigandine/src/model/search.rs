//! What a search looks for, as people write it: `spec:hello status:failed compile`.

use super::BuildStatus;

/// The most characters of a search.
const CHARS_MAX: usize = 500;

/// What a search looks for: builds that fit everything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Search {
    /// The name of the specification.
    pub specification: Option<String>,
    /// The name of the job.
    pub job: Option<String>,
    /// The system.
    pub system: Option<String>,
    /// The status.
    pub status: Option<BuildStatus>,
    /// Text in the name of an author of the evaluation's revisions, in lower case.
    pub author: Option<String>,
    /// Texts in the name of the job, in lower case.
    pub texts: Vec<String>,
}

impl Search {
    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Adds a word.
    fn add(&mut self, Word { field, value, .. }: Word) -> Result<(), String> {
        let Some(field) = field else {
            self.texts.extend(Some(value.to_lowercase()).filter(|text| !text.is_empty()));
            return Ok(());
        };
        if value.is_empty() {
            return Err(format!("nothing stands behind `{field}:`"));
        }
        let is_new = match &*field {
            "spec" => self.specification.replace(value).is_none(),
            "job" => self.job.replace(value).is_none(),
            "system" => self.system.replace(value).is_none(),
            "status" => self.status.replace(status(&value)?).is_none(),
            "author" => self.author.replace(value.to_lowercase()).is_none(),
            _ => {
                return Err(format!(
                    "`{field}:` is no field of a search; there are spec, job, system, status and author. \
                     A text with a colon stands in quotation marks"
                ));
            }
        };
        if is_new { Ok(()) } else { Err(format!("`{field}:` is there twice")) }
    }
}

impl std::str::FromStr for Search {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.chars().count() > CHARS_MAX {
            return Err(format!("a search may have at most {CHARS_MAX} characters"));
        }
        let mut search = Self::default();
        words(text)?.into_iter().try_for_each(|word| search.add(word))?;
        Ok(search)
    }
}

/// A status by its name, or by the word that pages show.
fn status(text: &str) -> Result<BuildStatus, String> {
    match text {
        "queued" => Ok(BuildStatus::Scheduled),
        "running" => Ok(BuildStatus::Started),
        _ => text.parse(),
    }
}

/// A word of a search.
#[derive(Default)]
struct Word {
    /// What stands before the first colon; `None`: there is no colon in front of all quotation marks.
    field: Option<String>,
    value: String,
    /// Whether there was a quotation mark.
    quoted: bool,
}

/// The words of a text, which blanks divide unless they are quoted.
fn words(text: &str) -> Result<Vec<Word>, String> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    let mut is_open = false;
    for c in text.chars() {
        if c.is_whitespace() && !is_open {
            words.extend(word.take());
            continue;
        }
        let word = word.get_or_insert_default();
        match c {
            '"' => {
                is_open = !is_open;
                word.quoted = true;
            }
            ':' if !word.quoted && word.field.is_none() => {
                word.field = Some(std::mem::take(&mut word.value));
            }
            _ => word.value.push(c),
        }
    }
    words.extend(word);
    if is_open { Err("a quotation mark has no second one".to_owned()) } else { Ok(words) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_fields_and_texts() {
        let text = "spec:hello  job:a:b Compile system:x86_64-linux\tstatus:running author:\"Ada L\" \"b:C d\" \"\"";
        let search: Search = text.parse().expect("a search");
        let wanted = Search {
            specification: Some("hello".to_owned()),
            job: Some("a:b".to_owned()),
            system: Some("x86_64-linux".to_owned()),
            status: Some(BuildStatus::Started),
            author: Some("ada l".to_owned()),
            texts: vec!["compile".to_owned(), "b:c d".to_owned()],
        };
        assert_eq!(search, wanted);
        assert!(" \t\"\" ".parse::<Search>().expect("a search").is_empty());
    }

    #[test]
    fn what_is_no_search_is_told_in_words() {
        let long = "x".repeat(501);
        for (text, part) in [
            ("specification:x", "`specification:` is no field"),
            (":x", "`:` is no field"),
            ("job:", "nothing stands behind `job:`"),
            ("job:\"\"", "nothing stands behind `job:`"),
            ("spec:a x spec:b", "`spec:` is there twice"),
            ("status:bad", "unknown status `bad`; known are scheduled, started"),
            ("a \"b", "a quotation mark has no second one"),
            (&*long, "at most 500 characters"),
        ] {
            let refusal = text.parse::<Search>().expect_err(text);
            assert!(refusal.contains(part), "{text}: {refusal}");
        }
    }
}
