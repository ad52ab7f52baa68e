"""Pipelines of files: every row once an epoch, mixed as the seed says, in bounded memory."""

import datetime
import decimal
import functools
import tracemalloc

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfflows import Chain, Domain, FlowModel, RealNVP, inputs, pipelines, streaming
from tfflows.bijectors import Standardize, Whiten
from tfflows.pipelines import blocks
from tfflows.streaming import Moments

pytestmark = pytest.mark.usefixtures("without_xla")
N = 1000
ROWS = np.arange(N, dtype=np.float32)
X = np.stack([ROWS, -ROWS], axis=1)
C = ROWS[:, None] / 10
W = 1.0 + ROWS % 3


def write_npy(folder, n_shards=3):
    for i, rows in enumerate(np.array_split(np.arange(N), n_shards)):
        for name, value in (("x", X), ("c", C), ("w", W)):
            np.save(folder / f"{name}-{i}.npy", value[rows])
    return {"paths": folder / "x-*.npy", "context": folder / "c-*.npy", "weight": folder / "w-*.npy"}


def write_table(path, columns, names=None, **settings):
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.table(columns).rename_columns(names or list(columns)), path, **settings)


def write_parquet(folder, n_shards=3):
    for i, rows in enumerate(np.array_split(np.arange(N), n_shards)):
        columns = {"a": X[rows, 0], "w": W[rows], "c": C[rows, 0], "b": X[rows, 1].astype(np.int16)}
        write_table(folder / f"{i}.parquet", columns, row_group_size=70)
    return {"paths": folder / "*.parquet", "context": ["c"], "weight": "w"}


def write_tfrecord(folder, n_shards=3):
    pipelines.write_tfrecord(folder / "records", X, C, W, n_shards=n_shards)
    return {"paths": folder / "records" / "*.tfrecord", "event_shape": 2, "context_shape": (1,), "weight": True}


KINDS = {
    "npy": (write_npy, pipelines.npy),
    "parquet": (write_parquet, pipelines.parquet),
    "tfrecord": (write_tfrecord, pipelines.tfrecord),
}


@pytest.fixture(params=KINDS)
def shards(request, tmp_path):
    write, make = KINDS[request.param]
    settings = write(tmp_path)
    return lambda **others: make(**settings | {"batch_size": 64, "buffer": 200} | others)


def epoch(dataset):
    batches = list(dataset.as_numpy_iterator())
    assert {len(batch[0]) for batch in batches[:-1]} == {64}
    return [np.concatenate(part) for part in zip(*batches, strict=True)]


def test_each_row_comes_once_an_epoch_with_what_belongs_to_it(shards):
    dataset = shards()
    for _ in range(2):
        x, c, w = epoch(dataset)
        assert x.dtype == np.float32
        assert sorted(x[:, 0]) == ROWS.tolist()
        np.testing.assert_array_equal(x[:, 1], -x[:, 0])
        np.testing.assert_array_equal(c[:, 0], x[:, 0] / np.float32(10))
        np.testing.assert_array_equal(w, 1.0 + x[:, 0] % 3)


def test_orders_differ_and_are_the_seeds(shards):
    dataset = shards(seed=3)
    first, second = epoch(dataset)[0][:, 0], epoch(dataset)[0][:, 0]
    assert not np.array_equal(first, second)
    # Far from where they were: of a file in order the correlation would be 1.
    assert abs(np.corrcoef(np.arange(N), first)[0, 1]) < 0.9
    assert np.mean(np.abs(np.diff(first)) > 50) > 0.3
    for seed_of_the_program in (1, 2):
        keras.utils.set_random_seed(seed_of_the_program)
        again = shards(seed=3)
        np.testing.assert_array_equal(epoch(again)[0][:, 0], first)
        np.testing.assert_array_equal(epoch(again)[0][:, 0], second)
    assert not np.array_equal(epoch(shards(seed=4))[0][:, 0], first)


def test_unshuffled_rows_come_as_they_are(tmp_path):
    np.testing.assert_array_equal(epoch(pipelines.npy(**write_npy(tmp_path), batch_size=64, shuffle=False))[0], X)
    found = epoch(pipelines.parquet(**write_parquet(tmp_path), batch_size=64, shuffle=False))
    np.testing.assert_array_equal(found[0], X)


