//! Compares the store with the pure state machine, over random steps.

use super::*;
use crate::model::{Actor, Asked, Change, Outcome, Target};
use crate::store::query::Query;
use std::collections::BTreeMap;

/// A build of the model: its state, and the builds that it needs.
#[derive(Debug, Clone)]
struct Modelled {
    state: State,
    needs: BTreeSet<usize>,
    /// Its place in the queue.
    rank: (i64, i64, String),
    /// The attempt for which a cancel was requested, and whether only for the sake of an evaluation.
    to_cancel: Option<(i64, bool)>,
}

#[derive(Default)]
struct Model {
    builds: Vec<Modelled>,
    /// The builds of each evaluation, and whether it was canceled.
    evaluations: Vec<(BTreeSet<usize>, bool)>,
}

impl Model {
    fn happen(&mut self, index: usize, happening: Happening) {
        let Some(next) = self.builds[index].state.after(happening) else { return };
        self.turn(index, next);
        let by_itself = [BuildStatus::Succeeded, BuildStatus::Failed].contains(&next.status);
        if matches!(happening, Happening::Ended(..)) && by_itself {
            for twin in self.pending_twins(index) {
                self.turn(twin, State { status: next.status, ..self.builds[twin].state });
            }
        }
    }

    /// A build has another state. Those that need it are told if it has ended.
    fn turn(&mut self, index: usize, next: State) {
        let before = std::mem::replace(&mut self.builds[index].state, next).status;
        if before == next.status || !next.status.is_finished() {
            return;
        }
        let told = if next.status.is_success() {
            Happening::DependencySucceeded
        } else {
            Happening::DependencyFailed
        };
        for other in self.needed_by(index) {
            self.happen(other, told);
        }
    }

    fn needed_by(&self, index: usize) -> Vec<usize> {
        (0..self.builds.len()).filter(|other| self.builds[*other].needs.contains(&index)).collect()
    }

    fn status(&self, index: usize) -> BuildStatus {
        self.builds[index].state.status
    }

    /// Other builds of the same derivation that are scheduled.
    fn pending_twins(&self, index: usize) -> Vec<usize> {
        let is_twin = |other: &usize| {
            *other != index
                && self.builds[*other].rank.2 == self.builds[index].rank.2
                && self.status(*other) == BuildStatus::Scheduled
        };
        (0..self.builds.len()).filter(is_twin).collect()
    }

    /// Whether an evaluation that was not canceled, other than `but`, has the build.
    fn is_wanted(&self, index: usize, but: Option<usize>) -> bool {
        let mut evaluations = self.evaluations.iter().enumerate();
        evaluations.any(|(place, (builds, canceled))| {
            Some(place) != but && !canceled && builds.contains(&index)
        })
    }

    /// An attempt ends as canceled, or without a result.
    fn come_to_nothing(&mut self, index: usize, attempt: i64, happening: Happening) {
        match self.builds[index].to_cancel {
            Some((of, false)) if of == attempt => {
                self.happen(index, Happening::Ended(attempt, BuildStatus::Canceled));
            }
            // It was canceled with an evaluation, and another one may want it since.
            Some((of, true)) if of == attempt => {
                let happening = match self.is_wanted(index, None) {
                    true => Happening::Stopped(attempt),
                    false => Happening::Ended(attempt, BuildStatus::Canceled),
                };
                self.happen(index, happening);
            }
            _ => self.happen(index, happening),
        }
    }

    /// Schedules a build that has ended, and those that failed because of it.
    fn restart(&mut self, index: usize) {
        for (builds, canceled) in &mut self.evaluations {
            *canceled &= !builds.contains(&index);
        }
        let mut open = vec![index];
        while let Some(index) = open.pop() {
            let done = |need: &&usize| self.status(**need).is_success();
            let needs = &self.builds[index].needs;
            let waiting = needs.len() - needs.iter().filter(done).count();
            let attempt = self.builds[index].state.attempt;
            let waiting = i64::try_from(waiting).expect("small");
            self.builds[index].state =
                State { status: BuildStatus::Scheduled, attempt, losses: 0, waiting };
            for other in self.needed_by(index) {
                if self.status(other) == BuildStatus::FailedDependency && !self.is_broken(other) {
                    open.push(other);
                }
            }
        }
    }

    /// Whether a build that this one needs has ended without success.
    fn is_broken(&self, index: usize) -> bool {
        let broken = |need: &usize| {
            let status = self.status(*need);
            status.is_finished() && !status.is_success()
        };
        self.builds[index].needs.iter().any(broken)
    }

