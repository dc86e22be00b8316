//! Row numbers. Each table has a type of its own, so that the compiler distinguishes them.

use serde::{Deserialize, Serialize};

/// The row number of a specification.
pub type SpecificationId = Id<SpecificationRow>;
/// The row number of an evaluation.
pub type EvaluationId = Id<EvaluationRow>;
/// The row number of a build; clients see it in `/build/ID`.
pub type BuildId = Id<BuildRow>;
/// The row number of a product; clients see it in `/download/ID`.
pub type ProductId = Id<ProductRow>;

/// The table `specification`, as a type parameter of [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SpecificationRow {}
/// The table `evaluation`, as a type parameter of [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EvaluationRow {}
/// The table `build`, as a type parameter of [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BuildRow {}
/// The table `product`, as a type parameter of [`Id`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProductRow {}

/// A row number of the table that `T` stands for. Serialised as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id<T>(pub i64, #[serde(skip)] std::marker::PhantomData<T>);

impl<T> Id<T> {
    /// Wraps a row number.
    pub const fn new(id: i64) -> Self {
        Self(id, std::marker::PhantomData)
    }

    /// The row number.
    pub const fn get(&self) -> i64 {
        self.0
    }
}

impl<T> std::fmt::Display for Id<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> std::str::FromStr for Id<T> {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self::new)
    }
}

impl<T> rusqlite::ToSql for Id<T> {
    fn to_sql(&self) -> rusqlite::Result<rusqlite::types::ToSqlOutput<'_>> {
        Ok(self.0.into())
    }
}

impl<T> rusqlite::types::FromSql for Id<T> {
    fn column_result(value: rusqlite::types::ValueRef<'_>) -> rusqlite::types::FromSqlResult<Self> {
        i64::column_result(value).map(Self::new)
    }
}
