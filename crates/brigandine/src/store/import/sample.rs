//! A source with any number of sample builds: four specifications, evaluations of two thousand jobs, names and store
//! paths of usual lengths. The same number always gives the same builds.

use super::source::{
    CuirassBuild, CuirassEvaluation, CuirassInput, CuirassSpecification, LeftOut, Result, Source,
};
use crate::model::{BuildStatus, Weather};
use crate::store::derivations::derivation_key;

/// The number of jobs of an evaluation.
const JOBS: i64 = 2000;
/// The number of all packages. An evaluation has jobs for [`JOBS`] consecutive packages.
const PACKAGES: i64 = 9000;
/// The time of the first evaluation.
const BEGAN: i64 = 1_700_000_000;
/// The name of each specification, and its share of the evaluations in percent.
const SPECIFICATIONS: [(&str, u64); 4] =
    [("main", 44), ("modules", 40), ("staging", 13), ("small", 3)];

/// A source of this many builds.
pub(super) struct Sample {
    builds: i64,
}

/// Mixes a number so that its digits look random (the finalizer of splitmix64).
pub fn mix(n: i64) -> u64 {
    let mut z = n.cast_unsigned().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Sample {
    pub(super) const fn new(builds: i64) -> Self {
        Self { builds }
    }

    const fn evaluation_count(&self) -> i64 {
        (self.builds + JOBS - 1) / JOBS
    }

    fn specification_of(evaluation: i64) -> &'static str {
        let mut roll = mix(evaluation) % 100;
        for (name, share) in SPECIFICATIONS {
            if roll < share {
                return name;
            }
            roll -= share;
        }
        SPECIFICATIONS[0].0
    }

    fn build(&self, id: i64) -> CuirassBuild {
        let evaluation = (id - 1) / JOBS + 1;
        let (dice, more) = (mix(id), mix(-id));
        let package =
            (mix(evaluation).cast_signed().rem_euclid(PACKAGES) + (id - 1) % JOBS) % PACKAGES;
        let name = format!(
            "package-{}-{}.{}.{}",
            mix(package) % 100_000,
            package % 12,
            package % 30,
            evaluation / 200
        );
        let system = if dice % 100 < 55 { "x86_64-linux" } else { "i686-linux" };
        let derivation = format!("/gnu/store/{dice:016x}{more:016x}-{name}.drv");
        let timestamp = BEGAN + evaluation * 7000 + (id - 1) % JOBS / 100;
        let status = match dice / 100 % 100 {
            // Some of the last twentieth of the builds are scheduled.
            0..60 if id > self.builds - self.builds / 20 => BuildStatus::Scheduled,
            0..93 => BuildStatus::Succeeded,
            93..98 => BuildStatus::Failed,
            98 => BuildStatus::FailedDependency,
            _ => BuildStatus::Canceled,
        };
        let started_at = timestamp + (more % 5000).cast_signed();
        let mut outputs =
            vec![("out".to_owned(), format!("/gnu/store/{more:016x}{dice:016x}-{name}"))];
        if more % 10 < 3 {
            outputs.push(("doc".to_owned(), format!("/gnu/store/{more:032x}-{name}-doc")));
        }
        CuirassBuild {
            id,
            derivation_key: derivation_key(&derivation),
            derivation,
            evaluation,
            job: Some(format!("{name}.{system}")),
            system: system.to_owned(),
            nix_name: name,
            status,
            weather: Weather::Unknown,
            timestamp,
            started_at,
            stopped_at: started_at + 1 + (dice % 900).cast_signed(),
            priority: 0,
            timeout_s: 0,
            max_silent_s: 0,
            has_log: false,
            outputs,
        }
    }
}

impl Source for Sample {
    fn size(&self) -> Result<(i64, i64)> {
        Ok((self.builds, self.builds))
    }

    fn outputs(&self) -> Result<i64> {
        let count = (1..=self.builds).map(|id| if mix(-id) % 10 < 3 { 2 } else { 1 });
        Ok(count.sum())
    }

    fn left_out(&self) -> Result<Vec<LeftOut>> {
        Ok(Vec::new())
    }

    fn specifications(&self) -> Result<Vec<CuirassSpecification>> {
        let specification = |(name, _): (&str, u64)| CuirassSpecification {
            name: name.to_owned(),
            load_path_inputs: String::new(),
            package_path_inputs: String::new(),
            proc_input: "source".to_owned(),
            proc_file: "jobs".to_owned(),
            proc: String::new(),
            proc_args: String::new(),
            build_outputs: None,
            priority: 0,
            inputs: vec![CuirassInput {
                name: "source".to_owned(),
                url: "https://example.org/source.git".to_owned(),
                load_path: String::new(),
                no_compile: false,
                branch: Some(name.to_owned()),
                tag: None,
                revision: None,
            }],
        };
        Ok(SPECIFICATIONS.map(specification).to_vec())
    }

    fn evaluations(&self) -> Result<Vec<CuirassEvaluation>> {
        let evaluation = |id| CuirassEvaluation {
            id,
            specification: Self::specification_of(id).to_owned(),
            checkouts: vec![(None, format!("{:016x}{:016x}{:08x}", mix(id), mix(-id), id))],
            status: 0,
            timestamp: BEGAN + id * 7000,
            checkout_at: 0,
            finished_at: 0,
        };
        Ok((1..=self.evaluation_count()).map(evaluation).collect())
    }

    fn builds(
        &self,
        after: i64,
        _: bool,
        take: &mut dyn FnMut(CuirassBuild) -> bool,
    ) -> Result<()> {
        for id in after + 1..=self.builds {
            if !take(self.build(id)) {
                break;
            }
        }
        Ok(())
    }
}
