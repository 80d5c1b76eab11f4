# Sourced by scripts that need Debian's programs and are not to change the system; DIR is theirs.
# unpack NAME SUITE PACKAGE...: packages of one suite, unpacked into DIR/NAME/root, by an apt that knows neither the system's
# lists nor its state. Only once: then there is DIR/NAME/installed.
# shellcheck shell=bash
# The mirror that this Debian uses itself.
# shellcheck disable=SC2016 # the field is apt's to expand
MIRROR=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | sed -n 1p || true)}
# apart STATE SUITE: an apt with lists and a state of its own in STATE, in which nothing is installed; its options are in `apart`.
apart() {
  local state=$1 suite=$2 keys=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -n "$MIRROR" ] || { echo 'no mirror of Debian known: set DEBIAN_MIRROR' >&2; return 1; }
  mkdir -p "$state/lists/partial" "$state/cache/archives/partial" "$state/debs"
  : >"$state/status"
  echo "deb [signed-by=$keys] $MIRROR $suite main" >"$state/sources.list"
  apart=(-qq -o "Dir::State::lists=$state/lists" -o "Dir::Cache=$state/cache" -o "Dir::Etc::sourcelist=$state/sources.list"
    -o Dir::Etc::sourceparts=/nonexistent -o "Dir::State::status=$state/status" -o APT::Sandbox::User=root)
  apt-get "${apart[@]}" update
}
unpack() {
  local name=$1 suite=$2 state=$DIR/$1/apt
  shift 2
  [ -f "$DIR/$name/installed" ] && return
  rm -rf "${DIR:?}/$name"
  apart "$state" "$suite"
  (cd "$state/debs" && apt-get "${apart[@]}" download "$@")
  for package in "$state"/debs/*.deb; do dpkg-deb -x "$package" "$DIR/$name/root"; done
  rm -rf "$state"
  ln -sfn root/usr/bin "$DIR/$name/bin"
  touch "$DIR/$name/installed"
}
