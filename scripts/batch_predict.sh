#!/usr/bin/env bash
# Predict many videos into one file of JSON lines, and go on where an earlier run stopped.
set -euo pipefail

usage() {
    cat <<'END'
Usage: scripts/batch_predict.sh INPUT OUTPUT.jsonl [OPTIONS OF vidfuse predict]

  INPUT   a folder of videos, a text file with one path per line, or - for
          such a list on standard input
  OUTPUT  gets one JSON record per video; videos that it already holds are
          skipped, so run the same command again to go on

Records of videos that failed are kept in OUTPUT.failed, not in OUTPUT: the
next run tries those videos again. Example:

  scripts/batch_predict.sh videos/ predictions.jsonl --model runs/mine

Exit codes are those of vidfuse: 0 good; 1 some videos failed; 2 wrong usage;
130 interrupted. VIDFUSE and PYTHON name the programs to run (default: vidfuse
and python3).
END
}

case "${1:-}" in
-h | --help) usage; exit 0 ;;
esac
if [ "$#" -lt 2 ]; then
    usage >&2
    exit 2
fi
input=$1
output=$2
shift 2
if [ "$input" != - ] && [ ! -e "$input" ]; then
    echo "Error: $input: no such file or folder" >&2
    exit 2
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

if [ -d "$input" ]; then
    # Only what vidfuse takes for a video goes into the list.
    "${PYTHON:-python3}" -c '
import os, sys
from vidfuse.data.files import walk_videos
for path in walk_videos(sys.argv[1]):
    sys.stdout.buffer.write(os.fsencode(path) + b"\n")
' "$input" >"$work/all"
elif [ "$input" = - ]; then
    cat >"$work/all"
else
    cp -- "$input" "$work/all"
fi

touch -- "$output"
# A record that was cut off when the machine went down is dropped, and its video done again.
"${PYTHON:-python3}" - "$output" "$work/all" "$work/todo" <<'END'
import json, os, sys

output, listed, todo = sys.argv[1:]
done, good = set(), []
with open(output, "rb") as file:
    for line in file:
        try:
            done.add(os.fsencode(json.loads(line)["path"]))
        except (ValueError, KeyError, TypeError):
            continue
        good.append(line.rstrip(b"\r\n") + b"\n")
with open(output + ".partial", "wb") as file:
    file.writelines(good)
os.replace(output + ".partial", output)
with open(listed, "rb") as file, open(todo, "wb") as rest:
    for path in dict.fromkeys(line.rstrip(b"\r\n") for line in file):
        if path.strip() and path not in done:
            rest.write(path + b"\n")
END

total=$(wc -l <"$work/todo")
skipped=$(wc -l <"$output")
if [ "$total" -eq 0 ]; then
    echo "Nothing to do: $((skipped)) videos are in $output already" >&2
    exit 0
fi

# Each record is filed as it comes, so that an interruption loses none.
: >"$output.failed"
set +e
"${VIDFUSE:-vidfuse}" predict - --format jsonl "$@" <"$work/todo" | while IFS= read -r record; do
    case "$record" in
    *'"ok": true'*) printf '%s\n' "$record" >>"$output" ;;
    *) printf '%s\n' "$record" >>"$output.failed" ;;
    esac
done
codes=("${PIPESTATUS[@]}")
set -e

failed=$(wc -l <"$output.failed")
[ "$failed" -gt 0 ] || rm -f -- "$output.failed"
echo "$((total)) videos to do: $(($(wc -l <"$output") - skipped)) predicted, $((failed)) failed" \
    "($((skipped)) were done before)" >&2
if [ "$failed" -gt 0 ]; then
    echo "The failures and their reasons are in $output.failed" >&2
fi
if [ "${codes[1]}" -ne 0 ]; then
    exit "${codes[1]}" # the records could not be written
fi
exit "${codes[0]}"
