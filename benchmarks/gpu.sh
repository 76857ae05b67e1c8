#!/usr/bin/env bash
# Run the benchmark of GPUs (gpu.py) in an environment that is made without a network.
#
#   benchmarks/gpu.sh [WHEELS] [OPTIONS OF gpu.py]
#
# WHEELS (or the variable of that name) is a folder of wheels. What the machine's Python has already
# need not be there: torch with CUDA above all. PYTHON names another Python than python3, and VENV
# where the environment is made, or found again (otherwise .venv-gpu in the checkout).
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
if [ $# -gt 0 ] && [ "${1#-}" = "$1" ]; then
    WHEELS=$1
    shift
fi
python=${PYTHON:-python3}
venv=${VENV:-$root/.venv-gpu}
fail() { printf '%s\n' "$@" >&2 && exit 2; }
install() {
    "$python" -m pip --python "$venv/bin/python" --disable-pip-version-check install --quiet \
        --no-index --find-links "${WHEELS:-/nowhere}" --only-binary :all: "$@"
}

"$python" -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$python is not Python 3.11 or newer with pip: name another with PYTHON"
if [ ! -x "$venv/bin/python" ]; then
    "$python" -m venv --system-site-packages --without-pip "$venv"
    # A Python that is an environment itself would pass on its parent's packages, not its own.
    place='import sysconfig; print(sysconfig.get_path("purelib"))'
    "$python" -c "$place" >"$("$venv/bin/python" -c "$place")/machine.pth"
fi

# What vidfuse needs, as pyproject.toml says, and what runs its tests; decord is left for later.
wanted='
import sys, tomllib
needs = tomllib.load(open(sys.argv[1], "rb"))["project"]["dependencies"]
print(*(each for each in needs if not each.startswith("decord")), "pytest>=8", sep="\n")'
mapfile -t needed < <("$venv/bin/python" -c "$wanted" "$root/pyproject.toml")
if ! install "${needed[@]}" 2>/dev/null; then
    missing=()
    for each in "${needed[@]}"; do
        install "$each" >/dev/null 2>&1 || missing+=("${each//\'/\"}")
    done
    numbers=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    platforms=$(printf ' --platform %s_x86_64' manylinux_2_28 manylinux_2_17 manylinux2014)
    fail "Not here and not in ${WHEELS:-WHEELS}, or without something that it needs:" \
        "${missing[@]/#/  }" "Where there is a network:" \
        "  pip download -d wheels --only-binary :all: --python-version $numbers$platforms \\" \
        "   $(printf " '%s'" "${missing[@]}")" "and here: $0 wheels"
fi
# Decoders that are left out where they are missing.
for each in decord torchcodec; do
    install --no-deps "$each" 2>/dev/null || echo "$each: not here and not in ${WHEELS:-WHEELS}" >&2
done

cd "$root"
export PYTHONPATH=$root${PYTHONPATH:+:$PYTHONPATH}
# The first import of torch takes long and is not to be measured.
"$venv/bin/python" -c 'import torch; print("CUDA:", torch.cuda.is_available())' >&2
exec "$venv/bin/python" benchmarks/gpu.py "$@"
