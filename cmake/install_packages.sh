#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# install_packages.sh PACKAGE...: installs the Debian packages that are missing. Says what to do where it
# cannot, and then fails.
set -euo pipefail

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "This is not a Debian system, so nothing is installed. What is needed has these names in Debian:"
  echo "  $*"
  exit 0
fi

missing=()
for package in "$@"; do
  state=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$state" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -eq 0 ] && exit 0

give_up() {
  echo "$1" >&2
  echo "Missing packages: ${missing[*]}" >&2
  echo "Install them as root and run this again:" >&2
  echo "  apt-get update && apt-get install ${missing[*]}" >&2
  exit 1
}

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo >/dev/null || give_up "Packages are missing, and without sudo they cannot be installed from here."
  as_root=(sudo)
fi
echo "== Installing ${missing[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q update ||
  give_up "apt-get update failed (its message is above)."
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y --no-install-recommends install "${missing[@]}" ||
  give_up "apt-get install failed (its message is above)."
