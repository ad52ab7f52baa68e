"""What fitted flows are used for: `tfflows score`, `encode`, `outliers`, `sample`, `export`, `info`, `plot`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from tfflows import plot as pictures
from tfflows import questions
from tfflows.checks import listed
from tfflows.cli import columns, files, writing
from tfflows.cli.console import Report, mean_and_error, nats, note, progress
from tfflows.cli.streams import Stream, by_name, hears, schema_of
from tfflows.cli.tables import CHUNK, open_table
from tfflows.questions.outliers import check_enough
from tfflows.schema import Schema

MOST_COLUMNS = 6  # that a picture shows unless told
SCORES = {"density": questions.Density, "typicality": questions.Typicality, "latent": questions.Latent}


def score(model, data, out, drop_missing, force) -> Report:
    """The log-density of each row."""
    with files.replacing(out, writing.ENDINGS, force=force) as path:
        flow = files.load_flow(model)
        stream = Stream(flow, _free_of(open_table(data), ["log_prob"]), drop_missing=drop_missing)
        sums = np.zeros(2)
        rows = stream.evaluate(lambda x, context, _: flow.log_prob(x, context), "Scoring", as_text=stream.as_text(out))
        with _writer(path) as write:
            for batch, found in rows:
                log_prob = np.asarray(found, np.float64)
                sums += np.sum(log_prob), np.sum(log_prob**2)
                write(_with(batch, {"log_prob": np.asarray(found)}))
    n = stream.n_rows
    mean, error = mean_and_error(*sums, n, n)
    facts = {"rows": n, "dropped_rows": stream.n_dropped, "mean_log_prob": mean, "error": error}
    return Report(facts | _out(out), f"log-likelihood of {n:,} rows: {nats(mean, error)}" + _saved(out))


def encode(model, data, out, drop_missing, force) -> Report:
    """The latents of each row, and the log-determinant on the way to them."""
    with files.replacing(out, writing.ENDINGS, force=force) as path:
        flow = files.load_flow(model)
        if not hasattr(flow, "encode"):
            raise ValueError(f"Expected a flow with one latent space; got {model}, a mixture of several.")
        names = [f"z{i}" for i in range(flow.base.event_shape[0])]
        stream = Stream(flow, _free_of(open_table(data), [*names, "log_det"]), drop_missing=drop_missing)

        def latents(x, context, _):
            return flow.encode(x, context, return_log_det=True)

        with _writer(path) as write:
            for batch, (z, log_det) in stream.evaluate(latents, "Encoding", as_text=stream.as_text(out)):
                write(_with(batch, dict(zip(names, np.asarray(z).T, strict=True)) | {"log_det": np.asarray(log_det)}))
    facts = {"rows": stream.n_rows, "dropped_rows": stream.n_dropped, "latents": names}
    return Report(facts | _out(out), f"{len(names)} latents of {stream.n_rows:,} rows" + _saved(out))


def outliers(model, data, out, rate, calibration, by, only, drop_missing, seed, force) -> Report:
    """Which rows are strange, at a rate of false alarms that other rows vouch for."""
    if by not in SCORES:
        raise ValueError(f"Expected --by {', '.join(SCORES)}; got '{by}'.")
    with files.replacing(out, writing.ENDINGS, force=force) as path:
        flow = files.load_flow(model)
        names = ["score", "p_value", "outlier"]
        stream = Stream(flow, _free_of(open_table(data), names), drop_missing=drop_missing)

        def scores_of(stream, what):
            return stream.scores(lambda x, context: SCORES[by]()(flow, x, context), what)

        if calibration is not None:
            held_out = scores_of(Stream(flow, open_table(calibration), drop_missing=drop_missing), "Calibrating")
            check_enough(len(held_out), rate)
            scores = scores_of(stream, "Scoring")
            found = questions.judge(scores, held_out, rate)
            p_values, flags = found.p_values, found.flags
        else:
            scores = scores_of(stream, "Scoring")
            p_values, flags = _by_halves(scores, rate, np.random.default_rng(seed))
            note(
                f"Without --calibration each half of {data.name}, divided at random, is judged by the other: about "
                f"{rate:.2g} of the rows or fewer are flagged, and rows that the flow was fitted to look less strange."
            )
        start = 0
        with _writer(path) as write:
            rows = stream.evaluate(lambda *_: None, "Writing", as_text=stream.as_text(out), quiet=True)
            for batch, _ in rows if path is not None else ():
                part = slice(start, start + len(batch))
                added = dict(zip(names, (scores[part].astype(np.float32), p_values[part], flags[part]), strict=True))
                start += len(batch)
                batch = _with(batch, added)
                write(batch.filter(pa.array(flags[part])) if only else batch)
    n_flagged = int(flags.sum())
    facts = {"rows": len(scores), "dropped_rows": stream.n_dropped, "outliers": n_flagged, "rate": rate, "by": by}
    return Report(
        facts | _out(out), f"{n_flagged:,} outliers in {len(scores):,} rows, at a rate of {rate:g}" + _saved(out)
    )


def _by_halves(scores, rate, rng) -> tuple[np.ndarray, np.ndarray]:
    """p-values and flags of rows that calibrate each other."""
    n = len(scores)
    is_first = rng.permutation(n) < n // 2
    p_values, flags = np.empty(n), np.empty(n, bool)
    for half in (is_first, ~is_first):
        found = questions.judge(scores[half], scores[~half], rate)
        p_values[half], flags[half] = found.p_values, found.flags
    return p_values, flags


def sample(model, n, out, context, given, temperature, seed, force) -> Report:
    """Draws, n or n for each row of the context."""
    with files.replacing(out, writing.ENDINGS, force=force) as path:
        flow = files.load_flow(model)
        schema = schema_of(flow)
        n_rows = 0
        with _writer(path) as write, progress("Sampling") as show:
            for drawn, values in _draws(flow, schema, n, _conditions(flow, schema, context, given), temperature, seed):
                of_context = columns.values(schema.context, values)
                write(pa.RecordBatch.from_pydict(columns.values(schema.columns, drawn) | of_context))
                n_rows += len(drawn)
                show(n_rows, f"{n_rows:,} rows")
    return Report({"rows": n_rows, "columns": schema.names} | _out(out), f"{n_rows:,} rows" + _saved(out))


def _conditions(flow, schema: Schema, context, given) -> Iterator[np.ndarray]:
    """The context's numbers `[m, k]`, some rows at a time; one row of none for a flow without context."""
    if flow.accepts.contexts is None:
        if context is not None or given:
            raise ValueError("Expected no --context or --given for a flow without context; got one.")
        return iter([np.empty((1, 0))])
    if (context is None) == (not given):
        raise ValueError(
            f"Expected --context FILE, or --given column=value for each of {listed(_names(schema.context))}; got "
            f"{'neither' if context is None else 'both'}."
        )
    if context is not None:
        stream = Stream(flow, open_table(context), only_context=True)
        return (values for _, values in stream.evaluate(lambda x, heard, values: values, "Reading", quiet=True))
    values = dict(option.partition("=")[::2] for option in given)
    if set(values) != set(_names(schema.context)):
        raise ValueError(f"Expected --given for each of {listed(_names(schema.context))}; got {listed(values)}.")
    row = columns.matrix(schema.context, pa.table({name: [value] for name, value in values.items()}))
    if np.isnan(row).any():
        raise ValueError(f"Expected a finite value for each --given; got {listed(given)}.")
    return iter([row])


