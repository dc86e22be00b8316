//! Where an import comes from.

use super::cuirass::{
    Cuirass, CuirassBuild, CuirassError, CuirassEvaluation, CuirassSpecification,
};

/// Where an import comes from.
pub(super) trait Source {
    /// How many builds there are, and the highest id.
    fn size(&self) -> Result<(i64, i64), CuirassError>;
    /// How many outputs there are.
    fn outputs(&self) -> Result<i64, CuirassError>;
    /// All specifications.
    fn specifications(&self) -> Result<Vec<CuirassSpecification>, CuirassError>;
    /// All evaluations, by id.
    fn evaluations(&self) -> Result<Vec<CuirassEvaluation>, CuirassError>;
    /// Hands over the builds above `after`, by id; see [`Cuirass::builds`].
    fn builds(
        &self,
        after: i64,
        careful: bool,
        take: &mut dyn FnMut(CuirassBuild) -> bool,
    ) -> Result<(), CuirassError>;
}

/// Opens a source; each thread has its own.
pub(super) type Open<'o> = &'o (dyn Fn() -> Result<Box<dyn Source>, CuirassError> + Sync);

impl Source for Cuirass {
    fn size(&self) -> Result<(i64, i64), CuirassError> {
        self.size()
    }

    fn outputs(&self) -> Result<i64, CuirassError> {
        self.outputs()
    }

    fn specifications(&self) -> Result<Vec<CuirassSpecification>, CuirassError> {
        self.specifications()
    }

    fn evaluations(&self) -> Result<Vec<CuirassEvaluation>, CuirassError> {
        self.evaluations()
    }

    fn builds(
        &self,
        after: i64,
        careful: bool,
        take: &mut dyn FnMut(CuirassBuild) -> bool,
    ) -> Result<(), CuirassError> {
        self.builds(after, careful, take)
    }
}
