//! Which context is current for a call, and what the calling thread has afterwards.

use super::*;

/// A context of the program's own on the GPU that has the memory.
const OWN: u64 = 0x770b;
/// Another GPU's primary context.
const OTHER: u64 = 0x100a;
const PAGE: u64 = 4096;

/// What the calling thread may have, and what the memory was allocated in: nothing, as of pools, the primary one, the program's own.
fn everywhere(act: impl Fn(&CudaRuntime)) {
    for owner in [0, 0x100b, OWN] {
        for current in [0, OTHER, 0x100b, OWN] {
            let cuda = played();
            assert_eq!(cuda.gpu_count(), Ok(2), "initialised");
            driver(|driver| driver.owner = owner);
            gpu(|gpu| gpu.current = current);
            act(&cuda);
            assert_eq!(gpu(|gpu| gpu.current), current, "memory of {owner:#x}");
        }
    }
}

/// The played driver aborts if another GPU's context is current, or none.
#[test]
fn what_names_memory_runs_in_its_context() {
    everywhere(|cuda| {
        assert_eq!(cuda.ipc_export(GPU + 100).unwrap().base, Some(GPU));
        assert_eq!(cuda.dma_buf(GPU + 100, PAGE).unwrap().offset, 100);
        assert_eq!(cuda.check_range(GPU, PAGE), Ok(()));
        assert_eq!(cuda.pointer_kind(GPU), Ok(PointerKind::Gpu(Some(1))));
    });
}

/// The engine's GPU may be another one than that of the memory: no context is made for it.
#[test]
fn no_context_of_another_gpu_is_made() {
    everywhere(|cuda| {
        let before = driver(|driver| driver.retained);
        assert!(CurrentGpu::of_address(cuda, GPU, 0).is_none());
        cuda.pointer_kind(0x1234).unwrap();
        assert_eq!(driver(|driver| driver.retained), before);
    });
}

#[test]
fn a_context_that_the_program_has_reset_is_retained_again() {
    let cuda = played();
    drop(CurrentGpu::enter(&cuda, 1).unwrap());
    driver(|driver| driver.resets = 1);
    {
        let _current = CurrentGpu::enter(&cuda, 1).unwrap();
        assert_eq!(gpu(|gpu| gpu.current), 0x110b);
    }
    assert_eq!((gpu(|gpu| gpu.current), driver(|driver| driver.retained)), (0, 2));
    // What a thread had is gone: it is left with nothing, and not with the engine's context.
    gpu(|gpu| gpu.current = 0x100b);
    drop(CurrentGpu::enter(&cuda, 1).unwrap());
    assert_eq!(gpu(|gpu| gpu.current), 0);
    gpu(|gpu| gpu.current = 0x100b);
    cuda.dma_buf(GPU, PAGE).unwrap();
    assert_eq!(gpu(|gpu| gpu.current), 0);
    assert_eq!(cuda.ipc_export(GPU).unwrap().base, Some(GPU), "memory without a context of its own");
}

/// Before the program initialises the driver, which a child that it forks could not do again.
#[test]
fn the_current_gpu_is_asked_for_without_initialising_the_driver() {
    let cuda = played();
    assert!(cuda.current_gpu().is_err());
    assert!(!driver(|driver| driver.initialised));
    gpu(|gpu| gpu.current = OTHER);
    assert_eq!(cuda.current_gpu(), Ok(0));
}

#[test]
fn a_driver_without_a_gpu_says_so_and_all_memory_is_the_hosts() {
    const NO_DEVICE: c_int = 100;
    let cuda = played();
    driver(|driver| driver.init_answers = NO_DEVICE);
    assert_eq!(cuda.pointer_kind(GPU), Ok(PointerKind::Host));
    let no_device =
        |error: GpuError| assert_eq!((error.code(), error.to_string().contains("cuInit")), (NO_DEVICE, true));
    no_device(cuda.gpu_count().unwrap_err());
    no_device(cuda.enter(0).unwrap_err());
    no_device(CurrentGpu::ensure(&cuda, 0).map(drop).unwrap_err());
    no_device(cuda.open_stream().map(drop).unwrap_err());
    no_device(cuda.ipc_export(GPU).map(drop).unwrap_err());
    no_device(cuda.dma_buf(GPU, PAGE).map(drop).unwrap_err());
}

#[test]
fn a_freed_address_and_a_gpu_that_is_not_there_are_named() {
    let cuda = played();
    assert_eq!(cuda.gpu_count(), Ok(2), "initialised");
    let freed = GPU + (2 << 20);
    for error in [cuda.ipc_export(freed).map(drop), cuda.dma_buf(freed, PAGE).map(drop)] {
        let error = error.unwrap_err();
        assert!(matches!(error, GpuError::NoMemory { address, .. } if address == freed), "{error}");
    }
    let error = CurrentGpu::ensure(&cuda, 7).map(drop).unwrap_err();
    assert!(error.to_string().starts_with("cuDeviceGet failed"), "{error}");
}

#[test]
fn a_range_is_one_allocation_or_mappings_side_by_side() {
    let cuda = played();
    assert_eq!(cuda.gpu_count(), Ok(2), "initialised");
    driver(|driver| driver.allocations = vec![PAGE, 2 * PAGE]);
    assert_eq!(cuda.check_range(GPU + 10, PAGE - 10), Ok(()));
    assert_eq!(cuda.check_range(GPU + PAGE, 2 * PAGE), Ok(()));
    let problem = |length| match cuda.check_range(GPU, length) {
        Err(GpuError::Range { problem, at, .. }) => Some((problem, at)),
        other => {
            assert_eq!(other, Ok(()));
            None
        }
    };
    assert_eq!(problem(PAGE + 1), Some(("another allocation begins", GPU + PAGE)));
    driver(|driver| driver.mapped = true);
    assert_eq!(problem(3 * PAGE), None);
    assert_eq!(problem(3 * PAGE + 1), Some(("it leaves GPU memory", GPU + 3 * PAGE)));
    // Not the driver's: what declares it to be a GPU's answers for that.
    assert_eq!(cuda.check_range(0x1234, PAGE), Ok(()));
}
