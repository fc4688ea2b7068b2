#!/usr/bin/env bash
# run.sh [PROPERTY...]: looks for inputs that properties (by default all) do not hold for, by coverage, SECONDS_EACH (60) each. What it
# finds is left in target/fuzz/found; once mended it belongs into tests/fuzz/corpus/PROPERTY/.
set -euo pipefail
cd "$(dirname "$0")/../.."
seconds=${SECONDS_EACH:-60}
if [ $# = 0 ]; then
    mapfile -t names < <(ls tests/fuzz/corpus)
    set -- "${names[@]}"
fi

cargo +nightly fuzz build --fuzz-dir tests/fuzz --target-dir target/fuzz properties
binary=$(find target/fuzz/*/release -maxdepth 1 -name properties -type f)
mkdir -p target/fuzz/found
failed=()
for name in "$@"; do
    mkdir -p "target/fuzz/corpus/$name"
    printf '\033[1m%s, %s s\033[0m\n' "$name" "$seconds"
    log=target/fuzz/$name.log
    # Leaks are not looked for: libpq keeps what it has read of the environment.
    if PGPAIR_FUZZ_PROPERTY=$name "$binary" -max_total_time="$seconds" -max_len=4096 -timeout=10 -detect_leaks=0 -print_final_stats=1 \
        -dict="tests/fuzz/words/$name.dict" -artifact_prefix="target/fuzz/found/$name-" \
        "target/fuzz/corpus/$name" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
        grep -E '^(stat::number_of_executed_units|#.*DONE)' "$log"
    else
        failed+=("$name")
        grep -vE '^#|NEW_FUNC' "$log" | tail -n 30
    fi
done
[ ${#failed[@]} = 0 ] || { echo "Not held: ${failed[*]} (inputs in target/fuzz/found, output in target/fuzz/*.log)" >&2; exit 1; }
