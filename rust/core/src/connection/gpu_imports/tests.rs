use std::sync::mpsc::channel;
use std::thread;

use super::*;
use crate::gpu::{Gate, PlayedRuntime};

fn info(number: u8) -> IpcInfo {
    IpcInfo { handle: [number; IPC_HANDLE_BYTES], base: 0, offset: 0, size: 64 }
}

fn played(played: PlayedRuntime) -> (Arc<PlayedRuntime>, Arc<dyn GpuRuntime>) {
    let played = Arc::new(played);
    (Arc::clone(&played), played)
}

#[test]
fn an_allocation_is_opened_once_and_the_oldest_idle_one_closed() {
    let (played, runtime) = played(PlayedRuntime::default());
    let imports = Imports::default();
    let Opening { start: first, hold: in_use, .. } = imports.open(&runtime, 0, &info(0)).unwrap();
    for number in 1..=KEPT as u8 {
        drop(imports.open(&runtime, 0, &info(number)).unwrap());
    }
    assert_eq!(
        (played.opens(), played.open()),
        (KEPT + 1, KEPT),
        "the second one, not that in use, was closed"
    );
    assert_eq!(imports.open(&runtime, 0, &info(0)).unwrap().start, first);
    assert_eq!(played.opens(), KEPT + 1);
    drop(imports.open(&runtime, 0, &info(1)).unwrap());
    assert_eq!((played.opens(), played.open()), (KEPT + 2, KEPT));
    let again = imports.open(&runtime, 0, &info(0)).unwrap();
    imports.release();
    assert_eq!(played.open(), 1, "transfers use it");
    drop(imports.open(&runtime, 0, &info(0)).unwrap());
    drop(in_use);
    assert_eq!((played.opens(), played.open()), (KEPT + 2, 1), "one that is open is not opened again");
    drop(again);
    assert_eq!(played.open(), 0, "released while it was in use, it is closed by the last transfer");
    drop(imports.open(&runtime, 0, &info(0)).unwrap());
    assert_eq!((played.opens(), played.open()), (KEPT + 3, 1));
    imports.close();
    assert_eq!(played.open(), 0);
    drop(imports.open(&runtime, 0, &info(0)).unwrap());
    assert_eq!(played.open(), 0, "nothing is kept after the close");
}

#[test]
fn what_is_kept_is_closed_with_the_connection() {
    let (played, runtime) = played(PlayedRuntime::default());
    let imports = Imports::default();
    drop(imports.open(&runtime, 0, &info(0)).unwrap());
    assert_eq!(played.open(), 1);
    drop(imports);
    assert_eq!(played.open(), 0);
}

/// The played runtime has GPU 0 only.
#[test]
fn nothing_is_opened_on_a_gpu_that_cannot_be_made_current() {
    let (played, runtime) = played(PlayedRuntime::default());
    let imports = Imports::default();
    let error = imports.open(&runtime, 1, &info(0)).unwrap_err();
    assert!(matches!(error, GpuError::Unsupported { .. }), "{error}");
    assert_eq!(played.opens(), 0);
    assert!(lock(&imports.list.state).imports.is_empty(), "another thread may try");
}

/// The peer may say what it likes of the length.
#[test]
fn the_runtime_says_how_long_an_allocation_is() {
    let (_, runtime) = played(PlayedRuntime { opened_bytes: Some(48), ..PlayedRuntime::default() });
    let imports = Imports::default();
    for _ in 0..2 {
        assert_eq!(imports.open(&runtime, 0, &info(0)).unwrap().length, Some(48));
    }
    let (_, silent) = played(PlayedRuntime::default());
    assert_eq!(Imports::default().open(&silent, 0, &info(0)).unwrap().length, None);
}

/// The peer has deregistered it meanwhile, and may free it.
#[test]
fn what_the_driver_opens_during_a_release_is_not_kept() {
    let (played, runtime) =
        played(PlayedRuntime { slow_open: Some((0, Gate::default())), ..PlayedRuntime::default() });
    let imports = Imports::default();
    thread::scope(|scope| {
        let opening = scope.spawn(|| imports.open(&runtime, 0, &info(0)).unwrap());
        played.slow_open().wait_for_call();
        imports.release();
        played.slow_open().open_for_all();
        let opening = opening.join().unwrap();
        assert_eq!(played.open(), 1, "a transfer uses it");
        drop(opening);
    });
    assert_eq!(played.open(), 0);
    drop(imports.open(&runtime, 0, &info(0)).unwrap());
    assert_eq!(played.open(), 1, "what is opened afterwards is kept");
}

/// While the driver opens allocation 0, and later while it closes it, all else goes on.
#[test]
fn a_slow_driver_stalls_only_the_threads_that_need_its_allocation() {
    let slow = || Some((0, Gate::default()));
    let (played, runtime) =
        played(PlayedRuntime { slow_open: slow(), slow_close: slow(), ..PlayedRuntime::default() });
    let (imports, (done, came)) = (Imports::default(), channel());
    let others = |number| {
        drop(imports.open(&runtime, 0, &info(number)).unwrap());
        drop(imports.open(&runtime, 0, &info(number)).unwrap());
        imports.release();
    };
    thread::scope(|scope| {
        let slow_open = scope.spawn(|| imports.open(&runtime, 0, &info(0)).unwrap());
        played.slow_open().wait_for_call();
        others(1);
        let same = scope.spawn(|| {
            let opening = imports.open(&runtime, 0, &info(0)).unwrap();
            done.send(()).unwrap();
            opening
        });
        assert!(came.recv_timeout(Duration::from_millis(20)).is_err(), "it is opened once");
        played.slow_open().let_pass();
        let (first, second) = (slow_open.join().unwrap(), same.join().unwrap());
        came.recv().unwrap();
        assert_eq!((played.opens(), first.start), (2, second.start));
        imports.release();
        drop(first);
        let slow_close = scope.spawn(move || drop(second));
        played.slow_close().wait_for_call();
        others(2);
        let again = scope.spawn(|| {
            let opening = imports.open(&runtime, 0, &info(0)).unwrap();
            done.send(()).unwrap();
            drop(opening);
        });
        assert!(came.recv_timeout(Duration::from_millis(20)).is_err(), "it is not opened beside its close");
        let begun = Instant::now();
        played.slow_close().open_for_all();
        played.slow_open().open_for_all();
        slow_close.join().unwrap();
        again.join().unwrap();
        assert!(begun.elapsed() < LOOK_AGAIN / 2, "woken by the close");
    });
    assert_eq!((played.opens(), played.open()), (4, 1));
    imports.close();
    assert_eq!(played.open(), 0);
}