    /// Cancels an evaluation. Returns whether it had a pending build.
    fn withdraw(&mut self, evaluation: usize) -> bool {
        let builds = self.evaluations[evaluation].0.clone();
        if builds.iter().all(|index| self.status(*index).is_finished()) {
            return false;
        }
        self.evaluations[evaluation].1 = true;
        loop {
            let pending = |other: &usize| !self.status(*other).is_finished();
            let next = builds.iter().copied().find(|index| {
                let Modelled { state, to_cancel, .. } = &self.builds[*index];
                pending(index)
                    && to_cancel.is_none_or(|(of, _)| of != state.attempt)
                    && !self.is_wanted(*index, Some(evaluation))
                    && !self.needed_by(*index).iter().any(pending)
            });
            let Some(index) = next else { return true };
            if self.status(index) == BuildStatus::Started {
                self.builds[index].to_cancel = Some((self.builds[index].state.attempt, true));
            } else {
                self.happen(index, Happening::Cancel);
            }
        }
    }

    /// The builds that are started next: of several of one derivation only one, and none while another one runs.
    fn ready(&self, limit: usize) -> Vec<usize> {
        let derivation = |index: &usize| self.builds[*index].rank.2.clone();
        let mut seen: BTreeSet<String> = self.started().iter().map(derivation).collect();
        let mut ready: Vec<usize> = (0..self.builds.len())
            .filter(|index| self.builds[*index].state.after(Happening::Claimed).is_some())
            .collect();
        ready.sort_by_key(|index| (self.builds[*index].rank.clone(), *index));
        ready.retain(|index| seen.insert(derivation(index)));
        ready.truncate(limit);
        ready
    }

    /// The build to which a job of this derivation is linked; `None`: it gets one of its own.
    fn known(&self, derivation: &str) -> Option<usize> {
        let mut of = (0..self.builds.len()).rev().filter(|i| self.builds[*i].rank.2 == derivation);
        let serves = |index: &usize| {
            self.status(*index) != BuildStatus::Canceled || self.is_wanted(*index, None)
        };
        of.clone().find(|index| self.status(*index).is_success()).or_else(|| of.find(serves))
    }

    fn started(&self) -> Vec<usize> {
        let started = |index: &usize| self.builds[*index].state.status == BuildStatus::Started;
        (0..self.builds.len()).filter(started).collect()
    }
}

/// Registers an evaluation with new jobs, which need earlier ones, and with some jobs that are known already.
async fn evaluate(database: &Database, model: &mut Model, dice: &mut Dice, round: i64) {
    let mut jobs: Vec<NewJob> = Vec::new();
    let mut places: Vec<usize> = Vec::new();
    for _ in 0..dice.roll(8) + 1 {
        let again = !model.builds.is_empty() && dice.roll(3) == 0;
        let derivation = match again {
            true => model.builds[dice.roll(model.builds.len())].rank.2.clone(),
            false => format!("{:04}.drv", model.builds.len()),
        };
        let known = model.known(&derivation);
        let index = known.unwrap_or(model.builds.len());
        let mut needs = Vec::new();
        let mut priority = 0;
        if known.is_none() {
            let mut state =
                State { status: BuildStatus::Scheduled, attempt: 0, losses: 0, waiting: 0 };
            let mut wanted = BTreeSet::new();
            for _ in 0..if again { 0 } else { dice.roll(3).min(jobs.len()) } {
                let place = dice.roll(jobs.len());
                if wanted.insert(places[place]) {
                    needs.push((format!("n{place}"), place));
                }
            }
            for need in &wanted {
                let status = model.builds[*need].state.status;
                if !status.is_success() {
                    state.waiting += 1;
                }
                if status.is_finished() && !status.is_success() {
                    state.status = BuildStatus::FailedDependency;
                }
            }
            priority = i64::try_from(dice.roll(3)).expect("small");
            let rank = (-priority, round, derivation.clone());
            model.builds.push(Modelled { state, needs: wanted, rank, to_cancel: None });
        }
        places.push(index);
        jobs.push(NewJob {
            name: format!("j{}", jobs.len()),
            derivation,
            system: "s".to_owned(),
            nix_name: "n".to_owned(),
            priority,
            timeout_s: 0,
            max_silent_s: 0,
            definition: Some("{}".to_owned()),
            needs,
        });
    }
    model.evaluations.push((places.iter().copied().collect(), false));
    write(database, move |tx| {
        let stamp = format!("stamp {round}");
        let begun = begin_evaluation(tx, SpecificationId::new(1), &stamp, &[], "", round)?;
        assert_eq!(begun, Begun::New(EvaluationId::new(round)));
        assert!(register(tx, EvaluationId::new(round), &jobs, "", "", round)?.is_some());
        assert!(
            register(tx, EvaluationId::new(round), &jobs, "", "", round)?.is_none(),
            "only once"
        );
        Ok(())
    })
    .await;
}