def test_fit_knows_the_number_of_batches(tmp_path):
    settings = write_npy(tmp_path)
    dataset = pipelines.npy(settings["paths"], batch_size=64)
    assert int(dataset.cardinality()) == 16
    flow = FlowModel(RealNVP(2, n_layers=1, hidden=(4,)))
    history = flow.fit(dataset, validation_data=pipelines.npy(settings["paths"], shuffle=False), epochs=2, verbose=0)
    assert int(flow.optimizer.iterations) == 32
    assert np.all(np.isfinite(history.history["val_loss"]))


def test_columns_of_parquet_are_those_that_are_asked_for(tmp_path):
    settings = write_parquet(tmp_path)
    (x,) = pipelines.parquet(settings["paths"], ["b", "a"], batch_size=N, shuffle=False)
    np.testing.assert_array_equal(x, X[:, ::-1])
    for wrong, text in (
        ({"columns": ["none"]}, "Expected columns 'none' in .*; got none 'none'"),
        ({"columns": [], "context": ["a"]}, "Expected at least one column of x"),
    ):
        with pytest.raises(ValueError, match=text):
            pipelines.parquet(**{"paths": settings["paths"]} | wrong)


@pytest.mark.parametrize("shards", [[np.int16([1, 2]), [2**24 + 1, 3]], [np.float32([1.0, 2.0]), [1e300, 3.0]]])
def test_types_of_all_shards_decide(shards, tmp_path):
    for i, values in enumerate(shards):
        write_table(tmp_path / f"{i}.parquet", {"a": values, "c": values, "b": np.int8([0, 1])})
    ((x, c),) = pipelines.parquet(tmp_path / "*.parquet", ["a"], context=["c"], shuffle=False)
    assert x.dtype == c.dtype == tf.float64
    np.testing.assert_array_equal(x[:, 0], np.concatenate(shards))
    assert pipelines.parquet(tmp_path / "*.parquet", ["b"]).element_spec.dtype == tf.float32


def test_the_buffer_bounds_what_is_in_memory(tmp_path):
    x = np.zeros((6000, 128), np.float32)
    np.save(tmp_path / "x.npy", x)
    write_table(tmp_path / "x.parquet", dict(zip(map(str, range(128)), x.T, strict=True)), row_group_size=512)
    for make, block in ((pipelines.npy, 1024), (pipelines.parquet, 512)):
        dataset = make(tmp_path / f"x.{make.__name__}", batch_size=100, buffer=1024)
        next(iter(dataset))  # traces
        tracemalloc.start()
        assert sum(len(batch) for batch in dataset) == 6000
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < (2 * (1024 + block) + 1000) * x[0].nbytes  # and some batches on their way


def test_the_default_buffer_follows_from_the_bytes_of_a_row():
    for n, dtype, expected in (
        (2, "float32", 2**19),
        (512, "float32", 2**18),
        (512, "float64", 2**17),
        (2**30, "b", 64),
    ):
        assert blocks.rows_held(None, {"x": ((n,), dtype)}, 64, 0) == expected
    assert blocks.rows_held(70, {"x": ((512,), "float32")}, 64, 0) == 70


@pytest.mark.parametrize("shuffle", [True, False])
def test_records_are_as_many_as_is_said(shuffle, tmp_path):
    settings = {"paths": pipelines.write_tfrecord(tmp_path, X), "event_shape": 2, "shuffle": shuffle, "batch_size": 64}
    assert pipelines.tfrecord(**settings).cardinality() == tf.data.UNKNOWN_CARDINALITY
    dataset = pipelines.tfrecord(**settings, n_rows=N)
    for _ in range(2):
        assert int(dataset.cardinality()) == len(list(dataset)) == 16
    for wrong in (N - 1, N + 1):
        with pytest.raises(tf.errors.FailedPreconditionError, match=f"expected to contain {wrong} elements"):
            list(pipelines.tfrecord(**settings, n_rows=wrong))
    with pytest.raises(ValueError, match="Expected a whole number n_rows >= 1; got 0"):
        pipelines.tfrecord(**settings, n_rows=0)


