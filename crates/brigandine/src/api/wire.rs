//! What stands on the wire. The order of fields is that of the ancestor.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;

use crate::model::{
    Build, BuildId, BuildStatus, Checkout, Evaluation, EvaluationStatus, Evaluator, Input, Output,
    Product, Reference, Specification, Weather,
};
use crate::store::{self, Snapshot};

/// A build as clients know it.
#[derive(Debug, Serialize)]
pub(crate) struct BuildJson {
    id: BuildId,
    jobset: String,
    job: String,
    /// When it stopped if it is finished, else when it was submitted.
    timestamp: i64,
    starttime: i64,
    stoptime: i64,
    derivation: String,
    buildoutputs: BTreeMap<String, OutputJson>,
    system: String,
    nixname: String,
    buildstatus: BuildStatus,
    busy: u8,
    priority: i64,
    finished: u8,
    buildproducts: Option<Vec<ProductJson>>,
    releasename: Option<String>,
    #[serde(rename = "buildinputs_builds")]
    inputs_builds: Option<()>,
    // For clients of later years.
    evaluation: i64,
    weather: Weather,
    project: String,
    drvpath: String,
}

#[derive(Debug, Serialize)]
struct OutputJson {
    path: String,
}

#[derive(Debug, Serialize)]
struct ProductJson {
    id: i64,
    r#type: String,
    #[serde(rename = "file-size")]
    file_size: i64,
    checksum: String,
    path: String,
}

impl BuildJson {
    /// Puts a build and what it left behind together.
    pub(crate) fn new(build: Build, outputs: Vec<Output>, products: Vec<Product>) -> Self {
        let finished = build.status.is_finished();
        let product = |product: Product| ProductJson {
            id: product.id.get(),
            r#type: product.kind,
            file_size: product.bytes,
            checksum: product.checksum,
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
            project: build.specification.clone(),
            jobset: build.specification,
            job: build.job,
            drvpath: build.derivation.clone(),
            derivation: build.derivation,
        }
    }
}

/// Builds with what they left behind, in two further queries however many they are.
pub(crate) fn builds_json(s: &Snapshot, builds: Vec<Build>) -> rusqlite::Result<Vec<BuildJson>> {
    let ids: Vec<_> = builds.iter().map(|build| build.id).collect();
    let mut outputs: HashMap<_, _> = store::outputs(s, &ids)?;
    let mut products = store::products(s, &ids)?;
    let json = |build: Build| {
        let outputs = outputs.remove(&build.id).unwrap_or_default();
        let products = products.remove(&build.id).unwrap_or_default();
        BuildJson::new(build, outputs, products)
    };
    Ok(builds.into_iter().map(json).collect())
}

/// An evaluation as clients know it.
#[derive(Debug, Serialize)]
pub(crate) struct EvaluationJson {
    id: i64,
    specification: String,
    commits: Vec<String>,
    checkouts: Vec<CheckoutJson>,
    #[serde(rename = "in-progress")]
    in_progress: u8,
    status: EvaluationStatus,
    timestamp: i64,
    checkouttime: i64,
    evaltime: i64,
}

#[derive(Debug, Serialize)]
struct CheckoutJson {
    commit: String,
    input: String,
    channel: String,
}

impl EvaluationJson {
    /// Puts an evaluation and its checkouts together.
    pub(crate) fn new(evaluation: Evaluation, checkouts: Vec<Checkout>) -> Self {
        Self {
            id: evaluation.id.get(),
            specification: evaluation.specification,
            commits: checkouts.iter().map(|checkout| checkout.revision.clone()).collect(),
            checkouts: checkouts
                .into_iter()
                .map(|checkout| CheckoutJson {
                    commit: checkout.revision,
                    channel: checkout.input.clone(),
                    input: checkout.input,
                })
                .collect(),
            in_progress: u8::from(evaluation.status == EvaluationStatus::Started),
            status: evaluation.status,
            timestamp: evaluation.created_at,
            checkouttime: evaluation.checkout_at,
            evaltime: evaluation.finished_at,
        }
    }
}

/// A specification as clients know it. What Cuirass calls a procedure is here the evaluator.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct SpecificationJson {
    name: String,
    load_path_inputs: Vec<String>,
    package_path_inputs: Vec<String>,
    proc_input: String,
    proc_file: String,
    proc: &'static str,
    proc_args: serde_json::Map<String, serde_json::Value>,
    inputs: Vec<InputJson>,
}

#[derive(Debug, Serialize)]
struct InputJson {
    name: String,
    url: String,
    #[serde(rename = "load-path")]
    load_path: &'static str,
    branch: OrFalse,
    tag: OrFalse,
    commit: OrFalse,
    #[serde(rename = "no-compile?")]
    no_compile: bool,
}

/// A text, or `false` where there is none.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum OrFalse {
    Text(String),
    False(bool),
}

impl From<Option<&String>> for OrFalse {
    fn from(text: Option<&String>) -> Self {
        text.map_or(Self::False(false), |text| Self::Text(text.clone()))
    }
}

impl From<&Input> for InputJson {
    fn from(input: &Input) -> Self {
        let (mut branch, mut tag, mut commit) = (None, None, None);
        match &input.reference {
            Reference::Branch(name) => branch = Some(name),
            Reference::Tag(name) => tag = Some(name),
            Reference::Revision(revision) => commit = Some(revision),
            Reference::Head => {}
        }
        Self {
            name: input.name.clone(),
            url: input.url.clone(),
            load_path: ".",
            branch: branch.into(),
            tag: tag.into(),
            commit: commit.into(),
            no_compile: false,
        }
    }
}

impl From<&Specification> for SpecificationJson {
    fn from(specification: &Specification) -> Self {
        let first = || specification.inputs.first().map(|input| input.name.clone());
        let evaluator = &specification.evaluator;
        let (proc_file, proc, proc_args) = match evaluator {
            Evaluator::Jobs { file, .. } => (file.clone(), "jobs", serde_json::Map::new()),
            Evaluator::Command { command, arguments, .. } => {
                (command.first().cloned().unwrap_or_default(), "command", arguments.clone())
            }
        };
        Self {
            name: specification.name.clone(),
            load_path_inputs: Vec::new(),
            package_path_inputs: Vec::new(),
            proc_input: evaluator.input().map(str::to_owned).or_else(first).unwrap_or_default(),
            proc_file,
            proc,
            proc_args,
            inputs: specification.inputs.iter().map(InputJson::from).collect(),
        }
    }
}
