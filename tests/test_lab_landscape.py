"""What updates do to loss and gradient, bands over rates, surfaces: against slow formulas, with the same bits."""

import numpy as np
import pytest
from tiny import bits, dataset, fit, model, split

import fastnet as fn
from fastnet import backend, lab
from fastnet.data import Standardization
from fastnet.optim.penalties import L2
from fastnet.train.nonfinite import NonFiniteError

RNG = np.random.default_rng(3)
X, LABELS = RNG.normal(size=(4, 12, 6)), RNG.integers(0, 3, (4, 12))  # four batches


@pytest.fixture
def reference():
    with backend.use("reference"):
        yield


def net(seed=1, dtype="float64"):
    return fn.Sequential([fn.Linear(6, 5), fn.BatchNorm(5), fn.Tanh(), fn.Linear(5, 3)], seed=seed, dtype=dtype)


def vector(gradients, names):
    return np.concatenate([gradients[name].ravel() for name in names])


def length(x):
    return float(np.sqrt(np.sum(np.square(x))))


def slow_rows(make_step, names, etas):
    """The figures of each step by definition, from gradients of copies of the model before and after a plain step."""
    trained = net()
    step = make_step(trained)
    rows, last = [], None
    for x, labels in zip(X, LABELS, strict=True):
        start = trained.copy()
        everything = sorted(start.parameters())
        _, g = fn.loss_and_gradients(start, x, labels)
        lr = step.schedule(step.count)
        step(x, labels)
        _, after = fn.loss_and_gradients(trained, x, labels)
        change = length(vector(after, names) - vector(g, names))
        moved = length(vector(trained.parameters(), everything) - vector(start.parameters(), everything))
        here = vector(g, names)
        row = [length(here), moved, change, np.nan if last is None else length(here - last), change / moved,
               change / (lr * length(here))]
        last = here
        for eta in etas:
            point = start.copy()
            point.load_state({**point.statistics(), **{n: v - eta * g[n] for n, v in start.parameters().items()}})
            loss, there = fn.loss_and_gradients(point, x, labels)
            away = length(vector(there, names) - here)
            row += [float(loss), away, away / (eta * length(vector(g, everything)))]
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize("names", [["linear2.w"], ["linear1.b", "linear1.w", "batch_norm1.beta", "batch_norm1.gamma",
                                                   "linear2.b", "linear2.w"]])
@pytest.mark.parametrize("optimizer", [fn.SGD(0.3), fn.SGD(0.2, momentum=0.9), fn.Adam(0.05)], ids=lambda o: repr(o.lr))
def test_recorder_by_definition(reference, optimizer, names):
    etas = (0.01, 0.5)
    make_step = lambda m: fn.TrainStep(m, optimizer, penalty=L2(0.01))  # noqa: E731
    expected = slow_rows(make_step, names, etas)
    step = make_step(net())
    recorder = lab.Recorder(parameters="linear2.w" if len(names) == 1 else "*", step_sizes=etas)
    losses = []
    for x, labels in zip(X, LABELS, strict=True):
        _, gradients = fn.loss_and_gradients(step.model, x, labels)
        losses.append(float(recorder(step, x, labels)))
        assert bits(step.model.gradients()) == bits(gradients)  # those of the step, for whoever looks after it
    found = recorder.recording()
    columns = np.stack([found.gradient_norm, found.update_norm, found.same_batch, found.consecutive, found.smoothness,
                        found.published_smoothness], axis=1)
    np.testing.assert_allclose(columns, expected[:, :6], rtol=1e-9)
    for index in range(2):
        along = np.stack([found.along_losses, found.along_predictiveness, found.along_smoothness], -1)[:, index]
        np.testing.assert_allclose(along, expected[:, 6 + 3 * index : 9 + 3 * index], rtol=1e-9)
    np.testing.assert_array_equal(found.losses, losses)
    np.testing.assert_array_equal(found.steps, range(4))
    assert (found.step_sizes, found.first_step, found.diverged_at) == (etas, 0, None)
    assert set(found.rates) == {optimizer.lr}


def test_published_smoothness_is_the_true_one_for_plain_descent_alone(reference):
    for optimizer, penalty, agree in ((fn.SGD(0.1), None, True), (fn.SGD(0.1, momentum=0.5), None, False),
                                      (fn.SGD(0.1), L2(0.1), False)):
        step, recorder = fn.TrainStep(net(), optimizer, penalty=penalty), lab.Recorder()
        for x, labels in zip(X, LABELS, strict=True):
            recorder(step, x, labels)
        found = recorder.recording()
        assert np.allclose(found.smoothness[1:], found.published_smoothness[1:], rtol=1e-9) is agree