def test_shards_do_not_mix_with_older_ones(tmp_path):
    (tmp_path / "validation.tfrecord").write_bytes(b"")
    old = pipelines.write_tfrecord(tmp_path, X[:100], n_shards=4)
    kept = [path.read_bytes() for path in old]
    with pytest.raises(ValueError, match=r"other shards than these 2; got one with .*0002\.tfrecord"):
        pipelines.write_tfrecord(tmp_path, X[:10], n_shards=2)
    assert [path.read_bytes() for path in old] == kept
    (x,) = pipelines.tfrecord(pipelines.write_tfrecord(tmp_path, X[:10], n_shards=4), 2)
    assert sorted(x[:, 0].numpy()) == ROWS[:10].tolist()


def test_one_column_of_parquet_gives_labels(tmp_path):
    path = tmp_path / "rows.parquet"
    write_table(path, {"height": X[:, 0], "label": np.arange(N) % 3})
    dataset = pipelines.parquet(path, "height", context="label", shuffle=False)
    ((x, labels),) = dataset
    np.testing.assert_array_equal(x, X[:, :1])
    np.testing.assert_array_equal(labels, np.arange(N) % 3)
    flow = FlowModel(RealNVP(1, n_layers=1, hidden=(4,), context_dim=3), n_classes=3)
    assert np.isfinite(flow.fit(dataset, epochs=1, verbose=0).history["loss"][0])
    assert pipelines.parquet(path, context=["label"]).element_spec[1].shape[1:] == (1,)


def test_names_of_files_may_look_like_patterns(tmp_path):
    for i, name in enumerate(("d[1].npy", "d1.npy")):
        np.save(tmp_path / name, X[i : i + 1])
    for name, expected in (("d[1].npy", X[:1]), ("d[1]*.npy", X[1:2])):
        (x,) = pipelines.npy(tmp_path / name)
        np.testing.assert_array_equal(x, expected)


def test_what_is_refused(tmp_path):
    settings = write_npy(tmp_path)
    (tmp_path / "text.parquet").write_text("no table")
    np.save(tmp_path / "short.npy", X[:10])
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    np.savez(tmp_path / "several.npz", X)
    columns = {"a": [0.5], "s": [{"t": 1}], "t": [datetime.time(1)], "d": [decimal.Decimal(1)]}
    write_table(tmp_path / "kinds.parquet", columns)
    write_table(tmp_path / "twice.parquet", columns, names=["a", "b", "b", "b"])
    (x,) = pipelines.parquet(tmp_path / "twice.parquet", ["a"])
    assert x.numpy() == 0.5
    for call, text in (
        (lambda: pipelines.npy(tmp_path / "several.npz"), r"Expected a .npy file of numbers; got .*several\.npz"),
        (lambda: pipelines.parquet(tmp_path / "kinds.parquet"), "Expected columns of numbers .* others: 's', 't', 'd'"),
        (lambda: pipelines.parquet(tmp_path / "twice.parquet"), "Expected one column of each name in .* several 'b'"),
        (lambda: pipelines.npy(tmp_path / "none-*.npy"), "Expected files of x; got none like"),
        (lambda: pipelines.npy(tmp_path / "none.npy"), "Expected files of x; got"),
        (lambda: pipelines.npy(tmp_path / "objects.npy"), "Expected a .npy file of numbers"),
        (lambda: pipelines.npy([tmp_path / "short.npy", tmp_path / "c-0.npy"]), "of one shape and type of x"),
        (lambda: pipelines.npy(tmp_path / "short.npy", context=tmp_path / "c-0.npy"), "as many rows in each part"),
        (lambda: pipelines.npy(settings["paths"], context=tmp_path / "c-0.npy"), "as many files of each part"),
        (lambda: pipelines.npy(settings["paths"], batch_size=0), "Expected a whole number batch_size >= 1; got 0"),
        (lambda: pipelines.npy(settings["paths"], batch_size=64, buffer=10), "buffer of at least batch_size = 64"),
        (lambda: pipelines.parquet(tmp_path / "text.parquet"), "Expected a Parquet file; got"),
        (lambda: pipelines.tfrecord(tmp_path / "none", 2), "Expected files of x; got"),
        (lambda: pipelines.write_tfrecord(tmp_path, X, C[:5]), "Expected arrays of 1000 rows"),
        (lambda: pipelines.write_tfrecord(tmp_path, X, n_shards=0), "Expected n_shards from 1 to 1000; got 0"),
    ):
        with pytest.raises(ValueError, match=text):
            call()


