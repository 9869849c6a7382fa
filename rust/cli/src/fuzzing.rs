//! What the fuzz targets of `rust/core/fuzz` call, and the same over their corpora as a test.

use crate::bench;

/// Frames of the control stream of a benchmark, one after the other. What is accepted is within the limits, and is the same after it was
/// written again.
pub fn bench_frame(data: &[u8]) {
    bench::fuzz_frames(data);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    #[test]
    fn every_target_survives_its_corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/fuzz/corpus/bench_frame");
        let inputs: Vec<_> = fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
        assert!(inputs.len() > 5, "{} has {} inputs", folder.display(), inputs.len());
        for file in inputs {
            println!("{}", file.display());
            super::bench_frame(&fs::read(file).unwrap());
        }
    }
}
