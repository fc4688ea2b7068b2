#!/usr/bin/env bash
# bench.sh: what a probe costs, measured on this machine; prints a Markdown table. `make bench` runs it.
#
# One PostgreSQL container, the release binary beside it, wrk as the clients. Each figure is the median of RUNS runs of SECONDS seconds.
# Machines differ and are shared: compare lines of one run, not runs of two machines.
set -euo pipefail
runs=${RUNS:-5} seconds=${SECONDS_EACH:-3} clients=${CLIENTS:-1 16 64 256}
image=${PGPAIR_TEST_POSTGRES_IMAGE:?is the image to measure with; make bench sets it}
binary=${PGPAIR_TEST_BINARY:?is the binary to measure; make bench sets it}
port=${PORT:-15990} name=pgpair-bench-$$ probe=

say() { printf '%s\n' "$*" >&2; }
clean() {
    [ -z "$probe" ] || kill "$probe" 2>/dev/null || true
    docker rm --force --volumes "$name" >/dev/null 2>&1 || true
}
trap clean EXIT

median() { sort -n | awk '{v[NR] = $1} END {print v[int((NR + 1) / 2)]}'; }

# wrk's times as milliseconds.
milliseconds() { sed -E 's/^([0-9.]+)us$/\1 0.001/; s/^([0-9.]+)ms$/\1 1/; s/^([0-9.]+)s$/\1 1000/' | awk '{printf "%.3f\n", $1 * $2}'; }

sql() { docker exec --user postgres "$name" psql -Atc "$1"; }

observations() { curl --silent "http://127.0.0.1:$port/metrics" | awk '/^pgpair_observation_seconds_count/ {print $2}'; }

resident() { awk '/VmRSS/ {print $2}' "/proc/$probe/status"; }

# measure PATH CLIENTS: answers a second, median and 99th percentile in ms, of the median run each.
measure() {
    local path=$1 count=$2 threads=1 out rates="" halves="" highs=""
    for _ in $(seq "$runs"); do
        out=$(wrk --threads "$threads" --connections "$count" --duration "${seconds}s" --timeout 5s --latency "http://127.0.0.1:$port$path")
        rates+="$(awk '/Requests\/sec/ {print $2}' <<<"$out")"$'\n'
        halves+="$(awk '$1 == "50%" {print $2}' <<<"$out" | milliseconds)"$'\n'
        highs+="$(awk '$1 == "99%" {print $2}' <<<"$out" | milliseconds)"$'\n'
    done
    # shellcheck disable=SC2016 # code marks, not a command
    printf '| `%s` | %s | %s | %s | %s | %s |\n' "$path" "$3" "$count" "$(printf '%s' "$rates" | median)" \
        "$(printf '%s' "$halves" | median)" "$(printf '%s' "$highs" | median)"
}

command -v wrk >/dev/null || { say "Installing wrk"; apt-get install -y -qq --no-install-recommends wrk >/dev/null; }

say "Starting PostgreSQL"
docker run --detach --name "$name" --env POSTGRES_HOST_AUTH_METHOD=trust --env POSTGRES_PASSWORD=bench "$image" >/dev/null
until docker exec "$name" pg_isready --quiet --host 127.0.0.1; do sleep 0.2; done
address=$(docker inspect --format '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$name")

began=$(date +%s%N)
"$binary" serve --listen "127.0.0.1:$port" --nodes a --database-url "postgresql://postgres@$address/postgres" --log error &
probe=$!
until curl --silent --fail --output /dev/null "http://127.0.0.1:$port/ready"; do :; done
cold=$((($(date +%s%N) - began) / 1000000))
sleep 2
idle=$(resident)

printf '| path | PostgreSQL | clients | answers/s | p50 ms | p99 ms |\n| --- | --- | --- | --- | --- | --- |\n'
for count in $clients; do
    say "Healthy, $count clients"
    measure /health "$count" healthy
    measure /ready "$count" healthy
done
before=$(observations)
wrk --threads 1 --connections 64 --duration "${seconds}s" "http://127.0.0.1:$port/ready" >/dev/null
after=$(observations)
connections=$(sql "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgpair'")
loaded=$(resident)

docker pause "$name" >/dev/null
until [ "$(curl --silent "http://127.0.0.1:$port/ready" | grep -c overdue)" = 1 ]; do :; done
for count in $clients; do
    say "Frozen, $count clients"
    measure /health "$count" frozen
    measure /ready "$count" frozen
done
docker unpause "$name" >/dev/null

cat <<TABLE

| what | figure |
| --- | --- |
| queries/s that pgpair asked for 64 clients | $(((after - before) / seconds)) |
| connections that pgpair held | $connections |
| resident memory, idle | $idle kB |
| resident memory after the load | $loaded kB |
| binary | $(stat --format %s "$binary") bytes |
| from start to the first 200 | $cold ms |

Medians of $runs runs of $seconds s; $(nproc) processors, $(uname -sr).
TABLE
