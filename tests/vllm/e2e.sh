#!/bin/bash
# usage: e2e.sh [further arguments of pytest]
# A real vLLM, tokenglass in front of it, and the official clients against both. Ports are chosen, all is stopped at the end.
# A real Prometheus, old and new, that scrapes the proxy; GPUs from the stub of NVML.
# Environment: TGTEST_BIN (target/release/tokenglass), TGTEST_NVML (target/release/libnvml_stub.so),
# TGTEST_CACHE (~/.cache/tokenglass), TGTEST_VLLM_DIR (where install.sh puts vLLM: TGTEST_CACHE/vllm).
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
BIN=${TGTEST_BIN:-$ROOT/target/release/tokenglass}
NVML=${TGTEST_NVML:-$ROOT/target/release/libnvml_stub.so}
CACHE=${TGTEST_CACHE:-$HOME/.cache/tokenglass}
VLLM=${TGTEST_VLLM_DIR:-$CACHE/vllm}
CLIENTS=$CACHE/clients
export PROMETHEUS_DIR=$CACHE/prometheus
export MAX_MODEL_LEN=8192 MAX_NUM_SEQS=16 PYTHONDONTWRITEBYTECODE=1

[ -x "$BIN" ] || { echo "e2e: there is no $BIN; build it first (cargo build --release)" >&2; exit 1; }
[ -r "$NVML" ] || { echo "e2e: there is no $NVML; build it first (cargo build --release -p tokenglass-nvml-stub)" >&2; exit 1; }

"$HERE/install.sh" "$VLLM"
"$HERE/../prometheus/install.sh" "$PROMETHEUS_DIR"
wanted=$(cksum <"$HERE/../clients/requirements.txt")
if [ "$(cat "$CLIENTS/installed" 2>/dev/null)" != "$wanted" ]; then
  python3 -m venv --clear "$CLIENTS"
  "$CLIENTS/bin/pip" install --quiet -r "$HERE/../clients/requirements.txt"
  echo "$wanted" >"$CLIENTS/installed"
fi

# Ports that are free now, all held at once so that they differ.
read -r PORT data admin data2 admin2 < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(5)]
print(*(s.getsockname()[1] for s in held))')
export PORT
work=$(mktemp -d)
log=$work/tokenglass.log
proxies=()
ended=0

# Starts a proxy on two ports, with more of its environment behind them, and waits until it is ready. (The variables
# of the tests do not begin with TOKENGLASS_: the proxy refuses what it does not know.)
start_proxy() {
  local data=$1 admin=$2
  shift 2
  env "$@" "$BIN" run --upstream "http://127.0.0.1:$PORT" --listen "127.0.0.1:$data" --admin "127.0.0.1:$admin" >>"$log" 2>&1 &
  local pid=$!
  proxies+=("$pid")
  for _ in $(seq 1 150); do
    curl -sf -o /dev/null --max-time 2 "http://127.0.0.1:$admin/readyz" && return 0
    kill -0 "$pid" 2>/dev/null || { echo "e2e: tokenglass ended before it was ready" >&2; return 1; }
    sleep 0.1
  done
  echo "e2e: /readyz never said yes" >&2
  return 1
}

# Asks the proxies to end, and after ten seconds insists. The worst exit status is kept in $ended.
stop_proxies() {
  local pid status
  for pid in "${proxies[@]}"; do
    kill -TERM "$pid" 2>/dev/null || true
  done
  for pid in "${proxies[@]}"; do
    for _ in $(seq 1 100); do
      kill -0 "$pid" 2>/dev/null || break
      sleep 0.1
    done
    kill -KILL "$pid" 2>/dev/null || true
    status=0
    wait "$pid" 2>/dev/null || status=$?
    if [ "$status" -ne 0 ]; then ended=$status; fi
  done
  proxies=()
}
cleanup() {
  status=$?
  trap - EXIT
  stop_proxies
  "$HERE/stop.sh" "$VLLM" || true
  if [ "$status" -ne 0 ] && [ -s "$log" ]; then
    echo "--- the end of the proxy's log"
    tail -n 40 "$log"
  fi
  rm -rf "$work"
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# Tool calls, reasoning and cached tokens are watched too; a given X-Request-Id comes back.
start_vllm=("$HERE/start.sh" "$VLLM" --enable-auto-tool-choice --tool-call-parser hermes --reasoning-parser qwen3
  --enable-prompt-tokens-details --enable-request-id-headers)
"${start_vllm[@]}"
# For the test that kills it.
printf -v VLLM_CONTROL '%q ' "${start_vllm[@]}"
export VLLM_CONTROL VLLM_PIDFILE=$VLLM/vllm-$PORT.pid

# The pollers look often, and soon call a silent engine stalled.
export POLL_INTERVAL=1 STALLED_AFTER=4
export NVML_STUB_STATE=$HERE/../nvml-stub/two-gpus.json
export TOKENGLASS_HEALTH__INTERVAL=${POLL_INTERVAL}s TOKENGLASS_ENGINE__INTERVAL=${POLL_INTERVAL}s
export TOKENGLASS_HEALTH__STALLED_AFTER=${STALLED_AFTER}s
export TOKENGLASS_GPU__MODE=nvml TOKENGLASS_GPU__LIBRARY=$NVML TOKENGLASS_GPU__INTERVAL=${POLL_INTERVAL}s

start_proxy "$data" "$admin"
start_proxy "$data2" "$admin2" TOKENGLASS_TOKENS__USAGE=inject TOKENGLASS_TOKENS__CONTINUOUS=true

export DIRECT_URL=http://127.0.0.1:$PORT PROXY_URL=http://127.0.0.1:$data ADMIN_URL=http://127.0.0.1:$admin
export INJECT_URL=http://127.0.0.1:$data2 INJECT_ADMIN_URL=http://127.0.0.1:$admin2
result=0
pytest() { "$CLIENTS/bin/python" -m pytest -q -o cache_dir="$work/cache" "$HERE/../clients" "$@" >"$work/pytest" 2>&1; }
pytest "$@" || result=$?
if [ "$result" -eq 1 ]; then
  # vLLM on two cores has its moments. What failed is asked once more; a proxy that is wrong is wrong again.
  cat "$work/pytest"
  # The last tests take it away, and may have failed before they brought it back.
  "${start_vllm[@]}"
  echo "pytest: $(tail -n 1 "$work/pytest"); what failed, once more:"
  result=0
  pytest --last-failed --last-failed-no-failures none "$@" || result=$?
fi
if [ "$result" -ne 0 ]; then cat "$work/pytest"; fi

stop_proxies
if [ "$ended" -ne 0 ]; then
  echo "e2e: tokenglass ended with $ended on SIGTERM, not with 0"
  [ "$result" -ne 0 ] || result=1
fi
echo "pytest: $(tail -n 1 "$work/pytest")"
[ "$result" -eq 0 ]
