"""What the program says when it is called wrongly, and what it says of itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer
from program import environment
from typer.testing import CliRunner

from vidfuse import __version__
from vidfuse.adaptation.config import AdaptConfig
from vidfuse.cli.options import with_settings
from vidfuse.cutting.config import CutConfig
from vidfuse.inference.config import InferenceConfig
from vidfuse.settings import typed_fields
from vidfuse.training.config import TrainConfig

COMMANDS = (
    "train",
    "predict",
    "evaluate",
    "compare",
    "extract",
    "adapt",
    "bench",
    "inspect",
    "doctor",
)
HEAVY = ("torch", "torchvision", "numpy", "sklearn", "av", "rich", "PIL")


def test_version_and_console_script(vidfuse):
    script = shutil.which("vidfuse", path=str(Path(sys.executable).parent))
    if script is None:
        pytest.skip("the console script is not installed beside this Python")
    answer = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert answer.stdout == f"vidfuse {__version__}\n" == vidfuse("--version").out
    assert answer.stderr == ""


def test_the_list_of_commands_imports_nothing_heavy():
    code = "import runpy, sys; sys.argv = ['vidfuse', '--help']\n"
    code += "try: runpy.run_module('vidfuse', run_name='__main__')\n"
    code += "except SystemExit: print(*sys.modules, file=sys.stderr)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "Commands:" in answer.stdout
    assert not set(HEAVY) & set(answer.stderr.split())


@pytest.mark.parametrize("command", [*COMMANDS, "cache info", "cache verify", "cache prune"])
def test_help_names_every_option_in_plain_text(vidfuse, command):
    answer = vidfuse(*command.split(), "--help")
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"Usage: vidfuse {command} [OPTIONS]")
    for option in ("--help", "--quiet", "--debug", "--format"):
        assert option in answer.out
    assert "\x1b" not in answer.out
    assert max(map(len, answer.out.splitlines())) <= 100


@pytest.mark.parametrize("command", ["", "train", "cache", "cache prune"])
def test_help_is_the_same_where_python_drops_docstrings(vidfuse, command):
    words = (*command.split(), "--help")
    assert vidfuse(*words, env={"PYTHONOPTIMIZE": "2"}) == vidfuse(*words)


def test_help_of_train_names_every_setting_and_shows_variables_of_the_machine_only(vidfuse):
    text = vidfuse("train", "-h").out
    for each, _, _ in typed_fields(TrainConfig):
        name = "head-option" if each.name == "head_options" else each.name.replace("_", "-")
        assert f"\n  --{name} " in text
    assert "VIDFUSE_DEVICE" in text
    assert "VIDFUSE_EPOCHS" not in text


def test_help_needs_neither_torch_nor_a_video_library(vidfuse):
    text = vidfuse("train", "--help", env={"PYTHONPROFILEIMPORTTIME": "1"}).err
    imported = {line.rsplit("|", 1)[-1].strip() for line in text.splitlines()}
    assert not {"torch", "torchvision", "sklearn", "av", "decord"} & imported


@pytest.mark.parametrize("command", [(), ("cache",)])
def test_no_command_shows_help_on_standard_error(vidfuse, command):
    answer = vidfuse(*command)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err.startswith("Usage: vidfuse")
    assert "Error" not in answer.err


# command line → what the message must say
MISTAKES = {
    "trian": "Did you mean 'train'?",
    "cache inf": "Did you mean 'info'?",
    "--versoin": "Did you mean --version?",
    "train": "missing argument 'DATASET'",
    "predict": "missing argument 'CLIPS'",
    "train d --epoch 3": "has no option --epoch. Did you mean --epochs",
    "train d --epochs": "'--epochs' requires an argument",
    "train d --epochs x": "epochs: 'x' is not a whole number",
    "train d --epochs -3": "epochs: -3 is below 1",
    "train d --lr -1": "lr: -1.0 is not above 0",
    "train d --lr nan": "lr: nan is not a finite number",
    "train d --crop centre": "did you mean 'center'?",
    "train d --backbone resnet81": "Did you mean 'resnet18'?",
    "train d --head lstn": "did you mean 'lstm'?",
    "train d --decoder decrod": "did you mean 'decord'?",
    "train d --sampling unifrom": "Did you mean 'uniform'?",
    "train d --grid 3x3": "grid '3x3'",
    "train d --head-option hidden": "not of the form NAME=VALUE",
    "train d --config none.toml": "none.toml: cannot be read",
    "train d e": "extra",
    "train nowhere": "nowhere: no such file or folder",
    "extract d --head ,": "--head names no head",
    "extract d --head lstn": "Did you mean 'lstm'?",
    "inspect nowhere": "nowhere: no such file or folder",
    "inspect . --layout ucf": "Did you mean 'ucf101'?",
    "predict a --format xml": "'xml' is not one of 'text', 'json', 'jsonl', 'csv'",
    "predict a --top 0": "must be at least 1",
    "predict a --top many": "not a whole number",
    "evaluate . --subset tset": "'tset' is not one of 'auto'",
    "predict a --workers 99999999999": "workers: 99999999999 is above 1024",
    "cache prune --max-size lots": "--max-size: 'lots' is not a size",
    "cache prune --older-than -1": "must be at least 0",
    "cache prune --spec 0123": "unknown spec '0123'",
}


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_explained_in_at_most_three_lines(vidfuse, line):
    answer = vidfuse(*line.split())
    assert (answer.code, answer.out) == (2, "")
    assert MISTAKES[line] in answer.err
    assert answer.err.startswith("Error: ")
    assert len(answer.err.splitlines()) <= 3
    assert "Traceback" not in answer.err


def test_all_problems_of_the_settings_are_told_at_once(vidfuse):
    mistakes = ("--epochs", "x", "--crop", "round", "--lr", "0", "--seed", "-1", "--head", "ltsm")
    answer = vidfuse("train", "d", *mistakes)
    assert answer.code == 2
    assert [line.split(":")[0] for line in answer.err.splitlines()] == [
        "Error", "crop", "epochs", "lr", "seed", "head",
    ]  # fmt: skip


def test_a_configuration_file_is_checked_like_the_command_line(vidfuse, tmp_path):
    (tmp_path / "bad.toml").write_text("epochs = ")
    answer = vidfuse("train", "d", "--config", "bad.toml")
    assert (answer.code, answer.err.splitlines()[0][:26]) == (2, "Error: bad.toml: not TOML ")
    (tmp_path / "odd.toml").write_text('epoch = 3\nlr = "fast"\nbatch-size = 4\n')
    lines = vidfuse("train", "d", "--config", "odd.toml").err.splitlines()
    assert lines == [
        "Error: the settings have 3 problems",
        "epoch: unknown setting, did you mean 'epochs'?",
        "batch-size: unknown setting, did you mean 'batch_size'?",
        "lr: 'fast' is not a number",
        "Set by odd.toml.",
    ]


def test_command_line_wins_over_file_over_environment_over_default(vidfuse, tmp_path):
    # Each value is wrong in a way of its own, so that the complaint says which one was taken.
    (tmp_path / "c.toml").write_text("epochs = -2\n")
    variable = {"VIDFUSE_EPOCHS": "-1"}

    def taken(*arguments, env=variable):
        return vidfuse("train", "d", *arguments, env=env).err.splitlines()[0]

    file = ("--config", "c.toml")
    assert taken("--epochs", "-3", *file) == "Error: epochs: -3 is below 1"
    assert taken(*file) == "Error: epochs: -2 is below 1"
    assert taken() == "Error: epochs: -1 is below 1"
    assert "epochs" not in taken(env={})
    assert "epochs" not in taken(env={"VIDFUSE_EPOCHS": ""})


def test_a_wrong_setting_that_nobody_typed_says_where_it_is(vidfuse, tmp_path):
    answer = vidfuse("train", "nowhere", env={"VIDFUSE_HEAD": "foo"})
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == "Set by VIDFUSE_HEAD."
    file = tmp_path / "own.toml"
    file.write_text("epochs = 'many'\nlr = 0.1\n")
    answer = vidfuse("train", "nowhere", "--config", str(file))
    assert answer.err.splitlines()[-1] == f"Set by {file}."
    file.write_text('"a(b" = 1\n')
    assert vidfuse("train", "nowhere", "--config", str(file)).code == 2
    typed = vidfuse("train", "nowhere", "--head", "foo", env={"VIDFUSE_HEAD": "bar"})
    assert "Set by" not in typed.err


@pytest.mark.parametrize("variable", ["VIDFUSE_DECODER", "VIDFUSE_WORKERS", "VIDFUSE_TIME_LIMIT"])
def test_variables_of_the_machine_are_read(vidfuse, variable):
    answer = vidfuse("train", "d", env={variable: "0"})
    assert answer.code == 2
    assert variable.removeprefix("VIDFUSE_").lower() + ":" in answer.err


def test_debug_shows_the_traceback(vidfuse):
    plain = vidfuse("train", "nowhere")
    for answer in (
        vidfuse("train", "nowhere", "--debug"),
        vidfuse("--debug", "train", "nowhere"),
        vidfuse("train", "nowhere", env={"VIDFUSE_DEBUG": "1"}),
    ):
        assert answer.code == 2
        assert answer.err.startswith("Traceback")
        assert answer.err.endswith(plain.err)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems keep the folder")
@pytest.mark.parametrize("line", ["heads", "cache info", "predict a.mp4", "train data", "doctor"])
def test_a_current_folder_that_was_removed_is_told(feature_cache, tmp_path, line):
    (gone := tmp_path / "gone").mkdir()
    program = f"rmdir {gone} && exec {sys.executable} -m vidfuse {line}"
    done = subprocess.run(
        ["bash", "-c", program],
        cwd=gone,
        capture_output=True,
        text=True,
        env=environment(feature_cache, {}),
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "Error: the current folder cannot be used (No such file or directory): was it removed?\n"
        "Go to one that exists, such as: cd ~\n"
    )


def test_a_bug_has_its_own_exit_code(vidfuse, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import vidfuse.data.layouts as layouts\n"
        "def read_dataset(*_, **__): raise ZeroDivisionError('oops')\n"
        "layouts.read_dataset = read_dataset\n"
    )
    package = Path(__file__).resolve().parents[2]
    path = {"PYTHONPATH": os.pathsep.join((str(tmp_path), str(package)))}
    answer = vidfuse("inspect", "d", env=path)
    assert (answer.code, answer.out) == (70, "")
    assert "a bug in vidfuse (ZeroDivisionError: oops)" in answer.err
    assert "Traceback" not in answer.err
    assert "Traceback" in vidfuse("inspect", "d", "--debug", env=path).err


def test_a_configuration_that_names_an_argument_is_told(vidfuse, tmp_path):
    for name in ("dataset", "resume", "folds", "epoch"):
        (tmp_path / "c.toml").write_text(f'{name} = "x"\n', encoding="utf-8-sig")
        answer = vidfuse("train", "d", "--config", str(tmp_path / "c.toml"))
        assert (answer.code, answer.out) == (2, "")
        assert answer.err.startswith(f"Error: {name}: unknown setting")


@pytest.mark.parametrize(
    ("cls", "read"),
    [
        (TrainConfig, {"backbone", "weights", "views", "epochs"}),
        (AdaptConfig, {"epochs", "crops"}),
        (InferenceConfig, set()),
        (CutConfig, set()),
    ],
)
def test_no_variable_is_read_where_its_name_means_something_else(cls, read):
    found = {}
    app = typer.Typer()

    @app.command()
    @with_settings(cls)
    def command(*, settings: dict[str, Any]) -> None:
        found.update(settings)

    values = {"backbone": "resnet50", "weights": "random", "views": 4, "epochs": 3, "crops": 160}
    variables = {f"VIDFUSE_{name.upper()}": str(value) for name, value in values.items()}
    answer = CliRunner().invoke(app, [], env=variables, catch_exceptions=False)
    assert answer.exit_code == 0
    assert found == {name: values[name] for name in read}
