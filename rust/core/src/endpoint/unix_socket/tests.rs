use std::os::unix::net::UnixStream;
use std::sync::Barrier;
use std::sync::mpsc::channel;

use super::*;

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

fn is_in_use<T: fmt::Debug>(answer: io::Result<T>) -> bool {
    answer.unwrap_err().raw_os_error() == Some(libc::EADDRINUSE)
}

#[test]
fn only_what_an_ended_process_left_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let (socket, made) = listen(path.clone(), 1).unwrap();
    assert_eq!(fs::symlink_metadata(&path).unwrap().mode() & 0o777, 0o600);
    assert!(is_in_use(listen(path.clone(), 1)));
    assert_eq!(files(folder.path()), 1, "it has one name, and the other one leaves nothing");
    drop(made);
    assert!(!path.exists(), "removed at its end");
    drop(socket);

    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let (_socket, made) = listen(path.clone(), 1).unwrap();
    UnixStream::connect(&path).unwrap();

    fs::remove_file(&path).unwrap();
    fs::write(&path, "text").unwrap();
    drop(made);
    assert_eq!(fs::read(&path).unwrap(), b"text", "another file is not removed");
    assert_eq!(listen(path.clone(), 1).unwrap_err().kind(), ErrorKind::AlreadyExists);
    assert_eq!(fs::read(&path).unwrap(), b"text", "and not replaced");
    assert_eq!(files(folder.path()), 1);
}

/// A process was killed after it had bound its socket, and one is about to listen.
#[test]
fn first_names_that_were_left_are_removed_and_no_others() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let left = [".0123abcd", ".ffffffff"];
    left.iter().for_each(|name| drop(UnixListener::bind(at(name)).unwrap()));
    // Of another form, no socket, and of a process that runs.
    drop(UnixListener::bind(at(".0123ABCD")).unwrap());
    drop(UnixListener::bind(at(".0123abcde")).unwrap());
    fs::write(at(".00000000"), "text").unwrap();
    let _running = UnixListener::bind(at(".11111111")).unwrap();
    let locked = FolderLock::acquire(folder.path()).unwrap();
    drop(listen(at("first"), 1).unwrap());
    assert!(left.iter().all(|name| at(name).exists()), "another process may be between bind and listen");
    drop(locked);
    let (_socket, _made) = listen(at("second"), 1).unwrap();
    assert!(!left.iter().any(|name| at(name).exists()));
    for kept in [".0123ABCD", ".0123abcde", ".00000000", ".11111111", "second"] {
        assert!(at(kept).exists(), "{kept}");
    }
}

/// As that of a stopped process, to which clients go on to connect.
#[test]
fn a_socket_with_a_full_backlog_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let (_socket, _made) = listen(path.clone(), 1).unwrap();
    let address = SockAddr::unix(&path).unwrap();
    let clients: Vec<_> = std::iter::from_fn(|| {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        client.connect(&address).is_ok().then_some(client)
    })
    .collect();
    assert!((1..10).contains(&clients.len()), "{}", clients.len());
    let (report, answered) = channel();
    thread::spawn(move || report.send(is_in_use(listen(path, 1))));
    assert_eq!(answered.recv_timeout(Duration::from_secs(10)), Ok(true));
}

/// Of processes that start at the same time one listens, whatever lies there, and its socket stays.
#[test]
fn one_of_many_listens() {
    const THREADS: usize = 3;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    let (start, end) = (Barrier::new(THREADS), Barrier::new(THREADS));
    for round in 0..100 {
        if round % 2 == 0 {
            drop(UnixListener::bind(&path).unwrap());
        }
        let listening: Vec<_> = thread::scope(|scope| {
            let listens = || {
                start.wait();
                let listening = listen(path.clone(), 8);
                end.wait();
                listening
            };
            let threads: Vec<_> = (0..THREADS).map(|_| scope.spawn(listens)).collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap().ok()).collect()
        });
        assert_eq!(listening.len(), 1, "round {round}");
        assert!(UnixStream::connect(&path).is_ok(), "round {round}: its socket was removed");
        drop(listening);
        assert_eq!(files(folder.path()), 0, "round {round}");
    }
}

#[test]
fn a_folder_that_stays_locked_is_waited_for_a_moment() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("metrics");
    drop(UnixListener::bind(&path).unwrap());
    let locked = FolderLock::acquire(folder.path()).unwrap();
    let error = listen(path.clone(), 1).unwrap_err();
    assert!(error.to_string().contains("may be removed"), "{error}");
    drop(locked);
    listen(path, 1).unwrap();
}
