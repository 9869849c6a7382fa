//! How the data thread waits between two requests.

use super::*;

/// The data thread polls between two requests, unless it is told to sleep at once: then it sleeps before each.
#[test]
fn a_data_thread_that_is_to_sleep_at_once_polls_for_nothing() {
    const WRITES: u64 = 200;
    // Shorter than it polls, longer than it takes to fall asleep.
    const PAUSE: Duration = Duration::from_micros(100);
    let options = SoftwareOptions { sleeps_at_once: true, ..forced(PathKind::Tcp) };
    let device = open(forced(PathKind::Tcp));
    let peer = Box::new(LocalPeer::new(open(options)));
    let mut rig = Rig { device: Arc::clone(&device) as Arc<dyn Device>, peer, path: PathKind::Tcp };
    let mut side = Initiator::new(&mut rig);
    let local = Window::new(&rig.device, 64, 7);
    let target = rig.peer.buffer(64, 0, Access::FULL);
    let before = sleeps_of_data_threads();
    for id in 0..WRITES {
        let write = request(target.address, target.rkey, 0);
        side.post_all(&writes(id, &[write], &[local.sge(0, 64)]));
        let begin = Instant::now();
        while side.completions.poll(&mut [Completion::default()]).unwrap() == 0 {
            assert!(begin.elapsed() < Duration::from_secs(20), "write {id} is not done");
        }
        let done = Instant::now();
        while done.elapsed() < PAUSE {
            std::hint::spin_loop();
        }
    }
    let sleeps = sleeps_of_data_threads() - before;
    assert!(sleeps >= WRITES * 9 / 10, "they slept {sleeps} times in {WRITES} requests");
}

/// How often the data threads of this process have gone to sleep.
fn sleeps_of_data_threads() -> u64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let is_data_thread = |path: &std::path::PathBuf| {
        std::fs::read_to_string(path.join("comm")).is_ok_and(|name| name.trim_end() == "p2p-sw0")
    };
    let sleeps = |path: std::path::PathBuf| {
        let status = std::fs::read_to_string(path.join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.map_or(0, |count| count.trim().parse::<u64>().unwrap())
    };
    tasks.filter(is_data_thread).map(sleeps).sum()
}
