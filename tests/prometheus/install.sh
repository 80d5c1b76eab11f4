#!/bin/bash
# usage: install.sh [DIR]
# Puts two versions of Prometheus and promtool into DIR: DIR/new (3.x, Debian's next release) and DIR/old (2.42, Debian 12),
# unpacked and nothing of the system changed. DIR is ${TGTEST_CACHE:-~/.cache/tokenglass}/prometheus unless given.
# A second run changes nothing and needs no network.
set -euo pipefail
DIR=${1:-${TGTEST_CACHE:-$HOME/.cache/tokenglass}/prometheus}
MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
KEYS=/usr/share/keyrings/debian-archive-keyring.gpg
mkdir -p "$DIR"
DIR=$(cd "$DIR" && pwd)

# Packages of one suite, unpacked into DIR/NAME/root, by an apt that knows neither the system's lists nor its state.
unpack() {
  local name=$1 suite=$2 state=$DIR/$1/apt
  shift 2
  [ -f "$DIR/$name/installed" ] && return
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
  ln -sfn root/usr/bin "$DIR/$name/bin"
  "$DIR/$name/bin/prometheus" --version >/dev/null 2>&1
  "$DIR/$name/bin/promtool" --version >/dev/null 2>&1
  touch "$DIR/$name/installed"
}

unpack new forky prometheus promtool
unpack old bookworm prometheus
for name in new old; do "$DIR/$name/bin/prometheus" --version 2>&1 | sed -n 1p; done
