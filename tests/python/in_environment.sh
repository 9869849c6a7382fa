#!/bin/sh
# in_environment.sh FOLDER PACKAGE... -- ARGUMENTS...: runs Python with these arguments in a virtual environment at FOLDER that has these
# packages, from PyPI. The environment is kept for the next run. Status 77, with the reason, if they cannot be installed, or Python has no
# module to make an environment with; what else fails is a failure.
set -eu
folder=$1
shift
packages=
while [ "$1" != -- ]; do
  packages="$packages $1"
  shift
done
shift
if [ "$(cat "$folder/installed" 2>/dev/null)" != "$packages" ]; then
  rm -rf "$folder"
  if ! told=$("${PYTHON:-python3}" -m venv "$folder" 2>&1); then
    rm -rf "$folder"
    case $told in
      *"No module named venv"* | *"No module named ensurepip"* | *"ensurepip is not available"*)
        echo "not run: ${PYTHON:-python3} has no module for environments (Debian: python3-venv): $told"
        exit 77
        ;;
    esac
    echo "${PYTHON:-python3} cannot make the environment $folder: $told"
    exit 1
  fi
  # shellcheck disable=SC2086 # one word for each package
  if ! "$folder/bin/pip" install -q --disable-pip-version-check --only-binary :all: $packages >"$folder/pip.log" 2>&1; then
    echo "not run:$packages cannot be installed: $(tail -1 "$folder/pip.log")"
    exit 77
  fi
  echo "$packages" >"$folder/installed"
fi
exec "$folder/bin/python" "$@"
