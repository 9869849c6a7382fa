//! Threads without a context, and threads with one of their own: every call works on them, and leaves them as they are.

use flagcx_p2p::internals::fabric::Opcode;
use flagcx_p2p::internals::transfer::Outcome;

use super::calls::{Call, Engines, finish, poll};
use super::cuda::cuda;
use super::group::Group;
use super::memory::{Kind, Registered, in_context, keeps};
use crate::support::pattern;

const LENGTH: usize = 1 << 20;

pub fn run(group: &mut Group) {
    let device = in_context(|| cuda().context());
    group.check("a thread without a context", || apart(|| expect_all(std::ptr::null_mut())));
    group.check("a thread with the primary context", || apart(move || expect_all(cuda().primary(0))));
    group.check("a thread with a context of its own", || {
        apart(|| {
            let own = cuda().create_context(0);
            let said = expect_all(own);
            cuda().destroy_context(own);
            said
        })
    });
    if cuda().devices() > 1 {
        group.check("a thread with another device's context", || apart(|| expect_all(cuda().primary(1))));
    } else {
        group.note("not run: a thread with another device's context; there is one device");
    }
    group.check("memory of a context that is not the primary one", || apart(expect_foreign_context));
    group.check("a stream outlives the context of the thread that needed it first", || apart(expect_stream));
    group.check("one thread submits, another polls, a third closes", || apart(expect_three));
    group.check("threads at once", || apart(expect_at_once));
    assert_eq!(in_context(|| cuda().context()), device);
}

/// On a new thread, which has no context.
fn apart(act: impl FnOnce() -> String + Send) -> String {
    std::thread::scope(|scope| scope.spawn(act).join().unwrap())
}

/// Everything from opening engines to closing them, with `context` current.
fn expect_all(context: super::cuda::Context) -> String {
    cuda().set_context(context);
    let engines = Engines::new();
    let sent = pattern(1, LENGTH);
    let [host, gpu, remote] = [
        Registered::new(&engines.client, Kind::Host, LENGTH),
        Registered::new(&engines.client, Kind::Gpu, LENGTH),
        Registered::new(&engines.server, Kind::Gpu, LENGTH),
    ];
    host.memory.write(&sent);
    for (from, seed) in [(&host, 1), (&gpu, 2)] {
        let sent = pattern(seed, LENGTH);
        from.memory.write(&sent);
        let iov = engines.iov((from, 0), (&remote, 0), LENGTH as u64);
        let waited = Call::Submit.start(&engines.here, Opcode::Write, &[iov]).unwrap();
        assert_eq!(finish(&engines.here, waited), Outcome::Done);
        assert!(remote.memory.read() == sent);
        let polled = Call::Submit.start(&engines.here, Opcode::Read, &[iov]).unwrap();
        assert_eq!(poll(&engines.here, polled), Outcome::Done);
        let cancelled = Call::Submit.start(&engines.here, Opcode::Write, &[iov]).unwrap();
        keeps("cancel", || engines.here.cancel(cancelled));
    }
    assert!(keeps("ipc_info", || engines.server.ipc_info(remote.memory.address)).unwrap().is_some());
    drop((host, gpu, remote));
    keeps("close a connection", || engines.here.close());
    keeps("close an engine", || engines.client.close());
    assert_eq!(cuda().context(), context);
    String::new()
}

/// The engine works in the primary context; the program's memory is in one of its own.
fn expect_foreign_context() -> String {
    let engines = Engines::new();
    let own = cuda().create_context(0);
    let (from, to) = (cuda().allocate(LENGTH), cuda().allocate(LENGTH));
    let sent = pattern(3, LENGTH);
    // SAFETY: both ranges are valid.
    unsafe { cuda().copy(from, sent.as_ptr() as u64, LENGTH) };
    let register = |engine: &flagcx_p2p::internals::engine::Engine, address| {
        // SAFETY: the memory lives until it is deregistered below.
        keeps("register", || unsafe { engine.register(address, LENGTH as u64, Default::default()) }).unwrap()
    };
    let regions = (register(&engines.client, from), register(&engines.server, to));
    let remote = engines.server.describe(regions.1, to, LENGTH as u64).unwrap();
    let iov = flagcx_p2p::internals::transfer::Iov {
        local: from,
        length: LENGTH as u64,
        region: Some(regions.0),
        remote,
    };
    for context in [own, cuda().primary(0), std::ptr::null_mut()] {
        cuda().set_context(context);
        assert_eq!(Call::Submit.carry(&engines.here, Opcode::Write, &[iov]), Ok(Outcome::Done));
    }
    let mut arrived = vec![0; LENGTH];
    cuda().set_context(own);
    // SAFETY: both ranges are valid.
    unsafe { cuda().copy(arrived.as_mut_ptr() as u64, to, LENGTH) };
    assert!(arrived == sent);
    engines.client.deregister(regions.0);
    engines.server.deregister(regions.1);
    cuda().free(from);
    cuda().free(to);
    cuda().destroy_context(own);
    String::new()
}

/// A transfer from a thread with a context of its own, which then ends: the next transfer works all the same.
fn expect_stream() -> String {
    let engines = Engines::new();
    let (from, to) = (
        Registered::new(&engines.client, Kind::Gpu, LENGTH),
        Registered::new(&engines.server, Kind::Gpu, LENGTH),
    );
    for seed in 1..4 {
        let sent = pattern(seed, LENGTH);
        from.memory.write(&sent);
        let own = cuda().create_context(0);
        let iov = engines.iov((&from, 0), (&to, 0), LENGTH as u64);
        assert_eq!(Call::Submit.carry(&engines.here, Opcode::Write, &[iov]), Ok(Outcome::Done));
        cuda().destroy_context(own);
        assert!(to.memory.read() == sent);
    }
    String::new()
}

fn expect_three() -> String {
    let engines = Engines::new();
    let (from, to) = (
        Registered::new(&engines.client, Kind::Gpu, LENGTH),
        Registered::new(&engines.server, Kind::Gpu, LENGTH),
    );
    let sent = pattern(5, LENGTH);
    from.memory.write(&sent);
    let iov = engines.iov((&from, 0), (&to, 0), LENGTH as u64);
    let here = &engines.here;
    std::thread::scope(|scope| {
        let start = || Call::Submit.start(&engines.here, Opcode::Write, &[iov]).unwrap();
        let id = scope.spawn(start).join().unwrap();
        assert_eq!(scope.spawn(move || poll(here, id)).join().unwrap(), Outcome::Done);
        scope.spawn(start).join().unwrap();
        scope.spawn(|| keeps("close", || engines.here.close())).join().unwrap();
    });
    assert!(to.memory.read() == sent);
    String::new()
}

fn expect_at_once() -> String {
    const THREADS: u64 = 8;
    const ROUNDS: u64 = 50;
    let engines = Engines::new();
    let length = LENGTH as u64 / THREADS;
    let (from, to) = (
        Registered::new(&engines.client, Kind::Gpu, LENGTH),
        Registered::new(&engines.server, Kind::Gpu, LENGTH),
    );
    let sent = pattern(6, LENGTH);
    from.memory.write(&sent);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let (engines, from, to) = (&engines, &from, &to);
            scope.spawn(move || {
                for _ in 0..ROUNDS {
                    let iov = engines.iov((from, thread * length), (to, thread * length), length);
                    let done = Call::Submit.carry(&engines.here, Opcode::Write, &[iov]);
                    assert_eq!(done, Ok(Outcome::Done));
                }
            });
        }
    });
    assert!(to.memory.read() == sent);
    format!("{} transfers", THREADS * ROUNDS)
}