def _draws(flow, schema, n, conditions, temperature, seed) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Draws `[rows, D]` and the context's numbers of each, those of one condition one after the other."""
    state, count = np.random.SeedSequence(seed), 0
    for values in conditions:
        block = max(1, CHUNK // n)  # conditions at a time
        for start in range(0, len(values), block):
            part = values[start : start + block]
            for done in range(0, n, CHUNK):
                size = min(CHUNK, n - done)
                pair = np.random.SeedSequence(state.entropy, spawn_key=(count,)).generate_state(2) % 2**31
                drawn = np.asarray(flow.sample(size, hears(flow, schema, part), seed=pair, temperature=temperature))
                if drawn.ndim == 3:  # [size, conditions, D]
                    drawn = drawn.transpose(1, 0, 2).reshape(-1, drawn.shape[-1])
                count += 1
                yield drawn, np.repeat(part, size, axis=0)


def export(model, out, format, weights, force) -> Report:
    """The flow for where Python is not."""
    if format is None:
        if out.suffix.lower() not in ("", ".tflite"):
            raise ValueError(f"Expected an out file ending in .tflite, or a folder for a SavedModel; got {out.name}.")
        format = "litert" if out.suffix else "tf_saved_model"
    endings = (".tflite",) if format == "litert" else ()
    files.free(out, endings, force=force)
    flow = files.load_flow(model)
    flow.export(out, format, verbose=False, overwrite=force, weights=weights)
    schema = schema_of(flow)
    facts = {"format": format, "columns": _names(schema.columns), "context": _names(schema.context)} | _out(out)
    text = f"exported as {format}; x is {listed(facts['columns'], 20)}, in this order"
    if known := [c for c in (*schema.columns, *schema.context) if c.categories is not None]:
        text += "; as 0, 1, ... " + "; ".join(f"'{c.name}' {listed(c.categories, 20)}" for c in known)
    return Report(facts, text + _saved(out))


def info(model) -> Report:
    """What is in a model's file."""
    flow = files.load_flow(model)
    described = []
    for part, of_part in (("x", schema_of(flow).columns), ("context", schema_of(flow).context)):
        for c in of_part:
            values = {} if c.categories is None else {"categories": list(c.categories)}
            described.append({"name": c.name, "part": part, "dtype": c.dtype, "domain": c.domain} | values)
    lines = []
    flow.summary(print_fn=lines.append)
    width = max(len(c["name"]) for c in described)
    named = "columns" if flow.schema is not None else "columns, which the file has no names of"
    lines.append(f"\n{named}")
    for c in described:
        known = f": {listed(c['categories'])}" if "categories" in c else ""
        lines.append(
            f"{c['name']:<{width}}  {c['dtype']:<8} {'' if c['part'] == 'x' else 'context, '}{c['domain']}{known}"
        )
    facts = {
        "name": flow.name,
        "weights": flow.count_params(),
        "has_names": flow.schema is not None,
        "columns": described,
    }
    return Report(facts, "\n".join(lines))


def plot(model, data, out, n, only, given, drop_missing, seed, force) -> Report:
    """A picture of draws over data."""
    with files.replacing(out, (".png", ".pdf", ".svg"), force=force) as path:
        flow = files.load_flow(model)
        schema = schema_of(flow)
        chosen = _chosen(schema, only)
        rng = np.random.default_rng(seed)
        rows = conditions = None
        if data is not None:
            rows, conditions = Stream(flow, open_table(data), drop_missing=drop_missing).collect()
            some = np.sort(rng.permutation(len(rows))[:n])
            rows, conditions = rows[some], conditions[some]
        if flow.accepts.contexts is None or data is None or given:
            parts = _draws(flow, schema, n, _conditions(flow, schema, None, given), 1.0, seed)
            drawn = np.concatenate([part for part, _ in parts])
        else:  # as many as there are data, each given the context of one
            drawn = np.concatenate([part for part, _ in _draws(flow, schema, 1, iter([conditions]), 1.0, seed)])
        described = [schema.columns[i] for i in chosen]
        if len(schema.columns) == 1 and not schema.context and not flow.accepts.is_discrete:
            with by_name(schema):
                pictures.density(flow, rows, labels=_names(described), path=path)  # itself, not draws
        else:
            below = None if rows is None else rows[:, chosen]
            pictures.corner(drawn[:, chosen], below, columns=described, names=("draws", "data"), path=path)
    shown = {
        "columns": [schema.columns[i].name for i in chosen],
        "draws": len(drawn),
        "rows": 0 if rows is None else len(rows),
    }
    return Report(shown | _out(out), f"{len(drawn):,} draws of {listed(shown['columns'])}" + _saved(out))


def _chosen(schema: Schema, only: Sequence[str] | None) -> list[int]:
    names = _names(schema.columns)
    if not only:
        if len(names) > MOST_COLUMNS:
            note(f"Shown are the first {MOST_COLUMNS} of {len(names)} columns; --columns chooses others.")
        return list(range(min(len(names), MOST_COLUMNS)))
    wanted = [name for option in only for name in ([option] if option in names else option.split(","))]
    if missing := [name for name in wanted if name not in names]:
        raise ValueError(f"Expected columns of {listed(names)}; got {listed(missing)}.")
    return [names.index(name) for name in dict.fromkeys(wanted)]


def _names(of) -> list[str]:
    return [column.name for column in of]


def _free_of(table, names):
    """The table, if there is room for columns of these names."""
    if taken := [name for name in names if name in table.names]:
        raise ValueError(
            f"Expected a table without columns {listed(taken)}, which are added; got {table.path} with them."
        )
    return table


def _with(batch: pa.RecordBatch, added: dict) -> pa.RecordBatch:
    for name, values in added.items():
        batch = batch.append_column(name, pa.array(values))
    return batch


class _Nothing:
    """Writes nothing, where there is no out file."""

    def __enter__(self):
        return lambda batch: None

    def __exit__(self, *exception):
        pass


def _writer(path: Path | None):
    return _Nothing() if path is None else writing.Writer(path)


def _out(out: Path | None) -> dict:
    return {} if out is None else {"out": str(out)}


def _saved(out: Path | None) -> str:
    return "" if out is None else f"\nsaved to {out}"
