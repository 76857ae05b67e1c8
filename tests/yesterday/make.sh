#!/usr/bin/env bash
# Make the files of yesterday's vidfuse anew, with which tests/test_yesterday.py tries today's.
set -euo pipefail

usage() {
    cat <<'END'
Usage: tests/yesterday/make.sh CHECKOUT [FOLDER]

  CHECKOUT  a checkout of the version to make them with, such as one that
            `git worktree add CHECKOUT v1.0` leaves
  FOLDER    where they are written  [default: the folder of this script]

Makes in FOLDER: cache/, models/, run/, comparison/ and expected.json, and
removes what was there under these names. What goes in lies beside this
script: clips.csv, which names clips of sample_data, and frames/.
END
}

case "${1:-}" in
-h | --help) usage; exit 0 ;;
"") usage >&2; exit 2 ;;
esac
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(cd "$1" && pwd)
target=${2:-$here}
mkdir -p "$target"
target=$(cd "$target" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

export PYTHONPATH=$checkout VIDFUSE_CACHE=cache OMP_NUM_THREADS=1
python=${PYTHON:-python3}
vidfuse() { "$python" -m vidfuse --quiet "$@"; }

# The dataset, as the test lays it out too: clips/ with a manifest, and folders of pictures.
cd "$work"
"$python" - "$here" <<'END'
import csv, pathlib, shutil, sys

here, clips = pathlib.Path(sys.argv[1]), pathlib.Path("clips")
shutil.copytree(here / "frames", clips / "frames")
shutil.copyfile(here / "clips.csv", clips / "manifest.csv")
for row in csv.DictReader((here / "clips.csv").open()):
    if not row["path"].startswith("frames/"):
        (clips / row["path"]).parent.mkdir(exist_ok=True)
        shutil.copyfile(here.parents[1] / "sample_data" / row["path"], clips / row["path"])
END

# Features: a name, then the options that say what they mean.
encoder=(--backbone thin_resnet)
cells=("${encoder[@]}" --frames 4 --grid 2)
averages=("${encoder[@]}" --grid 1)
jitter=("${encoder[@]}" --frames 4 --cache-frames 12 --sampling segment --grid 1)
pinned=("${encoder[@]}" --decoder pyav --frames 2 --crop pad --size 96 --layer layer3 --grid 1)
pinned+=(--fps 5)
mkdir answers models
for name in cells averages jitter pinned; do
    declare -n options=$name
    printf '%s\n' "${options[@]}" >"answers/$name.options"
    vidfuse extract clips "${options[@]}" --format json >"answers/$name.extract"
done

# Models: a name, the features, then the other options.
fit() {
    local name=$1 features=$2
    declare -n options=$2
    shift 2
    printf '%s\n' "$features" "$@" >"answers/$name.training"
    vidfuse train clips "${options[@]}" "$@" --epochs 40 --patience 0 --out "$name" --format json \
        >"answers/$name.train"
    cp "$name/model.safetensors" "models/$name.safetensors"
}
fit lstm cells --head lstm --head-option hidden=8
fit mirrored cells --head gru --mirror --head-option hidden=6 --head-option layers=2 \
    --head-option bidirectional=true --head-option readout=last
fit convlstm cells --head convlstm --head-option hidden=2 --head-option width=8
fit policy cells --head policy --head-option hidden=8 --head-option max_looks=3
fit mean averages --head mean
fit folds averages --head mean-std --folds 3
fit jitter jitter --head tcn --head-option hidden=8
fit pinned pinned --head middle

# A run that Ctrl-C stopped in the middle, and how this version goes on with it.
"$python" - <<'END'
import pathlib, signal, subprocess, sys, time

words = "train clips --frames 4 --grid 1 --head gru --head-option hidden=4 --dropout 0.2"
command = [sys.executable, "-m", "vidfuse", "--quiet", *words.split()]
command += ["--backbone", "thin_resnet", "--patience", "0", "--epochs", "150", "--out", "run"]
metrics = pathlib.Path("run/metrics.jsonl")
with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
    while not metrics.exists() or metrics.read_text().count("\n") < 12:
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
if process.returncode != 130 or not pathlib.Path("run/state.pt").exists():
    sys.exit(f"the run was not interrupted: it ended with {process.returncode}")
END
cp -r run resumed
vidfuse train --resume resumed --format json >answers/resumed.train

# A comparison that was stopped before the last of its fits.
compare=("${encoder[@]}" --frames 4 --heads "gru,mean" --seeds 1 --folds 2 --epochs 3 --lrs 0.003)
compare+=(--dropouts 0.2,0.5)
printf '%s\n' "${compare[@]}" >answers/comparison.options
vidfuse compare clips "${compare[@]}" --jobs 1 --out comparison --format json >answers/comparison
rm comparison/*.png comparison/*/gru-seed0-fold2-*.npz

# What this version answers.
for model in models/*; do
    name=$(basename "$model" .safetensors)
    vidfuse predict clips/*/*.mp4 clips/frames/* --model "$model" --format json \
        >"answers/$name.predict"
    subset=auto
    [ "$name" != folds ] || subset=all # it is fitted on all clips
    vidfuse evaluate clips --model "$model" --subset "$subset" --format json \
        >"answers/$name.evaluate"
done

"$python" - "$target" <<'END'
import json, pathlib, shutil, sys

target, answers = pathlib.Path(sys.argv[1]), pathlib.Path("answers")


def read(name):
    return json.loads((answers / name).read_text())


def lines(name):
    return (answers / name).read_text().splitlines()


def model(name):
    features, *options = lines(f"{name}.training")
    records = read(f"{name}.predict")["records"]
    scores = {r["path"]: {top["label"]: top["score"] for top in r["top"]} for r in records}
    assert all(record["ok"] for record in records), records
    measured = read(f"{name}.evaluate")
    numbers = {each: measured[each] for each in ("accuracy", "macro_f1", "clips")}
    return {"features": features, "options": options, "scores": scores, "evaluate": numbers}


features = {
    path.stem: {"options": lines(f"{path.stem}.options"), "clips": read(path.name)["clips"]}
    for path in sorted(answers.glob("*.extract"))
}
resumed, compared = read("resumed.train"), read("comparison")
last = json.loads(pathlib.Path("resumed/metrics.jsonl").read_text().splitlines()[-1])
expected = {
    "features": features,
    "models": {path.stem: model(path.stem) for path in sorted(pathlib.Path("models").iterdir())},
    "run": {"epochs": resumed["epochs"], "val_loss": last["val_loss"]},
    "comparison": {
        "options": lines("comparison.options"),
        "accuracy": {row["name"]: row["accuracy"] for row in compared["heads"]},
    },
}
# Places of this machine: the test puts its own there.
for path, name in (("run/run.json", "dataset"), ("comparison/results.json", "dataset_path")):
    content = json.loads(pathlib.Path(path).read_text())
    pathlib.Path(path).write_text(json.dumps(content | {name: "clips"}))
for name in ("cache", "models", "run", "comparison"):
    shutil.rmtree(target / name, ignore_errors=True)
    rest = shutil.ignore_patterns("index.sqlite*", ".lock", "*.lock")
    shutil.copytree(name, target / name, ignore=rest)
(target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
END
du -sh "$target" >&2
