#!/bin/bash -eu
# Within the engines' Rust image: $SRC has the sources, $OUT takes targets, corpora and dictionaries.
cd "$SRC/spice-migration"
cargo fuzz build --fuzz-dir fuzz --features libfuzzer -O --debug-assertions
for file in fuzz/fuzz_targets/*.rs; do
    target=$(basename "$file" .rs)
    binary=target/x86_64-unknown-linux-gnu/release/$target
    # The differential target needs spice-common's sources, and is not built here.
    if [ ! -x "$binary" ]; then continue; fi
    cp "$binary" "$OUT/"
    cp fuzz/dictionary.txt "$OUT/$target.dict"
    inputs=(corpus/derived/fuzz/"$target"/*)
    if [ -d "corpus/regressions/$target" ]; then inputs+=(corpus/regressions/"$target"/*); fi
    zip -jq "$OUT/${target}_seed_corpus.zip" "${inputs[@]}"
done
