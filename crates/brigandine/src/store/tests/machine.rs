//! Compares the store with the pure state machine, over random steps.

use super::*;

/// A build of the model: its state, and the builds that it needs.
#[derive(Debug, Clone)]
struct Modelled {
    state: State,
    needs: BTreeSet<usize>,
    /// Its place in the queue.
    rank: (i64, i64, String),
    /// The attempt for which a cancel was requested.
    to_cancel: Option<i64>,
}

#[derive(Default)]
struct Model {
    builds: Vec<Modelled>,
}

impl Model {
    fn happen(&mut self, index: usize, happening: Happening) {
        let Some(next) = self.builds[index].state.after(happening) else { return };
        let before = std::mem::replace(&mut self.builds[index].state, next).status;
        if before == next.status || !next.status.is_finished() {
            return;
        }
        let told = if next.status.is_success() {
            Happening::DependencySucceeded
        } else {
            Happening::DependencyFailed
        };
        for other in 0..self.builds.len() {
            if self.builds[other].needs.contains(&index) {
                self.happen(other, told);
            }
        }
    }

    /// An attempt ends without a result: the build is rescheduled, or ends as canceled if a cancel was requested.
    fn come_to_nothing(&mut self, index: usize, attempt: i64, happening: Happening) {
        if self.builds[index].to_cancel == Some(attempt) {
            self.happen(index, Happening::Ended(attempt, BuildStatus::Canceled));
        } else {
            self.happen(index, happening);
        }
    }

    fn ready(&self, limit: usize) -> Vec<usize> {
        let mut ready: Vec<usize> = (0..self.builds.len())
            .filter(|index| self.builds[*index].state.after(Happening::Claimed).is_some())
            .collect();
        ready.sort_by_key(|index| self.builds[*index].rank.clone());
        ready.truncate(limit);
        ready
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
        let known = !model.builds.is_empty() && dice.roll(3) == 0;
        let index = if known { dice.roll(model.builds.len()) } else { model.builds.len() };
        let mut needs = Vec::new();
        if !known {
            let mut state =
                State { status: BuildStatus::Scheduled, attempt: 0, losses: 0, waiting: 0 };
            let mut wanted = BTreeSet::new();
            for _ in 0..dice.roll(3).min(jobs.len()) {
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
            let priority = i64::try_from(dice.roll(3)).expect("small");
            let rank = (-priority, round, format!("{index:04}.drv"));
            model.builds.push(Modelled { state, needs: wanted, rank, to_cancel: None });
        }
        places.push(index);
        jobs.push(NewJob {
            name: format!("j{}", jobs.len()),
            derivation: format!("{index:04}.drv"),
            system: "s".to_owned(),
            nix_name: "n".to_owned(),
            priority: -model.builds[index].rank.0,
            timeout_s: 0,
            max_silent_s: 0,
            definition: Some("{}".to_owned()),
            needs,
        });
    }
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

async fn step(database: &Database, model: &mut Model, dice: &mut Dice, now: i64) {
    let started = model.started();
    let pick = |dice: &mut Dice| started.get(dice.roll(started.len().max(1))).copied();
    match dice.roll(10) {
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
        8 => {
            let index = dice.roll(model.builds.len());
            let done = write(database, move |tx| cancel(tx, id(index), now)).await;
            let state = model.builds[index].state;
            match done {
                Cancel::Done(_) => assert_eq!(state.status, BuildStatus::Scheduled),
                Cancel::Running(attempt) => {
                    assert_eq!((state.status, state.attempt), (BuildStatus::Started, attempt));
                    model.builds[index].to_cancel = Some(attempt);
                }
                Cancel::TooLate => assert!(state.status.is_finished()),
            }
            model.happen(index, Happening::Cancel);
        }
        _ => {
            let recovered = write(database, move |tx| recover(tx, now)).await;
            assert_eq!(recovered.builds.len(), started.len());
            for index in started {
                let attempt = model.builds[index].state.attempt;
                model.come_to_nothing(index, attempt, Happening::Stopped(attempt));
            }
        }
    }
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
    model.happen(index, Happening::Ended(attempt, status));
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
        let database = Database::open(
            std::path::Path::new(":memory:"),
            true,
            std::time::Duration::from_secs(30),
        )
        .await
        .expect("opens");
        database
            .exclusive(|connection| connection.execute_batch(include_str!("../../../schema.sql")))
            .await
            .expect("the schema");
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
