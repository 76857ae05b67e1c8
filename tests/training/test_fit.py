import json
import math
from dataclasses import asdict, dataclass, replace
from itertools import islice

import pytest
import torch

from vidfuse.errors import UserError
from vidfuse.heads.base import Head, frame_vectors
from vidfuse.metrics import summary
from vidfuse.settings import option
from vidfuse.training import fit as fit_module
from vidfuse.training.config import TrainConfig
from vidfuse.training.examples import Examples, predict
from vidfuse.training.fit import Fit, new_head
from vidfuse.training.optimizer import (
    automatic_batch_size,
    balanced_weights,
    decay_groups,
    lr_factor,
    macro_f1,
)

T, D = 6, 8


def examples(features, labels, lengths=None):
    lengths = torch.full((len(labels),), features.shape[1]) if lengths is None else lengths
    return Examples.stacked(features.half(), lengths, labels)


def blobs(n, classes=3, seed=0, spread=1.0):
    """Clips whose frames scatter around their class's centre: any head can learn them."""
    centres = 2 * torch.randn(classes, D, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % classes
    noise = spread * torch.randn(n, T, D, generator=generator)
    features = (centres[labels][:, None] + noise)[..., None, None]
    lengths = torch.randint(1, T + 1, (n,), generator=generator)
    features[torch.arange(T) >= lengths[:, None]] = float("nan")
    return examples(features, labels, lengths)


def which_came_first(n, seed):
    """Clips that hold two events among noise; the label tells which one comes first."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    # A common background, or else a LayerNorm would make noise as loud as the events.
    features = torch.linspace(-2, 2, D) + 0.3 * torch.randn(n, T, D, generator=generator)
    for clip, label in zip(features, labels.tolist(), strict=True):
        first, second = sorted(torch.randperm(T, generator=generator)[:2].tolist())
        clip[first, label] += 3.0
        clip[second, 1 - label] += 3.0
    return examples(features[..., None, None], labels)


EMPTY = blobs(3)
EMPTY = replace(EMPTY, frames=EMPTY.frames[:0], lengths=EMPTY.lengths[:0], labels=EMPTY.labels[:0])


def make(train=None, val=None, classes=3, **settings):
    settings = {"epochs": 4, "head": "mean", **settings}
    if settings["head"] == "lstm":
        settings.setdefault("head_options", {"hidden": 16})
    config = TrainConfig(**settings)
    head = new_head(config, channels=D, grid=1, classes=classes)
    train = blobs(30) if train is None else train
    val = blobs(12, seed=1) if val is None else val
    return Fit(head, train, val, config, device="cpu", classes=classes)


def without_seconds(records):
    return [{**asdict(record), "seconds": 0} for record in records]


def accuracy(fit, test):
    fit.head.load_state_dict(fit.best_state)
    logits = predict(fit.head, test, device="cpu", batch_size=64)[0]
    return (logits.argmax(1) == test.labels).float().mean().item()


@pytest.mark.parametrize("head", ["mean", "middle", "lstm"])
def test_every_head_learns_an_easy_task_from_padded_clips(head):
    fit = make(head=head, epochs=20, lr=1e-2, train=blobs(60))
    records = list(fit)
    assert records[-1].val_loss < records[0].val_loss / 2
    assert accuracy(fit, blobs(60, seed=2)) > 0.9
    json.dumps([asdict(record) for record in records])


def test_lstm_learns_the_order_of_events_and_mean_cannot():
    train, val, test = (which_came_first(n, seed) for n, seed in ((200, 0), (40, 1), (200, 2)))
    found = {}
    for head in ("lstm", "mean"):
        fit = make(train, val, classes=2, head=head, epochs=30, patience=0, lr=5e-3)
        list(fit)
        found[head] = accuracy(fit, test)
    assert found["lstm"] > 0.9
    assert 0.4 < found["mean"] < 0.6


def test_forty_clips_get_enough_steps_by_default():
    found = []
    for seed in (0, 10, 20):
        config = TrainConfig(head_options={"hidden": 64}, seed=seed)
        head = new_head(config, channels=D, grid=1, classes=4)
        train, val = blobs(28, classes=4, seed=seed), blobs(6, classes=4, seed=seed + 1)
        fit = Fit(head, train, val, config, device="cpu", classes=4)
        list(fit)
        found.append(accuracy(fit, blobs(100, classes=4, seed=seed + 2)))
    assert sum(found) / 3 > 0.8


def test_the_same_seed_gives_the_same_bits_and_another_does_not():
    def weights(seed):
        fit = make(head="lstm", seed=seed)
        records = without_seconds(fit)
        return fit.head.state_dict(), records

    (first, first_records), (second, second_records), (other, _) = map(weights, (1, 1, 2))
    assert first_records == second_records
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["classifier.weight"], other["classifier.weight"])


def test_random_numbers_drawn_between_epochs_change_nothing():
    calm, disturbed = make(head="lstm"), make(head="lstm")
    list(calm)
    for _ in disturbed:
        torch.rand(3)
    weights = disturbed.head.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in calm.head.state_dict().items())


def test_training_leaves_the_callers_random_numbers_alone():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    list(make(epochs=1))
    assert torch.equal(torch.rand(3), expected)


def test_a_new_head_leaves_the_random_numbers_of_gpus_alone(monkeypatch):
    monkeypatch.setattr(torch.cuda, "manual_seed_all", lambda seed: pytest.fail("seeded"))
    new_head(TrainConfig(), channels=D, grid=1, classes=3)


@pytest.mark.parametrize("class_weights", ["none", "sampler"])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path, class_weights):
    settings = {"head": "lstm", "epochs": 5, "class_weights": class_weights}
    straight = make(**settings)
    expected = without_seconds(straight)
    interrupted = make(**settings)
    records = list(islice(interrupted, 2))
    torch.save(interrupted.state_dict(), tmp_path / "state.pt")
    resumed = make(**settings)
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    records += list(resumed)
    assert without_seconds(records) == expected
    assert resumed.best_epoch == straight.best_epoch
    for mine, theirs in (
        (resumed.head.state_dict(), straight.head.state_dict()),
        (resumed.best_state, straight.best_state),
    ):
        assert all(torch.equal(mine[key], theirs[key]) for key in theirs)


def test_a_run_may_be_resumed_on_a_device_that_scales_its_gradients():
    """One that computes in float16, after one that does not."""
    fit, elsewhere = make(), make()
    elsewhere.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    next(iter(fit))
    elsewhere.load_state_dict(fit.state_dict())
    list(elsewhere)
    assert elsewhere.epoch == 4
    assert elsewhere.scaler.get_scale() == 2.0**10
    fit.load_state_dict(elsewhere.state_dict())


def test_a_saved_state_does_not_change_with_later_training():
    fit = make()
    next(iter(fit))
    state = fit.state_dict()
    before = {key: value.clone() for key, value in state["head"].items()}
    list(fit)
    assert all(torch.equal(state["head"][key], before[key]) for key in before)
    assert state["epoch"] == 1


def test_a_run_is_not_resumed_with_other_settings():
    state = make(lr=1e-3).state_dict()
    with pytest.raises(UserError, match="cannot be resumed") as caught:
        make(lr=1e-2, train=blobs(31)).load_state_dict(state)
    assert caught.value.hint == "lr: 0.001 then, 0.01 now\ntraining clips: 30 then, 31 now"


def test_a_run_may_be_resumed_with_another_place_for_its_results():
    make(out="there").load_state_dict(make(out="here").state_dict())


def test_a_setting_that_is_new_is_compared_on_resuming():
    @dataclass
    class NewSettings(TrainConfig):
        novelty: str = option("this", "How something is done.")

    def fit(**settings):
        head = new_head(TrainConfig(), channels=D, grid=1, classes=3)
        return Fit(head, blobs(30), EMPTY, NewSettings(**settings), device="cpu", classes=3)

    with pytest.raises(UserError, match="cannot be resumed") as caught:
        fit(novelty="that").load_state_dict(fit().state_dict())
    assert caught.value.hint == "novelty: this then, that now"
    earlier = fit().state_dict()
    del earlier["settings"]["novelty"]
    fit(novelty="that").load_state_dict(earlier)


def test_the_best_epoch_is_kept_and_patience_ends_the_run():
    # Validation labels are those of training turned round, so every step makes it worse.
    val = blobs(12, seed=1)
    val.labels = (val.labels + 1) % 3
    fit = make(val=val, epochs=50, patience=3, lr=1e-2)
    records, states = [], []
    for record in fit:
        records.append(record)
        states.append({key: value.clone() for key, value in fit.head.state_dict().items()})
    assert len(records) == fit.best_epoch + 3 < 50
    assert [record.epoch for record in records if record.improved][-1] == fit.best_epoch
    best = states[fit.best_epoch - 1]
    assert all(torch.equal(best[key], fit.best_state[key]) for key in best)
    losses = [record.val_loss for record in records]
    assert min(losses) == losses[fit.best_epoch - 1]
    assert list(fit) == []


def test_the_loss_decides_where_all_answers_are_right():
    fit = make(train=blobs(60, spread=0.1), val=blobs(6, spread=0.1), epochs=10, lr=1e-2)
    records = list(fit)
    perfect = [record.epoch for record in records if record.val_macro_f1 == 1.0]
    assert perfect[0] < fit.best_epoch == 10


def answer(right, sure, frames=1.0):
    """What `predict_parts` says of the validation clips of `make`."""
    labels = torch.arange(12) % 3
    said = (labels + (torch.arange(12) >= right)) % 3
    return sure * torch.eye(3)[None, said], torch.full((12,), frames)


def test_the_best_epoch_is_right_more_often_however_sure(monkeypatch):
    # of 12 clips, how many are right, and how sure of every answer the head is
    answers = [(6, 2.0), (5, 0.1), (8, 9.0)]
    said = iter(answers)
    monkeypatch.setattr(fit_module, "predict_parts", lambda *_, **__: answer(*next(said)))
    records = list(make(epochs=3))
    assert [record.improved for record in records] == [True, False, True]
    labels = torch.arange(12) % 3
    plain = [torch.nn.functional.cross_entropy(answer(*each)[0][0], labels) for each in answers]
    assert plain[1] < plain[0] < plain[2]  # which would have had it the other way round


def test_every_class_counts_alike_in_validation(monkeypatch):
    labels = torch.tensor([0] * 8 + [1, 2])
    sure_of_most = 3.0 * torch.eye(3)[torch.zeros(10, dtype=torch.long)]
    fair = 0.3 * torch.eye(3)[labels]
    val = blobs(10)
    val.labels[:] = labels
    losses = []
    for logits in (sure_of_most, fair):
        said = (logits[None], torch.ones(10))
        monkeypatch.setattr(fit_module, "predict_parts", lambda *_, said=said, **__: said)
        (record,) = make(val=val, epochs=1)
        losses.append(record.val_loss)
    assert losses[1] < losses[0]


def test_a_part_that_knows_nothing_of_other_clips_counts_little(monkeypatch):
    labels = torch.arange(12) % 3
    knows, guesses = 2.0 * torch.eye(3)[labels], 9.0 * torch.eye(3)[(labels + 1) % 3]
    said = (torch.stack([guesses, knows]), torch.ones(12))
    fit = make(head="lstm", epochs=1)
    training = {}
    keep = fit._keep_best

    def kept(validation):
        training.update({key: value.clone() for key, value in fit.head.state_dict().items()})
        return keep(validation)

    monkeypatch.setattr(fit, "_keep_best", kept)
    monkeypatch.setattr(fit_module, "predict_parts", lambda *_, **__: said)
    (record,) = fit
    assert record.val_accuracy == 1.0
    assert fit.best_weights[0] < 0.5 < 1.0 < fit.best_weights[1]
    # The model has them in its classifier; training goes on without.
    mean = fit.head.mean_size
    for part, weight in ((slice(-mean), 0), (slice(-mean, None), 1)):
        found = fit.best_state["classifier.weight"][:, part]
        expected = fit.best_weights[weight] * training["classifier.weight"][:, part]
        torch.testing.assert_close(found, expected)
    now = fit.head.state_dict()
    assert all(torch.equal(now[key], value) for key, value in training.items())


def test_an_epoch_that_is_not_finite_is_not_the_best(monkeypatch):
    nan = torch.full((2, 12, 3), float("nan"))
    said = iter([(nan, torch.ones(12)), answer(6, 2.0)])
    monkeypatch.setattr(fit_module, "predict_parts", lambda *_, **__: next(said))
    fit = make(head="lstm", epochs=2)
    assert len(list(fit)) == fit.best_epoch == 2
    assert all(value.isfinite().all() for value in fit.best_state.values())


def test_without_validation_the_last_epoch_is_the_best():
    fit = make(val=EMPTY, epochs=4, patience=1)
    records = list(fit)
    assert len(records) == fit.best_epoch == 4
    assert all(record.improved and record.val_loss is None for record in records)
    weights = fit.head.state_dict()
    assert all(torch.equal(value, weights[key]) for key, value in fit.best_state.items())


def test_an_interrupt_passes_through_and_leaves_the_best_weights():
    class Interrupting(Examples):
        calls = 0

        def batch(self, indices, device, generator=None):
            self.calls += 1
            if self.calls == 10:
                raise KeyboardInterrupt
            return super().batch(indices, device, generator)

    train = blobs(30)
    train = Interrupting(train.features, train.frames, train.lengths, train.labels)
    fit = make(train=train, batch_size=8)
    records = []
    with pytest.raises(KeyboardInterrupt):
        records.extend(fit)
    assert fit.best_epoch >= 1
    assert fit.epoch == 2
    fit.head.load_state_dict(fit.best_state)


def test_first_step_is_timed():
    fit = make(epochs=2)
    assert fit.first_step_seconds is None
    records = iter(fit)
    next(records)
    first = fit.first_step_seconds
    assert first is not None
    next(records)
    assert fit.first_step_seconds == first


def imbalanced(seed, n=600):
    """Nine clips of class 0 to one of class 1, in overlapping clouds."""
    generator = torch.Generator().manual_seed(seed)
    labels = (torch.arange(n) % 10 == 0).long()
    features = torch.randn(n, T, D, generator=generator) * 2.5
    features[..., 0] += 1.5 * labels[:, None]
    return examples(features[..., None, None], labels)


def rare_recall(class_weights):
    fit = make(imbalanced(0), EMPTY, 2, class_weights=class_weights, lr=1e-2, epochs=10)
    list(fit)
    test = imbalanced(1, 400)
    predicted = predict(fit.head, test, device="cpu", batch_size=64)[0].argmax(1)
    return (predicted[test.labels == 1] == 1).float().mean().item()


def test_weights_and_sampler_help_the_rare_class():
    none, balanced, sampler = map(rare_recall, ("none", "balanced", "sampler"))
    assert balanced > none + 0.3
    assert sampler > none + 0.3


def test_balanced_weights_by_hand():
    weights = balanced_weights(torch.tensor([0, 0, 0, 2]))
    torch.testing.assert_close(weights, torch.tensor([2 / 3, 2 / 3, 2 / 3, 2.0]))


@pytest.fixture
def steps(monkeypatch):
    """The clips of each step of training."""
    clips = []
    original = Examples.batch

    def recorded(self, indices, device, generator=None):
        if generator is not None:
            clips.append(indices)
        return original(self, indices, device, generator)

    monkeypatch.setattr(Examples, "batch", recorded)
    return clips


def test_sampler_draws_classes_equally(steps):
    fit = make(imbalanced(0, 2000), EMPTY, 2, class_weights="sampler")
    next(iter(fit))
    drawn = fit.train.labels[torch.cat(steps)]
    assert len(drawn) == 2000
    assert drawn.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_every_epoch_has_an_order_of_its_own(steps):
    list(make(epochs=3))
    orders = torch.cat(steps).view(3, 30).tolist()
    for order in orders:
        assert order != sorted(order) == list(range(30))
    assert len({tuple(order) for order in orders}) == 3


def test_steps_of_an_epoch_are_of_equal_size(steps):
    list(make(train=blobs(33), batch_size=8, epochs=1))
    assert list(map(len, steps)) == [7, 7, 7, 6, 6]


def test_label_smoothing_keeps_answers_modest():
    def confidence(label_smoothing):
        train = blobs(60, spread=0.1)
        fit = make(train, EMPTY, label_smoothing=label_smoothing, dropout=0.0, lr=0.05, epochs=30)
        list(fit)
        logits = predict(fit.head, train, device="cpu", batch_size=64)[0]
        return logits.softmax(1).max(1).values.mean().item()

    # The best answer to smoothed targets is 1 - 0.3 + 0.3/3 = 0.8.
    assert confidence(0.3) == pytest.approx(0.8, abs=0.03)
    assert confidence(0.0) > 0.95


def test_initial_weights_depend_on_the_seed_alone():
    def first(seed):
        torch.rand(1)
        head = new_head(TrainConfig(seed=seed), channels=D, grid=1, classes=2)
        return head.state_dict()["classifier.weight"]

    assert torch.equal(first(3), first(3))
    assert not torch.equal(first(3), first(4))


class Scripted(Head):
    """A linear head whose logits a test can spoil at some steps."""

    name = "scripted"
    grid = 1
    order_aware = reversal_aware = False
    paper = ""

    def __init__(self, channels, grid, classes):
        super().__init__(channels, grid, classes)
        self.linear = torch.nn.Linear(self.frame_size, classes)
        self.factors = iter(())

    def forward(self, features, lengths):
        factor = next(self.factors, 1.0) if self.training else 1.0
        return self.linear(frame_vectors(features, lengths)[:, 0]) * factor


def scripted(factors, **settings):
    torch.manual_seed(0)
    head = Scripted(D, 1, 3)
    head.factors = iter(factors)
    config = TrainConfig(**{"epochs": 2, "warmup_epochs": 0, "batch_size": 8, **settings})
    return Fit(head, blobs(32), EMPTY, config, device="cpu", classes=3)


def test_gradient_is_cut_to_its_limit_and_reported_uncut():
    fit = scripted([1e3], epochs=1, batch_size=32, clip_norm=0.5)
    (record,) = fit
    total = torch.stack([p.grad.norm() for p in fit.head.parameters()]).norm().item()
    assert total == pytest.approx(0.5, rel=1e-4)
    assert record.grad_norm == record.grad_norm_max > 100
    assert record.clipped == 1.0


def test_gradient_is_left_alone_without_a_limit():
    fit = scripted([1e3], epochs=1, batch_size=32, clip_norm=0)
    (record,) = fit
    total = torch.stack([p.grad.norm() for p in fit.head.parameters()]).norm().item()
    assert total == pytest.approx(record.grad_norm, rel=1e-5)
    assert record.clipped == 0.0


def test_a_step_that_is_not_finite_is_skipped_and_counted():
    fit = scripted([1.0, math.nan, math.inf, 1.0], epochs=1)
    (record,) = fit
    assert record.skipped == 2
    assert math.isfinite(record.train_loss)
    assert math.isfinite(record.grad_norm_max)
    assert all(torch.isfinite(p).all() for p in fit.head.parameters())
    state = fit.optimizer.state_dict()["state"]
    assert {int(each["step"]) for each in state.values()} == {2}


def test_several_bad_steps_in_a_row_end_the_run_with_advice():
    fit = scripted([1.0] * 7 + [math.nan] * 9, epochs=4, lr=0.01)
    with pytest.raises(UserError, match="broke down in epoch 3: 5 steps in a row") as caught:
        list(fit)
    assert caught.value.hint == "Lower the learning rate: --lr 0.001"
    assert fit.best_epoch == 2
    assert all(torch.isfinite(value).all() for value in (fit.best_state or {}).values())


def test_bad_steps_apart_from_each_other_do_not():
    assert sum(record.skipped for record in scripted([1.0, math.nan] * 8, epochs=4)) == 8


@pytest.mark.parametrize("n", [1, 2, 9])
@pytest.mark.parametrize("head", ["mean", "lstm"])
def test_tiny_sets_train(n, head):
    fit = make(train=blobs(n), val=blobs(1), head=head, batch_size=8)
    assert all(math.isfinite(record.train_loss) for record in fit)


@pytest.mark.parametrize("class_weights", ["none", "balanced", "sampler"])
def test_a_class_may_be_missing_from_training(class_weights):
    train = blobs(30)
    keep = train.labels != 1
    train = replace(
        train, frames=train.frames[keep], lengths=train.lengths[keep], labels=train.labels[keep]
    )
    fit = make(train=train, class_weights=class_weights, label_smoothing=0.1)
    assert all(math.isfinite(record.val_loss) for record in fit)


def test_no_training_clips_is_refused():
    with pytest.raises(UserError, match="no training clips"):
        make(train=EMPTY)


def test_impossible_settings_are_refused():
    fit = make()
    with pytest.raises(UserError, match="epochs: 0"):
        Fit(fit.head, fit.train, fit.val, TrainConfig(epochs=0), device="cpu", classes=3)


def test_frames_are_drawn_at_random_in_training_only():
    train = blobs(16)
    generators = []

    class Drawn:
        def draw(self, indices, frames, generator):
            generators.append(generator)
            return frames

    train.jitter = Drawn()
    fit = make(train=train, val=train, epochs=1, batch_size=8)
    list(fit)
    assert len(generators) == 2
    assert None not in generators


def test_predict_keeps_the_order_and_the_mode():
    fit = make(head="lstm")
    test = blobs(7)
    fit.head.train()
    logits = predict(fit.head, test, device="cpu", batch_size=3)[0]
    assert logits.shape == (7, 3)
    assert logits.dtype == torch.float32
    assert fit.head.training
    whole = predict(fit.head.eval(), test, device="cpu", batch_size=7)[0]
    torch.testing.assert_close(logits, whole)
    assert not fit.head.training
    assert predict(fit.head, EMPTY, device="cpu", batch_size=3)[0].shape == (0, 3)


def test_learning_rate_rises_then_falls_to_nothing():
    rates = [lr_factor(step, warmup=4, total=24) for step in range(24)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[14] == pytest.approx(0.5)
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert 0 < rates[-1] < 0.01
    assert lr_factor(0, warmup=0, total=1) == 1.0


def test_the_schedule_spans_the_run():
    records = list(make(epochs=10, warmup_epochs=2, patience=0, lr=1.0, clip_norm=0.1))
    rates = [record.lr for record in records]
    assert max(rates) == rates[1] == 1.0
    assert rates[-1] < 0.03


@pytest.mark.parametrize(
    ("clips", "size"), [(1, 8), (40, 8), (128, 16), (256, 32), (511, 32), (512, 64), (10_000, 64)]
)
def test_automatic_batch_size(clips, size):
    assert automatic_batch_size(clips) == size


def test_decay_spares_biases_and_norms():
    head = make(head="lstm").head
    matrices, vectors = decay_groups(head, 0.1)
    names = {id(parameter): name for name, parameter in head.named_parameters()}
    spared = {names[id(parameter)] for parameter in vectors["params"]}
    assert matrices["weight_decay"] == 0.1
    assert vectors["weight_decay"] == 0.0
    assert spared == {name for name in names.values() if "bias" in name or "norm" in name}


def test_macro_f1_is_that_of_the_summary():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (50,), generator=generator)  # the fifth class never occurs
    logits = torch.randn(50, 5, generator=generator)
    expected = summary(labels, logits, list("abcde"))["macro_f1"]
    assert macro_f1(labels, logits.argmax(1), 5) == pytest.approx(expected)


def test_dropout_of_the_run_reaches_the_head_unless_it_has_its_own():
    config = TrainConfig(head="mean", dropout=0.25)
    assert new_head(config, channels=D, grid=1, classes=2).settings == {"dropout": 0.25}
    config.head_options = {"dropout": "0.125"}
    assert new_head(config, channels=D, grid=1, classes=2).settings == {"dropout": 0.125}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_trains_on_a_gpu():
    config = TrainConfig(epochs=10, head_options={"hidden": 16, "bidirectional": True})
    head = new_head(config, channels=D, grid=1, classes=3)
    fit = Fit(head, blobs(60), blobs(12, seed=1), config, device="cuda", classes=3)
    list(fit)
    assert fit.train.features.is_cuda
    assert all(value.device.type == "cpu" for value in (fit.best_state or {}).values())
    assert accuracy(fit, blobs(60, seed=2)) > 0.8


def test_frames_that_a_head_pays_for_count_against_an_epoch(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(fit_module, "predict_parts", lambda *_, **__: answer(10, 1.5, frames=4.0))
        fit = make(head="policy", head_options={"hidden": 8, "cost": 0.05}, epochs=1)
        free = make(epochs=1)
        for each, paid in ((fit, 0.05 * 4), (free, 0)):
            (record,) = each
            assert each.best_score == pytest.approx(-record.val_loss - paid)
    fit, free = make(head="policy", head_options={"hidden": 8}, epochs=2), make(epochs=2)
    assert [record.val_frames for record in free] == [free.val.lengths.double().mean()] * 2
    for record in fit:
        assert 1 <= record.val_frames <= T


def test_a_head_may_have_a_loss_of_its_own():
    fit = make(epochs=1, class_weights="balanced", label_smoothing=0.1)
    heard = []

    def loss(features, lengths, labels, *, label_smoothing):
        heard.append((len(labels), label_smoothing))
        logits = fit.head(features, lengths)
        return logits.square().mean(1), logits

    fit.head.loss = loss
    (record,) = fit
    assert {smoothing for _, smoothing in heard} == {0.1}
    assert sum(clips for clips, _ in heard) == len(fit.train)
    assert record.train_loss < 1.0


@pytest.mark.parametrize("hidden", [10**9, 10**23])
def test_a_head_that_is_too_large_is_told(hidden):
    with pytest.raises(UserError, match="head 'lstm' cannot be built with these options"):
        make(head="lstm", head_options={"hidden": hidden})