fn id(index: usize) -> BuildId {
    BuildId::new(i64::try_from(index).expect("small") + 1)
}

/// How many builds have ended with each status.
async fn ended_by_status(database: &Database) -> BTreeMap<i64, i64> {
    let sql = "SELECT status, count(*) FROM build WHERE status >= 0 GROUP BY status";
    let read = database.read(move |s| {
        let rows: Vec<(i64, i64)> = s.all(sql, [], |row| row.try_into())?;
        Ok(rows)
    });
    read.await.expect("reads").into_iter().collect()
}

async fn step(database: &Database, model: &mut Model, dice: &mut Dice, now: i64) {
    let started = model.started();
    let pick = |dice: &mut Dice| started.get(dice.roll(started.len().max(1))).copied();
    match dice.roll(14) {
        0..=2 => {
            let limit = dice.roll(4) + 1;
            let claimed = write(database, move |tx| claim_for(tx, "s", limit, now)).await;
            let expected = model.ready(limit);
            let found: Vec<BuildId> = claimed.iter().map(|claimed| claimed.changed.id).collect();
            assert_eq!(found, expected.iter().map(|index| id(*index)).collect::<Vec<_>>());
            for index in expected {
                model.happen(index, Happening::Claimed);
            }
        }
        3..=6 => {
            if let Some(index) = pick(dice) {
                end(database, model, dice, index, now).await;
            }
        }
        7 => {
            if let Some(index) = pick(dice) {
                vanish(database, model, dice, index, now).await;
            }
        }
        8 => cancel_one(database, model, dice, now).await,
        9 | 10 => {
            let index = dice.roll(model.builds.len());
            let outcome = ask(database, Change::Restart, Target::Build(id(index)), now).await;
            let status = model.status(index);
            let may = status.is_finished() && !status.is_success() && !model.is_broken(index);
            assert_eq!(matches!(outcome, Outcome::Done(_)), may, "{status}: {outcome:?}");
            if may {
                model.restart(index);
            }
        }
        11 => {
            let index = dice.roll(model.builds.len());
            let outcome = ask(database, Change::Bump, Target::Build(id(index)), now).await;
            let may = model.status(index) == BuildStatus::Scheduled;
            assert_eq!(outcome == Outcome::Done(0), may, "{outcome:?}");
            if may {
                bumped(database, model, index).await;
            }
        }
        12 => {
            let evaluation = dice.roll(model.evaluations.len());
            let number = i64::try_from(evaluation).expect("small") + 1;
            let target = Target::Evaluation(EvaluationId::new(number));
            let outcome = ask(database, Change::Cancel, target, now).await;
            let may = model.withdraw(evaluation);
            assert_eq!(matches!(outcome, Outcome::Many(_)), may, "{outcome:?}");
        }
        _ => {
            let before = ended_by_status(database).await;
            let recovered = write(database, move |tx| recover(tx, now)).await;
            assert_eq!(recovered.builds.len(), started.len());
            let mut after = before;
            let told = recovered.changed.iter().map(|changed| changed.status);
            for status in told.filter(|status| status.is_finished()) {
                *after.entry(status.code()).or_default() += 1;
            }
            assert_eq!(after, ended_by_status(database).await, "a recovery tells each end");
            for index in started {
                let attempt = model.builds[index].state.attempt;
                model.come_to_nothing(index, attempt, Happening::Stopped(attempt));
            }
        }
    }
}

/// Asks for the cancellation of a build.
async fn cancel_one(database: &Database, model: &mut Model, dice: &mut Dice, now: i64) {
    let index = dice.roll(model.builds.len());
    let outcome = ask(database, Change::Cancel, Target::Build(id(index)), now).await;
    let state = model.builds[index].state;
    match outcome {
        Outcome::Done(_) => assert_eq!(state.status, BuildStatus::Scheduled),
        Outcome::Ending(attempt) => {
            assert_eq!((state.status, state.attempt), (BuildStatus::Started, attempt));
            model.builds[index].to_cancel = Some((attempt, false));
        }
        _ => assert!(state.status.is_finished(), "{outcome:?}"),
    }
    model.happen(index, Happening::Cancel);
}

