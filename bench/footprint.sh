#!/usr/bin/env bash
# What podlog costs at rest: time from start to ready, resident memory of the whole, and of one capture process.
#
#   bench/footprint.sh [BINARY]        default: target/release/podlog
#
# Method: a data directory of its own. The first start makes certificates and store; five more are timed by the clock, from
# the start of the process until its ready line is there. Then 10 pods that sleep; memory is that of /proc/PID/smaps_rollup
# after 15 s at rest. Pss is given beside Rss: it divides pages that several processes share, as all captures share one binary.
set -euo pipefail
podlog=${1:-target/release/podlog}
work=$(mktemp -d)
up=
cleanup() {
  "$podlog" down --data-dir "$work/data" --grace-period 0 >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

# Sets `up` to the pid and `took` to the milliseconds until the ready line.
start() {
  local before
  rm -f "$work/out"
  before=$(date +%s%N)
  "$podlog" up --data-dir "$work/data" --secure-port 0 --kubelet-port 0 "$@" >"$work/out" 2>"$work/err" &
  up=$!
  until grep -qs KUBECONFIG "$work/out"; do
    kill -0 "$up" || { cat "$work/err"; exit 1; }
    sleep 0.002
  done
  took=$((($(date +%s%N) - before) / 1000000))
}

memory() { # PID
  awk '$1 ~ /^(Rss|Pss|Anonymous):$/ { printf "%s %d KiB  ", $1, $2 }' "/proc/$1/smaps_rollup"
}

start
echo "first start to ready: $took ms"
for _ in 1 2 3 4 5; do
  kill -INT "$up"
  wait "$up"
  start
  echo "later start to ready: $took ms"
done
kill -INT "$up"
wait "$up"

for n in 1 2 3 4 5 6 7 8 9 10; do
  printf -- '---\napiVersion: v1\nkind: Pod\nmetadata: {name: idle-%s}\nspec: {containers: [{name: c, image: host, command: [/bin/sleep, "100000"]}]}\n' "$n"
done >"$work/pods.yaml"
start -f "$work/pods.yaml"
captures() { pgrep -f "capture --dir $work/data" || true; }
until [ "$(captures | wc -l)" -eq 10 ]; do sleep 0.1; done
sleep 15
echo "podlog up, 10 idle pods: $(memory "$up")"
echo "one capture process:     $(memory "$(captures | head -1)")"