@pytest.mark.skipif(np.dtype(np.longdouble).itemsize == 8, reason="long doubles are doubles here")
def test_numbers_of_more_than_64_bits_are_refused(tmp_path):
    np.save(tmp_path / "long.npy", X.astype(np.longdouble))
    with pytest.raises(ValueError, match=r"Expected rows of numbers of at most 64 bits in .*long\.npy; got float"):
        pipelines.npy(tmp_path / "long.npy")


def test_adapt_samples_all_rows_of_a_pipeline(monkeypatch):
    """Sorted data: the first rows are like no others."""
    monkeypatch.setattr(inputs, "ADAPT_ROWS", 2000)
    x = np.sort(np.random.default_rng(0).normal(3.0, 2.0, (20_000, 1)), axis=0)
    dataset = tf.data.Dataset.from_tensor_slices(x).batch(512)
    flow = FlowModel(RealNVP(1, n_layers=1, hidden=(4,)))
    flow.adapt(dataset)
    z = flow.encode(x).numpy()
    assert abs(z.mean()) < 0.1
    assert z.std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("make", [Standardize, Whiten])
@pytest.mark.parametrize("domain", [None, Domain.positive()])
def test_moments_of_a_pipeline_are_those_of_all_rows(make, domain, monkeypatch):
    """However few are sampled: with weights, in batches of any size, behind a domain's map, or far from zero."""
    monkeypatch.setattr(inputs, "ADAPT_ROWS", 10)
    rng = np.random.default_rng(0)
    x = (8.0 if domain else 5e3) + rng.normal(size=(3000, 2)) @ [[1.0, 0.5], [0.0, 0.2]]
    weight = rng.uniform(size=3000) * (rng.uniform(size=3000) < 0.8)

    def latents(*data):
        flow = FlowModel(Chain([make(2)]), domain=domain and [domain] * 2)
        flow.adapt(*data)
        return flow.encode(x[:50]).numpy()

    pipeline = tf.data.Dataset.from_tensor_slices((x, (), weight)).batch(171)
    np.testing.assert_allclose(latents(pipeline), latents(x, None, weight), atol=1e-5)


def test_fit_adapts_to_weighted_rows_of_a_pipeline():
    rng = np.random.default_rng(0)
    x, weight = rng.normal(size=(300, 2)), rng.uniform(size=300)
    flows = [FlowModel(Chain([Standardize(2)])) for _ in range(2)]
    flows[0].fit(x, sample_weight=weight, epochs=1, verbose=0)
    flows[1].fit(tf.data.Dataset.from_tensor_slices((x, (), weight)).batch(64), epochs=1, verbose=0)
    np.testing.assert_allclose(flows[1].encode(x), flows[0].encode(x), atol=1e-5)


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_weights_that_are_none_are_refused_before_anything_is_set(bad):
    flow = FlowModel(Chain([Standardize(2)]))
    weight = np.where(np.arange(100) == 70, bad, 1.0)
    dataset = tf.data.Dataset.from_tensor_slices((X[:100], (), weight)).batch(64)
    for verb in (flow.adapt, functools.partial(flow.fit, epochs=1)):
        with pytest.raises(ValueError, match=r"Expected finite sample weights.*in the dataset's batch 1"):
            verb(dataset)
    assert flow.bijector.needs_adapt
    with pytest.raises(ValueError, match=r"Expected a dataset with an end"):
        flow.adapt(dataset.repeat())


