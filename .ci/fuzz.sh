#!/bin/sh
# Runs fuzz targets for some seconds each: .ci/fuzz.sh SECONDS [TARGET]... (default: every target).
#
# Does what `cargo fuzz run` does, without cargo-fuzz and on a stable toolchain: RUSTC_BOOTSTRAP lets it take the flag
# of the address sanitizer. Needs a C++ compiler, for libFuzzer. Findings are left in fuzz/artifacts/.
set -eu
cd "$(dirname "$0")/../fuzz"

seconds=$1
shift
[ $# -gt 0 ] || set -- $(sed -n 's/^path = "fuzz_targets\/\(.*\)\.rs"/\1/p' Cargo.toml)

export RUSTC_BOOTSTRAP=1
# The sanitizer's checks are calls: written out at every load and store, they took unrolled kernels three fifths longer to compile.
export RUSTFLAGS="--cfg fuzzing -Zsanitizer=address -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares -Cllvm-args=-asan-instrumentation-with-call-threshold=0"
host=$(rustc -vV | sed -n 's/^host: //p')
cargo build --release --target "$host"
for target in "$@"; do
    echo "fuzzing $target for $seconds s"
    mkdir -p "corpus/$target" "artifacts/$target"
    "${CARGO_TARGET_DIR:-target}/$host/release/$target" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=4096 \
        -print_final_stats=1 -artifact_prefix="artifacts/$target/" "corpus/$target" 2>"artifacts/$target.log" || {
        tail -n 60 "artifacts/$target.log"
        exit 1
    }
    sed -n 's/^stat::number_of_executed_units: */  runs: /p; s/^stat::peak_rss_mb: */  MiB: /p' "artifacts/$target.log"
done
