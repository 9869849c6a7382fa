use super::*;

fn faults(text: &str) -> Faults {
    Faults::new(text.parse().unwrap(), 0, Arc::default())
}

fn failing(faults: &mut Faults, count: u64) -> Vec<u64> {
    (0..count)
        .filter(|index| matches!(faults.judge(*index), Injection::Fail(_)))
        .map(|index| index + 1)
        .collect()
}

#[test]
fn failures_come_where_the_plan_says() {
    assert_eq!(failing(&mut faults("fail=at:3:fatal;fail=every:4:remote-access"), 10), [3, 4, 8]);
    assert_eq!(faults("fail=at:1:remote-access").judge(0), Injection::Fail(CompletionStatus::RemoteAccess));
}

#[test]
fn chance_follows_the_seed() {
    let draw = |seed: u32| failing(&mut faults(&format!("seed={seed};fail=chance:0.1:general")), 1000);
    assert_eq!(draw(7), draw(7));
    assert_ne!(draw(7), draw(8));
    assert!((50..200).contains(&draw(7).len()), "{}", draw(7).len());
    assert!(failing(&mut faults("fail=chance:0:general"), 1000).is_empty());
    assert_eq!(failing(&mut faults("fail=chance:1:general"), 100).len(), 100);
}

#[test]
fn a_request_meets_one_fault_which_is_counted_once() {
    let mut faults = faults("fail=at:1:general");
    let first = faults.judge(0);
    assert_eq!(faults.judge(0), first);
    assert_eq!(faults.injected.load(Ordering::Relaxed), 1);
}

#[test]
fn the_other_faults() {
    let mut plan = faults("refuse=at:2;drop-peer=after:1");
    assert_eq!([plan.refuses_post(), plan.refuses_post(), plan.refuses_post()], [false, true, false]);
    let mut every = faults("refuse=every:3");
    assert_eq!([(); 6].map(|()| every.refuses_post()), [false, false, true, false, false, true]);
    let mut liar = faults("lie=every:2");
    assert_eq!([1, 2, 3, 4].map(|number| liar.lies_about(number)), [false, true, false, true]);
    assert_eq!([plan.judge(0), plan.judge(1)], [Injection::Go, Injection::DropPeer]);
    assert!(matches!(faults("delay=us:1000000").judge(0), Injection::Wait(_)));
    let mut slow = faults("slow=factor:100000");
    assert_eq!(slow.judge(0), Injection::Go);
    slow.moved(1 << 20);
    assert!(matches!(slow.judge(1), Injection::Wait(_)));
}

#[test]
fn texts_that_are_no_plan_say_why() {
    let error = |text: &str| text.parse::<FaultPlan>().unwrap_err().to_string();
    assert!(error("bogus").contains("bogus"));
    assert!(error("bogus=1").contains("bogus=1"));
    assert!(error("fail=at:0:fatal").contains("at least 1"));
    assert!(error("fail=chance:1.5:fatal").contains("0..=1"));
    assert!(error("fail=at:1:nonsense").contains("remote-access"));
    assert!(error("seed=1;seed=2").contains("twice"));
    assert!("".parse::<FaultPlan>().unwrap().is_empty());
    assert!("seed=5; ".parse::<FaultPlan>().unwrap().is_empty());
}
