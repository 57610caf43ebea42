#!/usr/bin/env bash
# What podlog costs at rest: time from start to ready, resident memory of the whole, and of one capture process.
#
#   bench/footprint.sh [BINARY]        default: target/release/podlog
#
# Method: a data directory of its own; the first start makes certificates and store, five more are timed by the clock around
# the process until its ready line. Then 10 pods that sleep; memory is VmRSS of /proc after 10 s at rest. PSS (shared pages
# divided among their users) is given beside it: one binary serves all captures.
set -euo pipefail
podlog=${1:-target/release/podlog}
work=$(mktemp -d)
cleanup() {
  "$podlog" down --data-dir "$work/data" --grace-period 0 >/dev/null 2>&1 || true
  rm -rf "$work"
}
trap cleanup EXIT

memory() { # PID FIELD
  awk -v field="$2:" '$1 == field { print $2 }' "/proc/$1/smaps_rollup"
}

start() {
  local before after
  before=$(date +%s%N)
  "$podlog" up --data-dir "$work/data" --secure-port 0 --kubelet-port 0 "$@" >"$work/out" 2>"$work/err" &
  up=$!
  until grep -q KUBECONFIG "$work/out"; do
    kill -0 "$up" || { cat "$work/err"; exit 1; }
    sleep 0.005
  done
  after=$(date +%s%N)
  echo "$(( (after - before) / 1000000 )) ms"
}

stop() { kill -INT "$up"; wait "$up" || true; }

echo "first start to ready:  $(start; )"
up=$(cat "$work/data/up.lock"); kill -INT "$up"; while kill -0 "$up" 2>/dev/null; do sleep 0.05; done
for _ in 1 2 3 4 5; do
  echo "later start to ready:  $(start)"
  up=$(cat "$work/data/up.lock"); kill -INT "$up"; while kill -0 "$up" 2>/dev/null; do sleep 0.05; done
done

for n in 1 2 3 4 5 6 7 8 9 10; do
  printf -- '---\napiVersion: v1\nkind: Pod\nmetadata: {name: idle-%s}\nspec: {containers: [{name: c, image: host, command: [/bin/sleep, "100000"]}]}\n' "$n"
done >"$work/pods.yaml"
start -f "$work/pods.yaml" >/dev/null
up=$(cat "$work/data/up.lock")
until [ "$(pgrep -fc "capture --dir $work/data")" -ge 10 ]; do sleep 0.1; done
sleep 10
echo "podlog up, 10 idle pods:  RSS $(memory "$up" Rss) KiB, PSS $(memory "$up" Pss) KiB, anonymous $(memory "$up" Anonymous) KiB"
capture=$(pgrep -f "capture --dir $work/data" | head -1)
echo "one capture process:      RSS $(memory "$capture" Rss) KiB, PSS $(memory "$capture" Pss) KiB, anonymous $(memory "$capture" Anonymous) KiB"
