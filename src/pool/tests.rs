//! What the pool promises, with a scripted launcher and paused time.

use std::collections::HashSet;

use futures_util::future::join_all;
use tokio::time::{advance, timeout};

use super::{scripted::*, *};

#[tokio::test(start_paused = true)]
async fn a_hundred_first_requests_make_one_launch() {
    let world = World::new(Limits::default());
    let leases = join_all((0..100).map(|_| world.pool.lease(spec("alice")))).await;
    let epochs: HashSet<u64> = leases.iter().map(|l| l.as_ref().unwrap().epoch).collect();
    assert_eq!((epochs.len(), world.launches()), (1, 1));
    let [status] = &world.pool.runners()[..] else { panic!("one runner") };
    assert_eq!((status.leases, status.idle), (100, None));
    drop(leases);
    let [status] = &world.pool.runners()[..] else { panic!("one runner") };
    assert_eq!((status.leases, status.idle), (0, Some(Duration::ZERO)));
}

#[tokio::test(start_paused = true)]
async fn a_launch_outlives_the_caller_who_began_it() {
    let world = World::new(Limits::default());
    let first = timeout(LAUNCH / 2, world.pool.lease(spec("alice"))).await;
    assert!(first.is_err(), "the first caller left");
    let lease = world.pool.lease(spec("alice")).await.unwrap();
    assert_eq!((lease.epoch, world.launches(), world.broken_off()), (1, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn all_who_wait_hear_the_same_error_and_the_next_request_tries_again() {
    let world = World::new(Limits::default());
    world.fail_next(1);
    let failed = join_all((0..10).map(|_| world.pool.lease(spec("alice")))).await;
    for lease in failed {
        let Err(PoolError::Launch(LaunchError::Died { last_line, .. })) = lease else {
            panic!("{lease:?}")
        };
        assert_eq!(last_line, "failure 1");
    }
    assert!(world.pool.runners().is_empty());
    world.pool.lease(spec("alice")).await.unwrap();
    assert_eq!(world.launches(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_launcher_that_panics_leaves_nobody_waiting() {
    let world = World::new(Limits::default());
    world.panic_next();
    let broken = world.pool.lease(spec("alice")).await;
    assert!(matches!(broken, Err(PoolError::Launch(LaunchError::Spawn(_)))), "{broken:?}");
    world.pool.lease(spec("alice")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crash_loop_makes_that_workspace_wait_and_no_other() {
    let world = World::new(Limits::default());
    world.fail_next(2);
    for _ in 0..2 {
        assert!(matches!(world.pool.lease(spec("alice")).await, Err(PoolError::Launch(_))));
    }
    let lease = world.pool.lease(spec("alice")).await.unwrap();
    world.crash("alice");
    drop(lease);
    settle().await;
    let Err(PoolError::BackingOff { crashes, wait }) = world.pool.lease(spec("alice")).await else {
        panic!("it may not start yet")
    };
    assert_eq!((crashes, wait), (3, Duration::from_secs(1)));
    world.pool.lease(spec("bob")).await.unwrap();
    advance(wait).await;
    world.pool.lease(spec("alice")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_lived_ends_the_count_of_crashes() {
    let world = World::new(Limits::default());
    world.fail_next(2);
    for _ in 0..2 {
        assert!(world.pool.lease(spec("alice")).await.is_err());
    }
    let lease = world.pool.lease(spec("alice")).await.unwrap();
    advance(backoff::LONG_LIFE).await;
    world.crash("alice");
    drop(lease);
    settle().await;
    world.fail_next(1);
    assert!(matches!(world.pool.lease(spec("alice")).await, Err(PoolError::Launch(_))));
    world.pool.lease(spec("alice")).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_crashed_runner_is_never_handed_out() {
    let world = World::new(Limits::default());
    let old = world.pool.lease(spec("alice")).await.unwrap();
    world.crash("alice");
    // Neither at once, before the pool could notice, nor later.
    let new = world.pool.lease(spec("alice")).await.unwrap();
    assert!(new.is_alive() && !old.is_alive() && new.epoch > old.epoch);
    // A lease of the old one given back is not one of the new one.
    drop(old);
    assert_eq!(world.pool.runners()[0].leases, 1);
}

#[tokio::test(start_paused = true)]
async fn a_changed_spec_replaces_a_runner_once_it_is_idle() {
    let world = World::new(Limits::default());
    let old = world.pool.lease(spec("alice")).await.unwrap();
    let shared = world.pool.lease(changed_spec("alice")).await.unwrap();
    assert_eq!(shared.epoch, old.epoch, "in use: it stays");
    drop((old, shared));
    world.say("alice", Says::Busy);
    let busy = world.pool.lease(changed_spec("alice")).await.unwrap();
    assert_eq!((busy.epoch, world.launches()), (1, 1), "at work: it stays");
    drop(busy);
    world.say("alice", Says::Idle);
    let new = world.pool.lease(changed_spec("alice")).await.unwrap();
    assert_eq!((new.epoch, world.launches()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn after_stop_nothing_is_left_and_nobody_gets_in() {
    let world = World::new(Limits { max_starting: 2, ..Limits::default() });
    let _alice = world.pool.lease(spec("alice")).await.unwrap();
    let others = ["bob", "carol", "dave"].map(|user| world.pool.lease(spec(user)));
    let (others, ()) = tokio::join!(join_all(others), async {
        advance(LAUNCH / 2).await;
        let began = Instant::now();
        world.pool.stop().await;
        assert_eq!(began.elapsed(), STOP, "all at the same time");
    });
    for other in others {
        assert!(matches!(other, Err(PoolError::Stopping)), "{other:?}");
    }
    assert_eq!((world.live(), world.broken_off()), (0, 2));
    assert!(world.pool.runners().is_empty());
    let late = world.pool.lease(spec("alice")).await;
    assert!(matches!(late, Err(PoolError::Stopping)), "{late:?}");
    world.pool.stop().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_happens_no_limit_is_passed_and_no_dead_runner_is_handed_out() {
    let limits = Limits { max_running: 4, max_starting: 2, ..Limits::default() };
    let world = World::new(limits);
    let users: Vec<String> = (0..9).map(|n| format!("user{n}")).collect();
    let mut dice = Dice(7);
    let mut served = 0;
    for _ in 0..300 {
        let guests: Vec<_> = (0..dice.roll(12))
            .map(|_| {
                let user = &users[dice.roll(users.len())];
                let wanted = if dice.roll(5) == 0 { changed_spec(user) } else { spec(user) };
                let (patience, stay) = (dice.millis(400), dice.millis(300));
                let pool = Arc::clone(&world.pool);
                async move {
                    let Ok(Ok(lease)) = timeout(patience, pool.lease(wanted)).await else {
                        return 0;
                    };
                    assert!(lease.is_alive());
                    tokio::time::sleep(stay).await;
                    1
                }
            })
            .collect();
        if dice.roll(6) == 0 {
            world.crash(&users[dice.roll(users.len())]);
        }
        let says = [Says::Idle, Says::Busy, Says::Idle, Says::Silent][dice.roll(4)];
        world.say(&users[dice.roll(users.len())], says);
        served += join_all(guests).await.into_iter().sum::<i32>();
        world.pool.reap().await;
    }
    assert!(served > 300, "{served}");
    world.pool.stop().await;
    assert_eq!(world.live(), 0);
    assert_eq!(world.violations(), 0);
}
