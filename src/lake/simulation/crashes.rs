//! Crashes: a store that fails at its n-th call, for every n.
//!
//! A call that fails for good from then on stands for a process that dies there, before the call took effect or after it
//! did and before the answer came. After each, a fresh process must find the state before or after the step, and doing
//! the work again must end in the same rows as without the crash.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use object_store::ObjectStore;

use super::faulty::{Fault, Faulty};
use super::{clock, deletion, live, memory, open, revision, root, tags, tickets, versions};
use crate::error::{ErrorKind, Result};
use crate::lake::Lake;
use crate::lake::manifest::Watermark;
use crate::lake::run::RunRecord;
use crate::model::Stream;

/// What each step of the script leaves: live tickets, all ticket versions, live tags, the watermark.
type State = (Vec<(String, i64)>, usize, Vec<(String, i64)>, Option<i64>);

async fn state(lake: &Lake) -> State {
    let manifest = lake.latest().await.unwrap();
    (
        live(lake, &manifest, Stream::Tickets).await,
        versions(lake, &manifest).await,
        live(lake, &manifest, Stream::Tags).await,
        manifest.watermarks.get(&Stream::Tickets).and_then(|watermark| watermark.complete_through_ms),
    )
}

/// Makes or opens the lake and does a step, as a program does that is started again and again.
async fn step(store: &Arc<dyn ObjectStore>, number: i64) -> Result<Lake> {
    let lake = match open(store).await {
        Err(error) if error.kind() == ErrorKind::Config => {
            Lake::create_on(Arc::clone(store), "test:", &root(1), clock()).await?
        }
        other => other?,
    };
    let lake = lake.with_limits(2, 2);
    let (upserts, small) = match number {
        1 => (vec![revision(1, 1), revision(2, 1), revision(3, 1)], vec![revision(1, 1)]),
        2 => (vec![revision(1, 2), deletion(2, 2), revision(3, 1), revision(4, 1)], vec![revision(1, 1)]),
        _ => (vec![revision(4, 3), revision(5, 1)], vec![revision(2, 1), revision(3, 1)]),
    };
    let mut change = lake.transaction();
    change.append(tickets(&upserts));
    change.replace(tags(&small));
    change.set_watermark(Stream::Tickets, Watermark { complete_through_ms: Some(number), ..Watermark::default() });
    change.record_run(RunRecord { id: number.to_string(), ..RunRecord::default() });
    change.commit().await?;
    Ok(lake)
}

const STEPS: i64 = 3;

#[tokio::test]
async fn crash_at_any_call_leaves_a_version_and_repeating_the_work_ends_the_same() {
    let store = memory();
    let mut states = vec![(Vec::new(), 0, Vec::new(), None)];
    for number in 1..=STEPS {
        states.push(state(&step(&store, number).await.unwrap()).await);
    }
    let mut crashes = 0;
    for (fault, for_good) in
        [(Fault::Before, true), (Fault::After, true), (Fault::Before, false), (Fault::After, false)]
    {
        for at in 0.. {
            let plain = memory();
            let faulty = Arc::new(Faulty {
                inner: Arc::clone(&plain),
                calls: Arc::new(AtomicUsize::new(0)),
                at,
                fault,
                for_good,
            });
            let broken: Arc<dyn ObjectStore> = Arc::<Faulty>::clone(&faulty);
            let mut done = 0;
            let mut next = 1;
            while next <= STEPS && step(&broken, next).await.is_ok() {
                done = next;
                next += 1;
            }
            let name = format!("{fault:?}, for good: {for_good}, at call {at}");
            match open(&plain).await {
                Ok(lake) => {
                    let found = state(&lake).await;
                    let between = done as usize..=(done as usize + 1).min(STEPS as usize);
                    assert!(between.clone().any(|step| states[step] == found), "{name}: {found:?}, steps {between:?}");
                }
                Err(error) => assert!(done == 0 && error.kind() == ErrorKind::Config, "{name}: {error:?}"),
            }
            for number in done.max(1)..=STEPS {
                step(&plain, number).await.unwrap();
            }
            let lake = open(&plain).await.unwrap();
            assert_eq!(state(&lake).await, states[STEPS as usize], "{name}");
            assert_eq!(lake.latest().await.unwrap().runs.len(), STEPS as usize, "{name}");
            if faulty.calls.load(Ordering::SeqCst) <= at {
                break;
            }
            crashes += 1;
        }
    }
    assert!(crashes > 100, "{crashes}");
}