def test_moments_are_stable_and_merge():
    rng = np.random.default_rng(0)
    x, weight = 1e9 + rng.normal(size=(1000, 3)), rng.uniform(size=1000)
    merged = Moments(products=True)
    for rows in np.split(np.arange(1000), [1, 7, 8, 600]):
        merged.add(x[rows], weight[rows])
    merged.add(x[:2], np.zeros(2))
    np.testing.assert_allclose(merged.mean - 1e9, np.average(x - 1e9, axis=0, weights=weight), atol=1e-6)
    np.testing.assert_allclose(merged.covariance, np.cov((x - 1e9).T, aweights=weight, ddof=0), rtol=1e-6)
    np.testing.assert_allclose(Moments.of(x, weight).variance, merged.variance, rtol=1e-6)
    constant = Moments.of(np.full((1000, 2), 0.1), weight, products=True)
    assert np.all(constant.mean == 0.1)
    assert np.all(constant.covariance == 0.0)


def test_describe_says_what_columns_hold():
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(1e6, 2.0, 200_000), rng.gamma(0.1, size=200_000), np.full(200_000, 3.0)], axis=1)
    x[7, 1], x[8, 1], x[9, 0] = np.nan, np.inf, 1e12
    found = streaming.describe(tf.data.Dataset.from_tensor_slices((x, ())).batch(999), levels=(0.01, 0.5, 0.99))
    assert found.n_rows == 200_000
    assert found.n_missing.tolist() == [0, 2, 0]
    for i in range(3):
        column = x[np.isfinite(x[:, i]), i]
        np.testing.assert_allclose(found.mean[i], column.mean(), rtol=1e-12)
        np.testing.assert_allclose(found.deviation[i], column.std(), rtol=1e-9, atol=1e-12)
        assert (found.minimum[i], found.maximum[i]) == (column.min(), column.max())
        below = np.array([np.mean(column < q) for q in found.quantiles[:, i]])
        above = np.array([np.mean(column <= q) for q in found.quantiles[:, i]])
        off = np.maximum(below - found.levels, found.levels - above)
        assert np.all(off < 3.0 * found.rank_error)  # 1 in 100 is beyond once
    assert str(found).startswith("200,000 rows\ncolumn  missing")
    for arguments, text in (
        ((tf.data.Dataset.from_tensor_slices(x).batch(9), [1.5]), "Expected levels of quantiles"),
        ((tf.data.Dataset.from_tensor_slices(x[:0]).batch(9),), "Expected at least one row"),
        ((x,), "Expected a tf.data.Dataset of batches; got a ndarray"),
        ((tf.data.Dataset.range(9),), "Expected a batched dataset"),
        ((tf.data.Dataset.from_tensor_slices(x).repeat().batch(9),), "Expected a dataset with an end; got an endless"),
        ((tf.data.Dataset.from_tensor_slices(x[7:8]).batch(9),), r"got none in columns \[1\]"),
    ):
        with pytest.raises(ValueError, match=text):
            streaming.describe(*arguments)


def test_samples_of_a_pipeline_are_uniform_and_do_not_depend_on_its_batches():
    def batches(size):
        data = {"x": ROWS[:, None], "weight": np.ones(N, np.float32)}
        return tf.data.Dataset.from_tensor_slices(data).batch(size)

    def drawn(size, seed):
        return inputs.sampled_rows(batches(size), 100, lambda x, what: None, seed=seed).x[:, 0]

    np.testing.assert_array_equal(drawn(64, 0), drawn(333, 0))
    counts = np.zeros(N)
    for seed in range(60):
        rows = drawn(256, seed).astype(int)
        assert len(set(rows)) == 100
        counts[rows] += 1
    # 60 draws of 1 in 10, by tenths of the file.
    np.testing.assert_allclose(counts.reshape(10, -1).sum(axis=1), 600.0, rtol=0.15)


def test_adapt_looks_at_all_rows(monkeypatch):
    monkeypatch.setattr(inputs, "ADAPT_ROWS", 100)
    x = np.random.default_rng(0).uniform(size=(N, 2)).astype(np.float32)
    for row, value, text in ((900, np.nan, "NaN or inf in 1 rows: 4"), (999, 7.0, "of the dataset's batch 15")):
        bad = x.copy()
        bad[row, 0] = value
        flow = FlowModel(RealNVP(2, n_layers=1, hidden=(4,)), domain=[Domain.interval(0, 1)] * 2)
        with pytest.raises(ValueError, match=text):
            flow.adapt(tf.data.Dataset.from_tensor_slices(bad).batch(64))
        assert flow.bijector.needs_adapt
