//! What stands before a build in the queue, over random queues, against the order in which the scheduler starts builds.

use super::*;

const SYSTEMS: [&str; 3] = ["a", "b", "other"];

/// A queue of ready, waiting and running builds, and of builds for a system that the server does not have.
fn random(dice: &mut Dice) -> String {
    let mut rows = String::from(
        "INSERT INTO specification VALUES (1, 's', '{}', 1, 0, 0, '', 0, 0, 0, 0, NULL);
         INSERT INTO evaluation VALUES (1, 1, 's', 0, '', 1, 1, 1, '', 0, 0, 0, 0, 0, 0, 0);",
    );
    for id in 1..=60 {
        let (system, priority) = (SYSTEMS[dice.roll(3)], dice.roll(3));
        // Few times, so that many builds have the same, and the derivations decide.
        let (at, name) = (dice.roll(4) + 1, dice.roll(1000));
        let (status, waiting) = [(-2, 0), (-2, 0), (-2, 0), (-2, 2), (-1, 0), (0, 0)][dice.roll(6)];
        let started = i64::from(status > -2);
        let stopped = if status == 0 { at } else { 0 };
        rows += &format!(
            "INSERT INTO build VALUES ({id}, '{name}-{id}.drv', {id}, 1, 1, 'j', '{system}', 'n', {priority},
               {status}, -1, 0, {started}, 0, {waiting}, '', 0, 0, {at}, 0, {stopped}, '', 0, '');"
        );
    }
    rows
}

#[tokio::test]
async fn a_ready_build_is_told_how_many_are_started_before_it() {
    let systems: Vec<String> = ["a", "b"].map(str::to_owned).to_vec();
    for seed in 0..20 {
        let database = with_rows(&random(&mut Dice(seed))).await;
        let of = systems.clone();
        let told: Vec<(BuildId, i64)> = database
            .read(move |s| {
                let queue = whole_queue(s, &of, &NOTHING, 1000)?;
                let one =
                    |pending: &Pending| Ok((pending.build.id, ahead(s, &pending.build, &of)?));
                queue.ready.iter().map(one).collect()
            })
            .await
            .expect("reads");
        let places: Vec<i64> = told.iter().map(|(_, ahead)| *ahead).collect();
        assert_eq!(places, (0..i64::try_from(told.len()).expect("few")).collect::<Vec<_>>());
        assert!(told.len() > 5, "{}", told.len());
        // The scheduler says the same.
        let of = systems.clone();
        let claimed = write(&database, move |tx| {
            let wanted = Claim { systems: &of, limit: 100, resting: &[], worker: "w", now: 9 };
            claim(tx, &wanted).map(|(claimed, _)| claimed)
        })
        .await;
        let started: Vec<BuildId> = claimed.iter().map(|one| one.changed.id).collect();
        assert_eq!(started, told.iter().map(|(id, _)| *id).collect::<Vec<_>>());
        database.close().await.expect("closes");
    }
}
