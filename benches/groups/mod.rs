//! One criterion group per case, with one function per implementation.

use criterion::{Criterion, Throughput};
use spice_migration_benches::measured::measurements;

/// Times an operation.
pub(crate) fn bench(operation: &str) {
    let mut criterion = Criterion::default().configure_from_args();
    let measurements: Vec<_> = measurements().into_iter().filter(|it| it.operation == operation).collect();
    let mut cases = Vec::new();
    for measurement in &measurements {
        if !cases.contains(&measurement.case) {
            cases.push(measurement.case);
        }
    }
    for case in cases {
        let mut group = criterion.benchmark_group(format!("{operation}/{case}"));
        for measurement in measurements.iter().filter(|it| it.case == case) {
            group.throughput(Throughput::Elements(measurement.messages));
            group.bench_function(measurement.implementation, |bencher| {
                bencher.iter_custom(|iterations| measurement.run(iterations));
            });
        }
        group.finish();
    }
    criterion.final_summary();
}
