#!/bin/bash
# usage: stop.sh DIR
# Stops the vLLM that start.sh started from DIR on PORT (8000): asks, and after 30 s insists. Nothing to stop is no error.
set -euo pipefail
DIR=$(cd "${1:?usage: stop.sh DIR}" && pwd)
pidfile=$DIR/vllm-${PORT:-8000}.pid
[ -f "$pidfile" ] || exit 0
pid=$(cat "$pidfile")
# A pid outlives its process: only a vLLM is ours to stop.
if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q 'vllm'; then
  kill -TERM "$pid" 2>/dev/null || true
  for _ in $(seq 1 60); do
    kill -0 "$pid" 2>/dev/null || break
    sleep 0.5
  done
  kill -KILL -- "-$pid" 2>/dev/null || true
fi
rm -f "$pidfile"
