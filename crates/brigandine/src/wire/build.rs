//! A build.

use std::collections::{BTreeMap, HashMap};

use schemars::JsonSchema;
use serde::Serialize;

use super::codes::{BuildCode, WeatherCode};
use crate::model::{Build, BuildId, BuildStatus, EvaluationId, Output, Product, Weather};
use crate::store::{Visible, visible};

/// A build as clients know it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Build")]
pub(crate) struct BuildJson {
    #[schemars(with = "i64")]
    id: BuildId,
    /// The name of the specification.
    jobset: String,
    job: String,
    /// When the build stopped; if it has not finished, when it was submitted.
    timestamp: i64,
    starttime: i64,
    stoptime: i64,
    derivation: String,
    buildoutputs: BTreeMap<String, OutputJson>,
    system: String,
    nixname: String,
    #[schemars(with = "BuildCode")]
    buildstatus: BuildStatus,
    /// 1: the build runs.
    #[schemars(range(max = 1))]
    busy: u8,
    priority: i64,
    #[schemars(range(max = 1))]
    finished: u8,
    /// Null: there are none.
    buildproducts: Option<Vec<ProductJson>>,
    releasename: Option<String>,
    #[serde(rename = "buildinputs_builds")]
    inputs_builds: Option<()>,
    // Fields of later versions of Cuirass and Hydra.
    evaluation: i64,
    #[schemars(with = "WeatherCode")]
    weather: Weather,
    project: String,
    drvpath: String,
    /// When the build was submitted, whether it has finished or not.
    queuedtime: i64,
    /// The latest evaluations that have the build; `None`: the list does not say so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Vec<i64>")]
    jobsetevals: Option<Vec<EvaluationId>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    buildmetrics: Option<MetricsJson>,
}

/// The metrics that a build of Hydra can state. This server has none.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Metrics")]
struct MetricsJson {}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Output")]
struct OutputJson {
    path: String,
}

#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Product")]
struct ProductJson {
    id: i64,
    r#type: String,
    #[serde(rename = "file-size")]
    file_size: i64,
    checksum: String,
    path: String,
    // Fields of Hydra.
    name: String,
    subtype: &'static str,
    defaultpath: &'static str,
    filesize: i64,
    sha256hash: String,
}

impl BuildJson {
    /// A build with its outputs and products.
    pub(crate) fn new(build: Build, outputs: Vec<Output>, products: Vec<Product>) -> Self {
        let finished = build.status.is_finished();
        let product = |product: Product| ProductJson {
            id: product.id.get(),
            r#type: product.kind,
            file_size: product.bytes,
            filesize: product.bytes,
            sha256hash: product.checksum.clone(),
            checksum: product.checksum,
            name: product.name,
            subtype: "",
            defaultpath: "",
            path: product.path,
        };
        Self {
            id: build.id,
            timestamp: if finished { build.stopped_at } else { build.submitted_at },
            starttime: build.started_at,
            stoptime: build.stopped_at,
            buildoutputs: outputs
                .into_iter()
                .map(|output| (output.name, OutputJson { path: output.path }))
                .collect(),
            system: build.system,
            nixname: build.nix_name,
            buildstatus: build.status,
            busy: u8::from(build.status == BuildStatus::Started),
            priority: build.priority,
            finished: u8::from(finished),
            buildproducts: (!products.is_empty())
                .then(|| products.into_iter().map(product).collect()),
            releasename: None,
            inputs_builds: None,
            evaluation: build.evaluation.get(),
            weather: build.weather,
            project: build.project,
            jobset: build.specification,
            job: build.job,
            queuedtime: build.submitted_at,
            jobsetevals: None,
            buildmetrics: None,
            drvpath: build.derivation.clone(),
            derivation: build.derivation,
        }
    }
}

/// An output and the build that has it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NamedOutput")]
pub(crate) struct NamedOutputJson {
    derivation: String,
    /// The name of the output in its build, such as `out`.
    name: String,
    build: BuildJson,
}

impl NamedOutputJson {
    /// The output of `build` at `path`; `None`: the build has none there.
    pub(crate) fn new(build: BuildJson, path: &str) -> Option<Self> {
        let (name, _) = build.buildoutputs.iter().find(|(_, output)| output.path == path)?;
        Some(Self { derivation: build.derivation.clone(), name: name.clone(), build })
    }
}

/// Builds with their outputs and products, which are read by two queries, however many builds there are.
pub(crate) fn builds_json(s: &Visible<'_>, builds: Vec<Build>) -> rusqlite::Result<Vec<BuildJson>> {
    let ids: Vec<_> = builds.iter().map(|build| build.id).collect();
    let mut outputs: HashMap<_, _> = visible::outputs(s, &ids)?;
    let mut products = visible::products(s, &ids)?;
    let json = |build: Build| {
        let outputs = outputs.remove(&build.id).unwrap_or_default();
        let products = products.remove(&build.id).unwrap_or_default();
        BuildJson::new(build, outputs, products)
    };
    Ok(builds.into_iter().map(json).collect())
}

/// The most evaluations that a build names.
const EVALUATIONS_MAX: u32 = 100;

/// Builds with the fields of [`builds_json`] and with the evaluations that have them, as clients of Hydra know them.
pub(crate) fn whole_builds_json(
    s: &Visible<'_>,
    builds: Vec<Build>,
) -> rusqlite::Result<Vec<BuildJson>> {
    let mut builds = builds_json(s, builds)?;
    for build in &mut builds {
        build.jobsetevals = Some(visible::evaluations_of_build(s, build.id, EVALUATIONS_MAX)?);
        build.buildmetrics = Some(MetricsJson {});
    }
    Ok(builds)
}