def test_smoothness_of_a_quadratic(reference):
    """Mean squared error of a linear model: the gradient moves by H d, so the ratio is |H g|/|g| at every distance."""
    line = fn.Sequential([fn.Linear(6, 3, bias=False)], dtype="float64")
    x = X[0]
    hessian = 2 * x.T @ x / x.shape[0] / 3
    _, gradients = fn.loss_and_gradients(line, x, LABELS[0], loss="mean_squared_error")
    g = gradients["linear1.w"]
    recorder = lab.Recorder(step_sizes=(0.01, 1.0, 7.0))
    recorder(fn.TrainStep(line, fn.SGD(0.1), loss="mean_squared_error"), x, LABELS[0])
    found = recorder.recording()
    np.testing.assert_allclose(found.along_smoothness[0], length(hessian @ g) / length(g), rtol=1e-10)
    np.testing.assert_allclose(found.smoothness, length(hessian @ g) / length(g), rtol=1e-10)
    assert found.smoothness[0] <= np.linalg.eigvalsh(hessian)[-1]


@pytest.mark.parametrize("optimizer", [fn.SGD(momentum=0.9), fn.Adam()], ids=["sgd", "adam"])
def test_watched_training_has_the_bits_of_plain_training(optimizer):
    plain = fit(optimizer=optimizer)
    for observer in (lab.Recorder(step_sizes=(0.1,)), lab.Recorder(every=2, reevaluate=False), lab.Activity(),
                     lab.Activity(every=3)):
        watched = fit(optimizer=optimizer, observer=observer)
        assert bits(watched.model.state()) == bits(plain.model.state())
        assert [line["train_loss"] for line in watched.history] == [line["train_loss"] for line in plain.history]


def test_what_is_watched_and_how_often():
    recorder = lab.Recorder(every=4, parameters="*.b", reevaluate=False)
    fit(observer=recorder)
    found = recorder.recording()
    assert (len(found.losses), found.steps.tolist()) == (9, [0, 4, 8])
    assert np.isnan(found.same_batch).all() and np.isnan(found.smoothness).all() and found.along_losses.shape == (3, 0)
    assert np.isfinite(found.consecutive).tolist() == [False, True, True]  # steps 3 and 4, 7 and 8 are neighbours
    assert found.rates.tolist() == [pytest.approx(rate) for rate in (1e-3, 0.01325, 0.0255, 0.03775, 0.05, 0.03775,
                                                                     0.0255, 0.01325, 1e-3)]


def test_gradients_of_steps_that_are_no_neighbours_are_not_compared(reference):
    step, recorder = fn.TrainStep(net(), fn.SGD(0.1)), lab.Recorder()
    for taken in (step, lambda x, y: recorder(step, x, y), step, lambda x, y: recorder(step, x, y)):
        taken(X[0], LABELS[0])
    found = recorder.recording()
    assert np.isnan(found.consecutive).all() and (found.first_step, found.steps.tolist()) == (1, [1, 3])


def test_recorder_errors():
    with pytest.raises(ValueError, match="every must be at least 1"):
        lab.Recorder(every=0)
    with pytest.raises(ValueError, match=r"step sizes must be positive and finite but one is -0\.1"):
        lab.Recorder(step_sizes=(0.1, -0.1))
    with pytest.raises(ValueError, match=r"'fc\.\*' matches no parameter; there are linear1\.w"):
        lab.Recorder(parameters="fc.*")(fn.TrainStep(model(), fn.SGD(0.1)), None, None)
    with pytest.raises(ValueError, match="no linear layer"):
        lab.last_linear(fn.Sequential([fn.Conv2d(3, 2, 1), fn.GlobalAvgPool()]))
    assert lab.last_linear(fn.build("vgg-a", filter_multiplier=1 / 16)) == "classifier.4.w"


def diverging(observer):
    step = fn.TrainStep(net(dtype="float32"), fn.SGD(1e38))
    with pytest.raises(NonFiniteError), np.errstate(all="ignore"):
        for number in range(3):
            observer(step, (X[0] if number < 2 else np.full((12, 6), np.inf)).astype(np.float32), LABELS[0])


def test_a_run_that_diverges_is_recorded_up_to_there(reference):
    recorder = lab.Recorder(reevaluate=False)
    diverging(recorder)
    found = recorder.recording()
    assert found.diverged_at == len(found.losses) - 1 and np.isnan(found.losses[-1]) and np.isfinite(found.losses[0])


def test_band():
    found = lab.band({0.1: [3, -2, 1], 0.2: [4.0, np.nan], 0.3: [5, np.inf, np.nan]}, steps=[10, 20, 30])
    np.testing.assert_array_equal(found.low, [3, -2, 1])
    np.testing.assert_array_equal(found.high, [5, -2, 1])
    assert (found.steps.tolist(), found.curves.tolist()) == ([10, 20, 30], [3, 1, 1])
    assert found.diverged == {"0.2": 20, "0.3": 20}
    nothing = lab.band({"a": [1.0, np.nan], "b": [2.0]})
    assert np.isnan(nothing.low[1]) and np.isnan(nothing.high[1]) and nothing.diverged == {"a": 1, "b": 1}
    for curves, steps, text in (({}, None, "there are no curves"), ({"a": [1, 2]}, [0], "1 steps but 2 values")):
        with pytest.raises(ValueError, match=text):
            lab.band(curves, steps)


