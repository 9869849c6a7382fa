use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::*;

const LONG: Duration = Duration::from_secs(20);

#[test]
fn a_task_waits_for_descriptors_times_and_wakeups() {
    let events = EventLoop::acquire().unwrap();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let wakeup = Arc::new(Wakeup::default());
    let (sender, receiver) = mpsc::channel();
    let (report, seen) = (sender.clone(), Arc::clone(&wakeup));
    let _task = events.spawn(move |handle| {
        let handle = handle.clone();
        async move {
            let mut watched = handle.watch(OwnedFd::from(theirs)).unwrap();
            watched.readable().await;
            report.send("readable").unwrap();
            seen.wait().await;
            report.send("woken").unwrap();
            handle.sleep(Duration::from_millis(5)).await;
            report.send("slept").unwrap();
        }
    });
    assert!(receiver.recv_timeout(Duration::from_millis(20)).is_err());
    std::io::Write::write_all(&mut ours, b"x").unwrap();
    assert_eq!(receiver.recv_timeout(LONG), Ok("readable"));
    let before = Instant::now();
    wakeup.wake();
    assert_eq!(receiver.recv_timeout(LONG), Ok("woken"));
    assert_eq!(receiver.recv_timeout(LONG), Ok("slept"));
    assert!(before.elapsed() >= Duration::from_millis(5));
}

/// So that calls that would wait for a task of the loop can be refused.
#[test]
fn the_loop_knows_its_own_thread() {
    let events = EventLoop::acquire().unwrap();
    let (report, seen) = mpsc::channel();
    let of_task = Arc::clone(&events);
    let _task = events.spawn(move |_| async move { report.send(of_task.is_current_thread()).unwrap() });
    assert_eq!(seen.recv_timeout(LONG), Ok(true));
    assert!(!events.is_current_thread());
}

/// A wake-up before the task waits is not lost, and several count as one.
#[test]
fn a_wakeup_is_remembered_once() {
    let wakeup = Wakeup::default();
    wakeup.wake();
    wakeup.wake();
    futures_lite::future::block_on(wakeup.wait());
    assert_eq!(futures_lite::future::block_on(futures_lite::future::poll_once(wakeup.wait())), None);
}

struct CountsDrop(Arc<AtomicUsize>);

impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn a_stopped_task_has_been_dropped() {
    let events = EventLoop::acquire().unwrap();
    let dropped = Arc::new(AtomicUsize::new(0));
    for round in 0..100 {
        let guard = CountsDrop(Arc::clone(&dropped));
        let task = events.spawn(move |handle| {
            let handle = handle.clone();
            async move {
                let _guard = guard;
                handle.sleep_until(None).await;
            }
        });
        if round % 2 == 0 {
            task.stop();
            assert_eq!(dropped.load(Ordering::SeqCst), round + 1);
        }
        drop(task);
        assert_eq!(dropped.load(Ordering::SeqCst), round + 1);
    }
}

/// The loop of this test alone: the process's may be in use by other tests.
#[test]
fn tasks_end_with_the_loop_whatever_they_wait_for() {
    let events = EventLoop::start_alone();
    let dropped = Arc::new(AtomicUsize::new(0));
    let (started, receiver) = mpsc::channel();
    let mut tasks = Vec::new();
    for kind in 0..4 {
        let (guard, started) = (CountsDrop(Arc::clone(&dropped)), started.clone());
        tasks.push(events.spawn(move |handle| {
            let handle = handle.clone();
            async move {
                let _guard = guard;
                started.send(()).unwrap();
                match kind {
                    0 => handle.sleep(LONG).await,
                    1 => {
                        let (_other, stream) = UnixStream::pair().unwrap();
                        handle.watch(stream).unwrap().readable().await;
                    }
                    2 => {
                        let inner = handle.clone();
                        let _child = handle.spawn(async move { inner.sleep(LONG).await });
                        handle.sleep_until(None).await;
                    }
                    _ => handle.blocking(|| std::thread::sleep(Duration::from_millis(50))).await,
                }
            }
        }));
    }
    (0..4).for_each(|_| receiver.recv_timeout(LONG).unwrap());
    let before = Instant::now();
    drop(events);
    assert_eq!(dropped.load(Ordering::SeqCst), 4);
    assert!(before.elapsed() < LONG / 2);
    tasks.iter().for_each(Task::stop);
}

