//! Holds nothing: the benchmarks are the package's bench targets.
