//! What saves requests and time, and what has to be there before a line is written.

use super::*;

#[tokio::test]
async fn several_customers_are_found_out_with_one_request_and_remembered() {
    for several in [false, true] {
        let source = Fake { several, pages: 1, gone_customers: [3].into(), ..Fake::default() };
        let (outcome, lines) = lines(&source, &tickets(250), &only("customer")).await;
        assert_eq!((outcome.several_customers, outcome.complete), (Some(several), 249));
        assert_eq!(errors(&lines[3]), [("customer", "gone")]);
        let together = source.paths("/v1/customers/").iter().filter(|path| path.contains(',')).count();
        assert_eq!((together, source.paths("/v1/customers/").len()), if several { (3, 4) } else { (1, 251) });
    }
    // Few are not worth finding out.
    let source = Fake { several: true, pages: 1, ..Fake::default() };
    let (outcome, _) = lines(&source, &tickets(2), &only("customer")).await;
    assert_eq!((outcome.several_customers, source.paths("/v1/customers/").len()), (None, 2));
}

#[tokio::test]
async fn one_customer_that_is_gone_does_not_spoil_the_others() {
    // A source that refuses several when one of them is gone.
    let source = Fake {
        several: true,
        gone_customers: [107].into(),
        errors: vec![(format!("{},", oid(2, 107)), ErrorKind::Internal)],
        ..Fake::default()
    };
    let (outcome, _) = lines(&source, &tickets(200), &only("customer")).await;
    assert_eq!((outcome.complete, outcome.several_customers), (199, Some(true)));
    assert!(source.paths("/v1/customers/").len() < 30, "{}", source.paths("/v1/customers/").len());
}

#[tokio::test]
async fn what_is_known_saves_a_round_trip_and_is_not_believed() {
    let known =
        |customer: u32, several| Known { owners: [(oid(1, 0), oid(2, customer))].into(), several_customers: several };
    let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    for (guess, requests) in [(0, 2), (9, 3)] {
        let source = Fake { in_rounds: true, ..Fake::default() };
        let hooks = Hooks { known: ready(known(guess, None)).boxed(), ..Hooks::default() };
        let (ids, settings, mut out) = (tickets(1), only("conversation,customer"), Vec::new());
        let mut rounds = 0;
        {
            let mut run = std::pin::pin!(run(&source, &ids, &settings, hooks, &clock, &mut out));
            while futures::poll!(run.as_mut()).is_pending() {
                source.round.notify_waiters();
                rounds += 1;
            }
        }
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(line["customer"]["id"], oid(2, 0).to_string(), "guessed {guess}");
        assert_eq!((source.sent(), rounds), (requests, requests - 1), "guessed {guess}");
    }
    // What an earlier run found out spares finding out.
    let source = Fake { pages: 1, ..Fake::default() };
    let hooks = Hooks { known: ready(known(0, Some(false))).boxed(), ..Hooks::default() };
    let outcome = run(&source, &tickets(50), &only("customer"), hooks, &clock, &mut Vec::new()).await.unwrap();
    assert_eq!((outcome.complete, source.paths("/v1/customers/").len()), (50, 50));
    // Knowledge that never comes is not waited for.
    let hooks = Hooks { known: futures::future::pending().boxed(), ..Hooks::default() };
    let outcome = run(&source, &tickets(50), &only("customer"), hooks, &clock, &mut Vec::new()).await.unwrap();
    assert!(outcome.is_complete());
}

#[tokio::test]
async fn tickets_without_notes_are_not_asked_for_them_once_the_count_has_proved_right() {
    let source = Fake { pages: 1, without_notes: (0..180).collect(), ..Fake::default() };
    let (outcome, received) = lines(&source, &tickets(200), &only("conversation,notes")).await;
    assert!(outcome.is_complete());
    assert!(
        received
            .iter()
            .enumerate()
            .all(|(number, line)| line["notes"].as_array().unwrap().len() == usize::from(number >= 180))
    );
    let asked = source.paths("/notes").len();
    assert!((35..70).contains(&asked), "{asked} of 200");
    // A count that is wrong is not relied on any more, and the run says what it may have missed.
    let source = Fake { without_notes: (0..400).collect(), liars: (100..300).collect(), ..Fake::default() };
    let (outcome, received) = lines(&source, &tickets(400), &only("conversation,notes")).await;
    let missed = (100..300).filter(|number| received[*number]["notes"].as_array().unwrap().is_empty()).count() as u64;
    assert!(outcome.failures.is_empty() && !outcome.is_complete());
    assert!(missed <= outcome.miscounted && outcome.miscounted < 160, "{missed} {}", outcome.miscounted);
    assert!(source.paths("/notes").len() > 240, "{}", source.paths("/notes").len());
    let error = outcome.error().unwrap();
    assert!(error.to_string().contains("tickets not asked"), "{error}");
}

#[tokio::test]
async fn no_line_is_written_before_the_permit_and_none_without_it() {
    let clock: SharedClock = Arc::new(ManualClock::new(Timestamp::UNIX_EPOCH));
    let (source, ids, settings, mut out) =
        (Fake { pages: 1, ..Fake::default() }, tickets(3), ResolveSettings::default(), Vec::new());
    let hooks = Hooks { permit: ready(Err(Error::unavailable("no record"))).boxed(), ..Hooks::default() };
    let error = run(&source, &ids, &settings, hooks, &clock, &mut out).await.unwrap_err();
    assert_eq!((error.message(), out.len()), ("no record", 0));
    let (give, permit) = tokio::sync::oneshot::channel::<()>();
    let permit = async move { permit.await.map_err(|_| Error::internal("gone")) }.boxed();
    let hooks = Hooks { permit, ..Hooks::default() };
    let mut out = Counter(0);
    {
        let mut run = std::pin::pin!(run(&source, &ids, &settings, hooks, &clock, &mut out));
        for _ in 0..500 {
            assert!(futures::poll!(run.as_mut()).is_pending(), "waits for its permit");
        }
        give.send(()).unwrap();
        run.await.unwrap();
    }
    assert_eq!(out.0, 3);
}

#[tokio::test]
async fn part_that_came_too_late_is_told_apart_from_one_that_failed() {
    let source = Fake { pages: 1, late: Some("/notes".to_owned()), ..Fake::default() };
    let (_, lines) = lines(&source, &tickets(1), &only("messages,notes")).await;
    assert_eq!(errors(&lines[0]), [("notes", "time-out")]);
}

/// Counts lines.
struct Counter(usize);

impl io::Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.split(|byte| *byte == b'\n').count() - 1;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