#[test]
fn calls_that_block_take_four_threads_and_delay_no_task() {
    let events = EventLoop::start_alone();
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (entered, inside) = mpsc::channel();
    let (done, ended) = mpsc::channel();
    // Calls wait until they are released, so four are inside together on a busy machine too.
    let gate = Arc::new((Mutex::new(false), Condvar::new()));
    let tasks: Vec<_> = (0..12)
        .map(|_| {
            let (running, most, gate) = (Arc::clone(&running), Arc::clone(&most), Arc::clone(&gate));
            let (entered, done) = (entered.clone(), done.clone());
            events.spawn(move |handle| {
                let handle = handle.clone();
                async move {
                    let call = move || {
                        most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        entered.send(()).unwrap();
                        let open = gate.0.lock().unwrap();
                        drop(gate.1.wait_while(open, |open| !*open).unwrap());
                        running.fetch_sub(1, Ordering::SeqCst);
                        std::thread::current().id()
                    };
                    let thread = handle.blocking(call).await;
                    assert_ne!(thread, std::thread::current().id());
                    done.send(()).unwrap();
                }
            })
        })
        .collect();
    (0..4).for_each(|_| inside.recv_timeout(LONG).unwrap());
    let (answer, answered) = mpsc::channel();
    let other = events.spawn(move |_| async move { answer.send(()).unwrap() });
    answered.recv_timeout(LONG).unwrap();
    assert!(inside.try_recv().is_err(), "a fifth call has begun");
    *gate.0.lock().unwrap() = true;
    gate.1.notify_all();
    (0..12).for_each(|_| ended.recv_timeout(LONG).unwrap());
    assert_eq!(most.load(Ordering::SeqCst), 4);
    drop((other, tasks));
}

/// A task that the loop never started has ended too: its owner does not wait.
#[test]
fn a_task_that_never_began_can_be_stopped() {
    let events = EventLoop::start_alone();
    let (sender, receiver) = mpsc::channel();
    let (let_go, wait) = mpsc::channel::<()>();
    let busy = events.spawn(move |_| async move {
        sender.send(()).unwrap();
        let _ = wait.recv();
    });
    receiver.recv_timeout(LONG).unwrap();
    let late = events.spawn(|handle| {
        let handle = handle.clone();
        async move { handle.sleep_until(None).await }
    });
    let ending = std::thread::spawn(move || drop(events));
    std::thread::sleep(Duration::from_millis(20));
    let_go.send(()).unwrap();
    ending.join().unwrap();
    late.stop();
    busy.stop();
}

#[test]
fn a_notifier_stays_readable_until_acknowledged() {
    let notifier = Notifier::new().unwrap();
    assert!(!notifier.is_notified());
    notifier.notify();
    notifier.notify();
    assert!(notifier.is_notified() && notifier.is_notified());
    notifier.acknowledge();
    assert!(!notifier.is_notified());
}

#[test]
fn the_last_reference_dropped_on_the_loop_is_dropped_by_a_helper() {
    struct TellsThread(mpsc::Sender<std::thread::ThreadId>);
    impl Drop for TellsThread {
        fn drop(&mut self) {
            self.0.send(std::thread::current().id()).unwrap();
        }
    }
    let events = EventLoop::start_alone();
    let (sender, receiver) = mpsc::channel();
    let (loop_sender, loop_thread) = mpsc::channel();
    let other = Arc::new(TellsThread(sender));
    let value = Arc::downgrade(&other);
    let _task = events.spawn(move |handle| {
        let handle = handle.clone();
        async move {
            loop_sender.send(std::thread::current().id()).unwrap();
            // The value's other owner drops it while the task uses it.
            with_upgraded(&handle, &value, |_| drop(other));
        }
    });
    assert_ne!(receiver.recv_timeout(LONG).unwrap(), loop_thread.recv_timeout(LONG).unwrap());
}

