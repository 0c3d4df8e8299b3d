use super::*;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::time::Duration;

const MILLI: u64 = 1_000_000;

fn lane(link: Link) -> Lane {
    Lane::new(Shape::new(&link, 7))
}

fn link() -> Link {
    Link::default()
}

fn arrival(fate: Fate) -> u64 {
    match fate {
        Fate::Arrives(at) => at,
        other => panic!("{other:?}"),
    }
}

#[test]
fn latency_is_added_and_a_link_that_is_down_loses_all() {
    let mut slow = lane(Link { latency: Duration::from_millis(20), ..link() });
    assert_eq!(slow.admit(1_514, 5 * MILLI), Fate::Arrives(25 * MILLI));
    slow.reshape(Shape::new(&Link { up: false, ..link() }, 7));
    assert_eq!(slow.admit(1_514, 6 * MILLI), Fate::Lost);
    slow.reshape(Shape::new(&link(), 7));
    // The one that is under way is not overtaken.
    assert_eq!(slow.admit(1_514, 7 * MILLI), Fate::Arrives(25 * MILLI));
    assert_eq!(slow.traffic, LinkTraffic { passed: 2, lost: 1, overflowed: 0 });
}

#[test]
fn packets_take_their_time_at_the_bandwidth_and_a_full_buffer_drops() {
    // 1,500 bytes take 1.2 ms at 10 Mbit/s.
    let mut lane = lane(Link { bandwidth: Some(10_000_000), ..link() });
    let arrivals: Vec<u64> = (0..3).map(|_| arrival(lane.admit(1_514, 0))).collect();
    assert_eq!(arrivals, [1_200_000, 2_400_000, 3_600_000]);
    assert_eq!(arrival(lane.admit(1_514, 100 * MILLI)), 100 * MILLI + 1_200_000, "an idle link owes nothing");
    let taken = (0..1_000).filter(|_| matches!(lane.admit(1_514, 200 * MILLI), Fate::Arrives(_))).count();
    // 100 ms at 1.2 ms each, and the one that begins then.
    assert_eq!(taken, 84);
    assert_eq!(lane.traffic.overflowed, 1_000 - 84);
}

#[test]
fn a_slow_link_still_holds_a_few_packets() {
    let mut modem = lane(Link { bandwidth: Some(64_000), ..link() });
    let taken = (0..1_000).filter(|_| matches!(modem.admit(1_514, 0), Fate::Arrives(_))).count();
    assert_eq!(taken, (BACKLOG_LEAST / 1_500 + 1) as usize);
}

#[test]
fn loss_is_what_was_asked_for_and_the_same_each_time() {
    let fates = |loss| {
        let mut lane = lane(Link { loss, ..link() });
        (0..100_000).map(|_| lane.admit(100, 0) == Fate::Lost).collect::<Vec<_>>()
    };
    for loss in [0.0, 0.01, 0.3, 1.0] {
        let lost = fates(loss).iter().filter(|lost| **lost).count() as f64 / 100_000.0;
        assert!((lost - loss).abs() <= loss * 0.05, "{lost} for {loss}");
        assert_eq!(fates(loss), fates(loss));
    }
}

proptest! {
    #[test]
    fn jitter_stays_within_its_bounds_and_nobody_overtakes(
        seed: u64,
        latency in 0u64..50,
        jitter in 0u64..50,
        gaps in prop::collection::vec(0u64..30, 1..60),
    ) {
        let jitter = jitter.min(latency);
        let link = Link { latency: Duration::from_millis(latency), jitter: Duration::from_millis(jitter), ..link() };
        let mut lane = Lane::new(Shape::new(&link, seed));
        let (mut now, mut last, mut latest) = (0, 0, 0);
        for gap in gaps {
            now += gap * MILLI;
            latest = latest.max(now + (latency + jitter) * MILLI);
            let at = arrival(lane.admit(100, now));
            prop_assert!(at >= now + (latency - jitter) * MILLI && at >= last && at <= latest, "{at}");
            last = at;
        }
    }

    /// Against a queue of the standard library, in memory so small that it wraps around and fills all the time.
    #[test]
    fn a_ring_gives_back_what_it_took(
        size in 40usize..200,
        steps in prop::collection::vec((any::<bool>(), 0usize..60), 0..300),
    ) {
        let mut memory = vec![0u8; size];
        let mut ring = Ring::new(&mut memory);
        let mut model: VecDeque<(u64, Vec<u8>)> = VecDeque::new();
        for (number, (push, length)) in (0u64..).zip(steps) {
            if push {
                let frame = vec![number as u8; length];
                if ring.push(number, &frame) {
                    model.push_back((number, frame));
                } else {
                    let held: usize = model.iter().map(|(_, frame)| frame.len() + HEADER).sum();
                    // What is skipped before the end, now and before, is less than one record each.
                    prop_assert!(held + 2 * (length + HEADER) + 60 + HEADER > size, "refused with {held} of {size}");
                }
            } else {
                ring.pop();
                model.pop_front();
            }
            let front = model.front().map(|(due, frame)| (*due, frame.as_slice()));
            prop_assert_eq!(ring.front(), front);
            prop_assert_eq!(ring.is_empty(), model.is_empty());
        }
    }

    #[test]
    fn orders_and_answers_are_read_as_they_were_written(
        a: [u8; NAME], b: [u8; NAME], n: [u64; 4], up: bool, errno in 1i32..200,
    ) {
        let taps = [a, b];
        let [latency, jitter, bandwidth, seed] = n;
        let shape = Shape { latency, jitter, loss: 9, bandwidth, up, seed };
        for order in [Order::Set { taps, shape }, Order::Unset { taps }, Order::Tell { taps }] {
            prop_assert_eq!(Order::decode(&order.encode()), Some(order));
        }
        let traffic = LinkTraffic { passed: n[0], lost: n[1], overflowed: n[2] };
        prop_assert_eq!(decode_answer(&encode_answer(0, traffic)), Ok(traffic));
        prop_assert_eq!(decode_answer(&encode_answer(errno, traffic)), Err(errno));
    }
}

#[test]
fn what_is_no_order_is_none() {
    assert_eq!(Order::decode(&[0; ORDER]), None);
}
