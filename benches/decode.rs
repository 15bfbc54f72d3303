//! How long it takes to decode one message. Run with `cargo bench -p spice-migration-benches`.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use spice_migration::{ChannelType, ServerMessage};

/// Id and body by name; the first as captured from QEMU 7.2.
const BODIES: &[(&str, u16, &[u8])] = &[
    ("BEGIN", 101, b"\x3c\x3e\xff\xff\x0a\0\0\0\x14\0\0\0\0\0\0\0\0\0\0\x00127.0.0.1\0"),
    ("INIT", 103, &[1; 32]),
    ("8 channels", 104, &[8, 0, 0, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 8, 0, 9, 0, 10, 0]),
    ("MIGRATE", 1, &[3, 0, 0, 0]),
    ("empty", 112, &[]),
];

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    for (name, id, body) in BODIES {
        group.bench_function(*name, |bencher| {
            bencher.iter(|| ServerMessage::decode(ChannelType::MAIN, black_box(*id), black_box(body)));
        });
    }
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