/// A task that yields only to the executor is polled 200 times before descriptors are polled again.
#[test]
fn a_task_that_gives_way_lets_descriptors_be_looked_at() {
    let events = EventLoop::start_alone();
    let (mut ours, theirs) = UnixStream::pair().unwrap();
    let (report, turns) = mpsc::channel();
    let seen = Arc::new(AtomicUsize::new(0));
    let noticed = Arc::clone(&seen);
    let _waiting = events.spawn(move |handle| {
        let handle = handle.clone();
        async move {
            handle.watch(OwnedFd::from(theirs)).unwrap().readable().await;
            noticed.store(1, Ordering::Relaxed);
        }
    });
    let _busy = events.spawn(move |handle| {
        let handle = handle.clone();
        async move {
            // The other one waits by then.
            handle.sleep(Duration::from_millis(5)).await;
            std::io::Write::write_all(&mut ours, b"x").unwrap();
            let mut turns = 0;
            while seen.load(Ordering::Relaxed) == 0 {
                handle.give_way().await;
                turns += 1;
            }
            report.send(turns).unwrap();
        }
    });
    let turns = turns.recv_timeout(LONG).unwrap();
    assert!(turns <= 4, "{turns} turns");
}

/// A read that finds all of its bytes never waits, and a write that finds room.
#[test]
fn a_long_read_or_write_lets_others_have_their_turn() {
    const LENGTH: usize = 512 << 10;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let writer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let reader = listener.accept().unwrap().0;
    for socket in [&writer, &reader] {
        socket.set_nonblocking(true).unwrap();
    }
    let events = EventLoop::start_alone();
    let (report, reports) = mpsc::channel();
    let turns = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&turns);
    let _other = events.spawn(move |handle| {
        let handle = handle.clone();
        async move {
            loop {
                handle.give_way().await;
                counted.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    let _task = events.spawn(move |handle| {
        let waiter = Waiter::on_loop(handle);
        async move {
            let deadline = Instant::now() + LONG;
            let mut bytes = vec![7; LENGTH];
            let before = turns.load(Ordering::Relaxed);
            // All of it fits into the sockets' buffers.
            tcp::write_all(&writer, &bytes, deadline, &waiter).await.unwrap();
            let between = turns.load(Ordering::Relaxed);
            tcp::read_exact(&reader, &mut bytes, deadline, &waiter).await.unwrap();
            let after = turns.load(Ordering::Relaxed);
            report.send((between - before, after - between)).unwrap();
        }
    });
    let (while_written, while_read) = reports.recv_timeout(LONG).unwrap();
    assert!(while_written >= 6 && while_read >= 6, "{while_written}, {while_read}");
}

/// A loop's thread may wake a task of another loop, which waits.
#[test]
fn the_tasks_of_two_loops_wake_each_other() {
    let loops = [EventLoop::start_alone(), EventLoop::start_alone()];
    let wakeups = [0, 1].map(|_| Arc::new(Wakeup::default()));
    let (sender, receiver) = mpsc::channel();
    let tasks: Vec<_> = [0, 1]
        .into_iter()
        .map(|number| {
            let (own, other) = (Arc::clone(&wakeups[number]), Arc::clone(&wakeups[1 - number]));
            let sender = sender.clone();
            loops[number].spawn(move |handle| {
                let handle = handle.clone();
                async move {
                    for _ in 0..1000 {
                        own.wait().await;
                        // By a task that a timer wakes, as well.
                        handle.give_way().await;
                        other.wake();
                    }
                    sender.send(number).unwrap();
                }
            })
        })
        .collect();
    wakeups[0].wake();
    let ended = [0, 1].map(|_| receiver.recv_timeout(LONG).unwrap());
    assert_eq!(ended[0] + ended[1], 1);
    drop(tasks);
}
