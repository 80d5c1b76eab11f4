#!/bin/bash
# usage: start.sh DIR [further flags of vllm serve]
# Starts the vLLM that install.sh put into DIR, serving the tiny model as "tiny" on 127.0.0.1, and waits for /health.
# Environment: PORT (8000), MAX_MODEL_LEN (2048), MAX_NUM_SEQS (32), START_TIMEOUT (300 seconds).
# The log is DIR/vllm-PORT.log, the pid DIR/vllm-PORT.pid.
set -euo pipefail
DIR=$(cd "${1:?usage: start.sh DIR [flags]}" && pwd)
shift
PORT=${PORT:-8000}
pidfile=$DIR/vllm-$PORT.pid
log=$DIR/vllm-$PORT.log

if [ -f "$pidfile" ] && kill -0 "$(cat "$pidfile")" 2>/dev/null; then
  echo "already running, pid $(cat "$pidfile"), port $PORT"
  exit 0
fi

export HF_HUB_OFFLINE=1 TRANSFORMERS_OFFLINE=1 VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1
export VLLM_CPU_KVCACHE_SPACE=${VLLM_CPU_KVCACHE_SPACE:-1} VLLM_CPU_OMP_THREADS_BIND=${VLLM_CPU_OMP_THREADS_BIND:-nobind}
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} TORCHINDUCTOR_COMPILE_THREADS=1 CUDA_VISIBLE_DEVICES=
export PATH=$DIR/venv/bin:$PATH
# A session of its own: one signal to the group reaches the engine's processes too.
setsid "$DIR/venv/bin/vllm" serve "$DIR/tiny-model" --served-model-name tiny --load-format dummy \
  --max-model-len "${MAX_MODEL_LEN:-2048}" --max-num-seqs "${MAX_NUM_SEQS:-32}" --enforce-eager --dtype bfloat16 \
  --host 127.0.0.1 --port "$PORT" "$@" >"$log" 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pidfile"

end=$((SECONDS + ${START_TIMEOUT:-300}))
while [ "$SECONDS" -lt "$end" ]; do
  if curl -sf -o /dev/null --max-time 2 "http://127.0.0.1:$PORT/health"; then
    echo "vLLM is ready, pid $pid, port $PORT"
    exit 0
  fi
  if ! kill -0 "$pid" 2>/dev/null; then
    echo "vLLM ended before it was ready; the end of $log:" >&2
    tail -n 30 "$log" >&2
    rm -f "$pidfile"
    exit 1
  fi
  sleep 0.25
done
echo "vLLM did not answer /health in ${START_TIMEOUT:-300} s; the end of $log:" >&2
tail -n 30 "$log" >&2
kill -KILL -- "-$pid" 2>/dev/null || true
rm -f "$pidfile"
exit 1