def test_rate_runs_are_runs_at_these_rates(tmp_path):
    settings = {"epochs": 2, "batch_size": 25, "seed": 5, "verbose": False}
    runs = lab.rate_runs(model, dataset(), fn.SGD(), (0.1, 1e30), parameters="linear2.*", out=tmp_path, **settings)
    alone = fn.fit(model(), dataset(), fn.SGD(), fn.schedules.constant(0.1), **settings)
    assert runs[0].result["test_loss"] == alone.result["test_loss"] and len(runs[0].history) == 2
    assert len(runs[0].recording.losses) == 6 and runs[0].recording.parameters == "linear2.*"
    assert (tmp_path / "lr-0.1" / "result.json").exists()
    broken = runs[1]
    assert broken.result is None and broken.recording.diverged_at is not None and broken.rate == 1e30
    found = lab.band({run.rate: run.recording.losses for run in runs})
    assert found.diverged == {"1e+30": broken.recording.diverged_at} and np.isfinite(found.low).all()
    with pytest.raises(ValueError, match="different rates are needed"):
        lab.rate_runs(model, dataset(), fn.SGD(), (0.1, 0.1), **settings)


# --- surfaces ---

def test_directions_have_the_norms_of_the_filters():
    convnet = fn.build("lenet5", seed=0)
    first, again, other = (lab.direction(convnet, seed=0), lab.direction(convnet, seed=0),
                           lab.direction(convnet, seed=0, number=1))
    assert bits(first) == bits(again) and bits(first) != bits(other) != bits(lab.direction(convnet, seed=1))
    for name, w in convnet.parameters().items():
        if w.ndim == 1:
            assert not first[name].any()
            continue
        for filter_ in range(w.shape[-1]):
            assert length(first[name][..., filter_]) == pytest.approx(length(w[..., filter_].astype(float)), rel=1e-12)
        assert abs(np.corrcoef(first[name].ravel(), other[name].ravel())[0, 1]) < 0.2
    moving = lab.direction(convnet, seed=0, move_vectors=True)
    np.testing.assert_array_equal(moving["conv1.b"], convnet.parameters()["conv1.b"])


def test_surface_by_definition(reference):
    trained, x = net(), X[0]
    before = bits(trained.state())
    a, b = [-0.5, 0.0, 2.0], [0.0, 1.5]
    found = lab.loss_surface(trained, (x, LABELS[0]), a=a, b=b, seed=3, move_vectors=True)
    ways = [lab.direction(trained, seed=3, number=number, move_vectors=True) for number in (0, 1)]
    for i, j in np.ndindex(3, 2):
        point = trained.copy()
        for name, value in point.parameters().items():
            value += a[i] * ways[0][name] + b[j] * ways[1][name]
        logits = point.predict(x)
        p = np.exp(logits - logits.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        assert found.losses[i, j] == pytest.approx(-np.log(p[np.arange(12), LABELS[0]]).mean(), rel=1e-10)
        assert found.accuracies[i, j] == (logits.argmax(axis=1) == LABELS[0]).mean()
    assert bits(trained.state()) == before
    line = lab.loss_surface(trained, (x, LABELS[0]), a=a, seed=3, move_vectors=True)
    np.testing.assert_array_equal(line.losses, found.losses[:, 0])
    assert line.b is None and found.losses.shape == (3, 2) and found.images == 12


def test_the_middle_of_a_surface_is_the_evaluated_model():
    data, trained = split(40), model()
    standardization = Standardization.fit(data.images, "channel")
    whole = fn.evaluate(trained, data, standardization)
    found = lab.loss_surface(trained, data, standardization, a=[0.0])
    assert found.losses[0] == pytest.approx(whole.loss, rel=1e-6) and found.accuracies[0] == whole.accuracy
    parts = [lab.loss_surface(trained, data, standardization, a=[0.0, 0.1], images=10, seed=seed).losses
             for seed in (0, 0, 1)]
    assert (parts[0] == parts[1]).all() and (parts[0] != parts[2]).all()


def test_a_surface_may_overflow(reference):
    """Far away losses are infinite or not numbers: recorded, without a warning."""
    found = lab.loss_surface(net(dtype="float32"), (X[0], LABELS[0]), a=[0.0, 3e38])
    assert np.isfinite(found.losses[0]) and not np.isfinite(found.losses[1])


@pytest.mark.parametrize(("change", "error", "text"), [
    ({"a": []}, ValueError, "offsets a and b must each be some finite numbers"),
    ({"b": [np.nan]}, ValueError, "offsets a and b"),
    ({"loss": "hinge"}, ValueError, "loss 'hinge' is not known"),
    ({"images": 5}, ValueError, "number of images is that of the array"),
    ({"data": (X[0], LABELS[0][:5])}, ValueError, "12 images but 5 labels"),
    ({"data": split(20)}, TypeError, "say how they are standardised"),
    ({"data": split(20), "standardization": Standardization.fit(split(20).images), "images": 21}, ValueError,
     "21 images are wanted, but there are 20"),
])
def test_surface_errors(change, error, text):
    with pytest.raises(error, match=text):
        lab.loss_surface(**({"model": net(), "data": (X[0], LABELS[0])} | change))
