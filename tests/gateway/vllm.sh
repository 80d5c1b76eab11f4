#!/bin/bash
# usage: tests/gateway/vllm.sh [further arguments of two_vllms.py]
# Two real vLLMs behind one gateway, the official client in a loop, one of them killed and started again. Takes some five
# minutes on two idle cores, and 8 GB of memory. Environment: TGTEST_BIN (target/release/tokenglass), TGTEST_CACHE
# (~/.cache/tokenglass), TGTEST_VLLM_DIR (TGTEST_CACHE/vllm).
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
CACHE=${TGTEST_CACHE:-$HOME/.cache/tokenglass}
VLLM=${TGTEST_VLLM_DIR:-$CACHE/vllm}
CLIENTS=$CACHE/clients
export PYTHONDONTWRITEBYTECODE=1 MAX_NUM_SEQS=8 MAX_MODEL_LEN=2048 START_TIMEOUT=900

"$HERE/../vllm/install.sh" "$VLLM"
wanted=$(cksum <"$HERE/../clients/requirements.txt")
if [ "$(cat "$CLIENTS/installed" 2>/dev/null)" != "$wanted" ]; then
  python3 -m venv --clear "$CLIENTS"
  "$CLIENTS/bin/pip" install --quiet -r "$HERE/../clients/requirements.txt"
  echo "$wanted" >"$CLIENTS/installed"
fi
read -r first second < <(python3 -c '
import socket
held = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in held))')
cleanup() {
  status=$?
  trap - EXIT
  for port in "$first" "$second"; do PORT=$port "$HERE/../vllm/stop.sh" "$VLLM" || true; done
  exit "$status"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

# One after the other: each takes both cores while it loads.
for port in "$first" "$second"; do
  PORT=$port "$HERE/../vllm/start.sh" "$VLLM"
done
"$CLIENTS/bin/python" "$HERE/two_vllms.py" "$VLLM" "$first" "$second" "$@"
