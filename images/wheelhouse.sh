#!/bin/sh
# Build what provision.sh installs, outside of the image: wheelhouse.sh PYTHON DIRECTORY
#
# The directory then holds a wheel of this program, one of each dependency, and `wheelhouse.lock`, which names all of
# them with their hashes: every dependency was checked against requirements.lock before, and what had to be compiled
# (python-iptables has no wheel) was compiled here, so the image needs no compiler. PYTHON is one with pip, build and
# hatchling, of the version that the image has: Debian 12's is 3.11.
set -eu

python=$1
out=$2
root=$(cd "$(dirname "$0")/.." && pwd -P)

rm -rf "$out"
mkdir -p "$out"
pip() { "$python" -m pip --quiet --no-input --disable-pip-version-check "$@"; }

pip wheel --require-hashes --no-build-isolation --use-pep517 --wheel-dir "$out" -r "$root/requirements.lock"
"$python" -m build --wheel --no-isolation --outdir "$out" "$root" >/dev/null
rm -f "$out"/setuptools-*.whl # it only builds

(
    cd "$out"
    for wheel in *.whl; do
        name=${wheel%%-*}
        rest=${wheel#*-}
        hash=$(sha256sum "$wheel")
        printf '%s==%s --hash=sha256:%s\n' "$name" "${rest%%-*}" "${hash%% *}"
    done >wheelhouse.lock
)

# Nothing is fetched where it is installed: what is missing has to show here, such as a lock that is out of date.
pip install --dry-run --ignore-installed --no-index --find-links "$out" --require-hashes -r "$out/wheelhouse.lock"
