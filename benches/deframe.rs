//! How long it takes to cut a stream of 1000 small messages.

mod groups;

fn main() {
    groups::bench("frame");
}
