#!/usr/bin/env bash
# Turn a dataset into one .npy file of features per clip, and an index.csv, for other tools.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/extract_features.sh DATASET OUT [OPTIONS OF vidfuse extract]

  DATASET  a dataset's folder or manifest, or a folder of videos
  OUT      gets index.csv and one .npy per clip: float32 [frames, channels]
           with --grid 1, else [frames, channels, grid, grid]

The most used options can be given as variables too:

  BACKBONE  encoder, as for --backbone  [default: thin_efficientnet]
  FRAMES    frames per clip  [default: 16]
  GRID      cells a side that are kept of each frame  [default: 1]

Example: BACKBONE=resnet50 scripts/extract_features.sh ucf101/ features/

A run that was stopped goes on where it was: features are kept in vidfuse's
cache. Exit codes are those of vidfuse: 0 good; 1 too many clips failed;
2 wrong usage; 130 interrupted. VIDFUSE names the program (default: vidfuse).
END
}

case "${1:-}" in
-h | --help) usage; exit 0 ;;
esac
if [ "$#" -lt 2 ]; then
    usage >&2
    exit 2
fi
dataset=$1
out=$2
shift 2

# Options behind the variables win, because the last one of a name counts.
exec "${VIDFUSE:-vidfuse}" extract "$dataset" --out "$out" \
    --backbone "${BACKBONE:-thin_efficientnet}" --frames "${FRAMES:-16}" --grid "${GRID:-1}" "$@"
