#!/bin/bash
# usage: validate.sh
# Asks a real collector whether the configurations here are valid, and whether it says no to a broken one.
#
# OTELCOL names a collector that is there already (otelcol or otelcol-contrib, which can judge both files). Without it one
# is built of the core components, from Debian's source packages: 300 MB to download, about a minute of two cores, Debian or
# Ubuntu with apt only, nothing of the system changed. It can judge collector.yaml alone. A second run builds nothing.
#
# DIR     where to build, ${TGTEST_CACHE:-~/.cache/tokenglass}/otelcol unless given
# SUITE   Debian suite of the packages, sid unless given: it has the collector from 0.152 on
set -euo pipefail
HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
DIR=${DIR:-${TGTEST_CACHE:-$HOME/.cache/tokenglass}/otelcol}
SUITE=${SUITE:-sid}
# shellcheck source=tests/unpack-deb.sh
source "$HERE/../../tests/unpack-deb.sh"

build() {
  local apt=$DIR/apt names
  rm -rf "$DIR"
  apart "$apt" "$SUITE"
  mkdir -p "$DIR/root"
  # Everything that it needs is named golang*; the rest of what apt would install is a base system.
  mapfile -t names < <(apt-get "${apart[@]}" -s --no-install-recommends install golang-go golang-opentelemetry-collector-dev |
    awk '$1 == "Inst" && $2 ~ /^golang/ { print $2 }')
  [ ${#names[@]} -gt 0 ] || { echo "no collector in $SUITE" >&2; return 1; }
  (cd "$apt/debs" && apt-get "${apart[@]}" download "${names[@]}")
  for package in "$apt"/debs/*.deb; do dpkg-deb -x "$package" "$DIR/root"; done
  local goroots=("$DIR"/root/usr/lib/go-[0-9]*)
  mkdir -p "$DIR/path/src/otelcol-core"
  cp "$HERE/validate/main.go" "$DIR/path/src/otelcol-core/"
  (cd "$DIR/path/src/otelcol-core" &&
    GOROOT=${goroots[0]} GO111MODULE=off GOTOOLCHAIN=local GOFLAGS='' CGO_ENABLED=0 GOCACHE=$DIR/cache \
      GOPATH=$DIR/path:$DIR/root/usr/share/gocode "${goroots[0]}/bin/go" build -o "$DIR/otelcol-core" .)
  rm -rf "$apt" "$DIR/root" "$DIR/path" "$DIR/cache"
}

files=("$HERE/collector.yaml")
if [ -n "${OTELCOL:-}" ]; then
  files+=("$HERE/collector-contrib.yaml")
else
  OTELCOL=$DIR/otelcol-core
  [ -x "$OTELCOL" ] || build
fi

export OTLP_ENDPOINT=backend:4317
for file in "${files[@]}"; do
  "$OTELCOL" validate --config "$file"
  echo "valid: ${file##*/}"
done
# One that takes anything proves nothing.
broken=$(mktemp)
trap 'rm -f "$broken"' EXIT
sed 's/limit_percentage/limit_percentile/' "$HERE/collector.yaml" >"$broken"
if "$OTELCOL" validate --config "$broken" 2>/dev/null; then
  echo 'a misspelled key was taken for valid' >&2
  exit 1
fi
if OTLP_ENDPOINT='' "$OTELCOL" validate --config "$HERE/collector.yaml" 2>/dev/null; then
  echo 'no endpoint was taken for valid' >&2
  exit 1
fi
echo 'refused: a misspelled key, no endpoint'
