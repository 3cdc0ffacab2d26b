#!/usr/bin/env bash
# Make .venv: this checkout, installed editable, on top of the pinned dependencies.
# The dependencies (1.5 GB) live once per machine in a cache folder keyed by the requirements' hash and the Python version;
# .venv itself holds only a path to them and takes a second. Delete either at any time: both are made again.
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
CACHE=${CHARALORA_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/charalora}
WHEELS=${CHARALORA_WHEELS:-../shared/wheels}   # may hold `unpack DIR`, which puts a CPU build of torch into DIR

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Charalora needs Python 3.11 or newer; set PYTHON." >&2; exit 1; }

build=cuda
find_links=()
if [[ -x $WHEELS/unpack ]] && "$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then
  "$WHEELS/unpack" "$CACHE/wheels" >/dev/null
  find_links=(--find-links "$CACHE/wheels")
  build=cpu
fi

pinned() {                                       # the CPU build by its own version; the registry's needs the CUDA libraries to import
  if [[ $build == cpu ]]; then sed 's/^\(torch==[0-9.]*\)/\1+cpu/' requirements/dev.txt; else cat requirements/dev.txt requirements/cuda.txt; fi
}

key=$({ pinned; cat devtools/venv.sh; "$PYTHON" -VV; } | sha256sum | cut -c1-16)
deps=$CACHE/deps-$key
mkdir -p "$CACHE"
exec 9>"$deps.lock"                              # several checkouts may want the same at once
flock 9
if [[ ! -e $deps/.complete ]]; then
  echo "Installing the pinned dependencies into $deps (a few minutes, once per machine)."
  rm -rf "$deps"
  "$PYTHON" -m venv "$deps"
  pinned > "$deps/requirements.txt"
  "$deps/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes "${find_links[@]}" -r "$deps/requirements.txt"
  touch "$deps/.complete"
fi

if [[ ! -e .venv/.ready || $(head -1 .venv/.ready) != "$deps" ]]; then
  rm -rf .venv
  "$PYTHON" -m venv --without-pip .venv
  site=$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
  echo "import site; site.addsitedir('$("$deps/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')')" > "$site/_pinned.pth"
fi
ready=$(echo "$deps"; sha256sum < pyproject.toml)
if [[ ! -e .venv/.ready || $(cat .venv/.ready) != "$ready" ]]; then
  "$deps/bin/python" -m pip --python .venv/bin/python install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
  echo "$ready" > .venv/.ready
fi
