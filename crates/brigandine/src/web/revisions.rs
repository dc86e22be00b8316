//! Revisions as pages show them, with links to the pages of their forges.

use super::view;
use crate::model::{self, Checkout, Input, Reference, SpecificationId};
use crate::store::{Visible, visible};

/// A checkout.
pub(super) struct Revision {
    pub(super) input: String,
    /// The branch or tag that the specification names now; empty: it names neither, or the input is gone.
    pub(super) branch: String,
    pub(super) full: String,
    /// The page of the revision; empty: none is known.
    pub(super) link: String,
    pub(super) subject: String,
    pub(super) author: String,
    /// The revision with which this one is compared; empty: there is none, or it is the same.
    pub(super) before: String,
    /// The page with the revisions between them; empty: none is known.
    pub(super) range: String,
}

impl Revision {
    pub(super) fn short(&self) -> &str {
        view::short(&self.full)
    }

    pub(super) fn short_before(&self) -> &str {
        view::short(&self.before)
    }
}

/// The inputs of a specification as it is now. Checkouts do not know from where they came.
pub(super) fn inputs(s: &Visible<'_>, of: SpecificationId) -> rusqlite::Result<Vec<Input>> {
    let found = visible::specification_by_id(s, of)?;
    Ok(found.map(|state| state.specification.inputs).unwrap_or_default())
}

/// Checkouts with their links. `before`: those with which they are compared.
pub(super) fn revisions(
    checkouts: Vec<Checkout>,
    before: &[Checkout],
    inputs: &[Input],
) -> Vec<Revision> {
    let one = |checkout: Checkout| {
        let Checkout { input: name, revision, subject, author, .. } = checkout;
        let input = inputs.iter().find(|input| input.name == name);
        let before = before.iter().find(|one| one.input == name && one.revision != revision);
        let before = before.map(|one| one.revision.clone()).unwrap_or_default();
        let url = input.map_or("", |input| &input.url);
        Revision {
            branch: match input.map(|input| &input.reference) {
                Some(Reference::Branch(name)) => name.clone(),
                Some(Reference::Tag(name)) => format!("tag {name}"),
                Some(Reference::Revision(_) | Reference::Head) | None => String::new(),
            },
            link: model::commit_page(url, &revision).unwrap_or_default(),
            range: model::range_page(url, &before, &revision).unwrap_or_default(),
            input: name,
            full: revision,
            subject,
            author,
            before,
        }
    };
    checkouts.into_iter().map(one).collect()
}

/// The checkouts that differ from those before, input by input.
pub(super) fn differing(checkouts: Vec<Checkout>, before: &[Checkout]) -> Vec<Checkout> {
    let same = |one: &Checkout| {
        before.iter().any(|past| past.input == one.input && past.revision == one.revision)
    };
    checkouts.into_iter().filter(|one| !same(one)).collect()
}