/// Ends a started build. One in five of these ends comes from an earlier attempt.
async fn end(database: &Database, model: &mut Model, dice: &mut Dice, index: usize, now: i64) {
    let late = i64::from(dice.roll(5) == 0);
    let attempt = model.builds[index].state.attempt - late;
    let status = [
        BuildStatus::Succeeded,
        BuildStatus::Succeeded,
        BuildStatus::Failed,
        BuildStatus::FailedOther,
        BuildStatus::Canceled,
    ][dice.roll(5)];
    let end = Finish {
        id: id(index),
        attempt,
        status,
        message: String::new(),
        stopped_at: now,
        log: BuildLogFile::default(),
        outputs: vec![("out".to_owned(), "outputs/x".to_owned())],
        products: Vec::new(),
    };
    let changed = write(database, move |tx| finish(tx, &end)).await;
    assert_eq!(changed.is_empty(), late == 1, "a late result changes nothing");
    let ended = Happening::Ended(attempt, status);
    if late == 0 && status == BuildStatus::Canceled {
        model.come_to_nothing(index, attempt, ended);
    } else {
        model.happen(index, ended);
    }
}

/// Asks for a change.
async fn ask(database: &Database, change: Change, target: Target, now: i64) -> Outcome {
    let asked = Asked::new(Actor::new("alice"), now, "");
    let done = carry_out(database, change, vec![target], asked, &|_| ()).await;
    done.expect("the change is made").remove(0).1
}

/// A build was put in front of the queue, with the waiting builds that it needs.
async fn bumped(database: &Database, model: &mut Model, index: usize) {
    let found = database.read(move |s| build(s, id(index))).await.expect("reads").expect("there");
    let mut open = vec![index];
    while let Some(index) = open.pop() {
        if model.status(index) == BuildStatus::Scheduled {
            model.builds[index].rank.0 = -found.priority;
            open.extend(&model.builds[index].needs);
        }
    }
}

/// The worker of a started build vanishes, or is stopped.
async fn vanish(database: &Database, model: &mut Model, dice: &mut Dice, index: usize, now: i64) {
    let state = model.builds[index].state;
    let happening = if dice.roll(2) == 0 {
        Happening::Lost(state.attempt)
    } else {
        Happening::Stopped(state.attempt)
    };
    let next = state.after(happening).expect("it runs");
    assert!(next.losses <= LOSSES_MAX);
    write(database, move |tx| {
        let log = BuildLogFile::default();
        lose(tx, id(index), state.attempt, "m", next.losses, next.status, &log, now)
    })
    .await;
    model.come_to_nothing(index, state.attempt, happening);
}

async fn compare(database: &Database, model: &Model) {
    let found: Vec<State> = write(database, |tx| {
        tx.prepare_cached("SELECT status, attempt, losses, waiting FROM build ORDER BY id")?
            .query_map([], |row| {
                Ok(State {
                    status: row.get(0)?,
                    attempt: row.get(1)?,
                    losses: row.get(2)?,
                    waiting: row.get(3)?,
                })
            })?
            .collect()
    })
    .await;
    let expected: Vec<State> = model.builds.iter().map(|build| build.state).collect();
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        // The count of builds that a finished build waits for does not matter.
        let waiting = if expected.status.is_finished() { found.waiting } else { expected.waiting };
        assert_eq!(*found, State { waiting, ..*expected }, "build {}", id(index));
    }
    let counted: i64 = write(database, |tx| {
        tx.query_row(
            "SELECT count(*) FROM evaluation AS e WHERE
             scheduled IS NOT (SELECT count(*) FROM job AS j JOIN build AS b ON b.id = build_id
               WHERE j.evaluation_id = e.id AND b.status = -2)
             OR started IS NOT (SELECT count(*) FROM job AS j JOIN build AS b ON b.id = build_id
               WHERE j.evaluation_id = e.id AND b.status = -1)
             OR succeeded IS NOT (SELECT count(*) FROM job AS j JOIN build AS b ON b.id = build_id
               WHERE j.evaluation_id = e.id AND b.status = 0)
             OR failed + failed_dependency + failed_other + canceled IS NOT
               (SELECT count(*) FROM job AS j JOIN build AS b ON b.id = build_id
               WHERE j.evaluation_id = e.id AND b.status > 0)",
            [],
            |row| row.get(0),
        )
    })
    .await;
    assert_eq!(counted, 0, "the counters are those of the builds");
}

#[tokio::test]
async fn the_store_does_what_the_state_machine_says() {
    for seed in 0..12 {
        let database = with_rows("").await;
        let stored = specification("sample");
        write(&database, move |tx| put_specification(tx, &stored, false, 1)).await;
        let mut dice = Dice(seed);
        let mut model = Model::default();
        let mut round = 0;
        for moment in 0..150 {
            if moment == 0 || dice.roll(8) == 0 {
                round += 1;
                evaluate(&database, &mut model, &mut dice, round).await;
            }
            step(&database, &mut model, &mut dice, 1000 + moment).await;
            compare(&database, &model).await;
        }
        assert!(model.builds.iter().any(|build| build.state.status.is_finished()));
        histories::check_round_trip(&database).await;
        database.close().await.expect("closes");
    }
}
