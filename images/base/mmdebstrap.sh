#!/bin/sh
# Makes the root file system of the base image from Debian's packages, for machines that reach no
# image registry: mmdebstrap.sh TARGET.tar
#
# It stands in for python:3.11-slim-bookworm, the default of the Dockerfiles' BASE_IMAGE, and so it
# holds what they may count on: python3 (3.11) with venv, python under that name too, certificates.
set -eu
target=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Where and how this machine gets its Debian packages is how the image gets them.
apt-config dump Acquire >"$work/apt.conf"
apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
  'Created-By: Packages' 'Origin: Debian' | grep -E ' bookworm(-updates|-security)? main$' |
  sort -u >"$work/sources.list" || true

# On a machine that is no Debian bookworm the list is empty, and mmdebstrap's own default serves.
set -- bookworm "$target"
if [ -s "$work/sources.list" ]; then
  set -- "$@" "$work/sources.list"
fi

# Documentation is of no use in an image.
mmdebstrap --quiet --mode=root --format=tar --variant=minbase \
  --include=python3,python3-venv,ca-certificates \
  --aptopt="$work/apt.conf" \
  --dpkgopt='path-exclude=/usr/share/doc/*' \
  --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' \
  --customize-hook='ln -s ../../bin/python3 "$1/usr/local/bin/python"' \
  "$@"
