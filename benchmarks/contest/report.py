"""The tables of the results."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import ClassVar

from contest.cases import ARCHITECTURES, FACTORS, FIT_BATCH, FIT_EPOCHS, FIT_LAYERS, FIT_ROWS, FIT_WIDTH, QUANTITIES
from contest.libraries import LIBRARIES

INTRODUCTION = """
Medians over rounds in which the libraries take turns, ± half the distance of the quartiles. A call of log_prob or
sample gets or gives one batch and ends with an array on the host; a training step is one step of Adam. The last
column is the fastest peer's figure divided by tfflows'. "-": the library does not offer it. "over N s": one call,
compilation included, took longer.
"""


class Report:
    """The results so far, of earlier runs too, and the files that they are written to.

    Args:
      path: of the files, without a suffix.
    """

    # What tells the rows of a part apart.
    identities: ClassVar = {
        "lines": ("architecture", "n_dim", "library"),
        "fit": ("library",),
        "scaling": ("architecture", *FACTORS, "library"),
    }

    def __init__(self, path: pathlib.Path):
        self.path = path
        file = path.with_suffix(".json")
        self.parts = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}

    def begin(self, part: str, settings: dict, facts: dict) -> None:
        """Keeps what the part has so far if it was measured with the same settings."""
        old = self.parts.get(part, {})
        rows = old["rows"] if old.get("settings") == settings else []
        facts = (old["facts"] if rows else {}) | facts
        self.parts[part] = {"settings": settings, "facts": facts, "rows": rows}

    def add(self, part: str, row: dict) -> None:
        """Adds a row, in place of an earlier one for the same, and writes the files."""

        def identity(row):
            return [row[key] for key in self.identities[part]]

        rows = [other for other in self.parts[part]["rows"] if identity(other) != identity(row)]
        self.parts[part]["rows"] = sorted([*rows, row], key=self._place)
        self.write()

    @staticmethod
    def _place(row):
        architecture = [list(ARCHITECTURES).index(row["architecture"])] if "architecture" in row else []
        return [*architecture, *(row.get(key, 0) for key in FACTORS), list(LIBRARIES).index(row["library"])]

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.with_suffix(".json").write_text(json.dumps(self.parts, indent=1) + "\n", encoding="utf-8")
        sections = {"lines": self._lines, "fit": self._fit, "scaling": self._scaling}
        text = ["# Speed", INTRODUCTION.strip()]
        for part, section in sections.items():
            if part in self.parts:
                rows = self.parts[part]["rows"]
                facts = self.parts[part]["settings"] | self.parts[part]["facts"]
                others = [row["others"] for row in rows if row.get("others") is not None]
                if others:
                    facts["cores that other processes used meanwhile, at most"] = f"{max(others):.2f}"
                text += [*section(rows), "\n".join(f"- {k}: {v}" for k, v in facts.items())]
        self.path.with_suffix(".md").write_text("\n\n".join(text) + "\n", encoding="utf-8")

    def _lines(self, rows) -> list[str]:
        def label(row):
            return f"{ARCHITECTURES[row['architecture']]}, {row['n_dim']}"

        text = ["## By architecture and number of scalars"]
        for what, name in QUANTITIES.items():
            text += [f"{name}, ms", table(rows, label, milliseconds(what), best=value(what))]
        text += ["time to the first result, s", table(rows, label, number("first_result"), best=value("first_result"))]
        text += [
            "first call on top of a usual one: log_prob / training step / sample, s",
            table(rows, label, first_calls),
        ]
        text += ["peak memory on top of the imports, MB", table(rows, label, number("memory"), best=value("memory"))]
        return text

    def _fit(self, rows) -> list[str]:
        text = (
            f"## Small fit\n\nRealNVP of 2 scalars, {FIT_LAYERS} layers with one hidden layer of {FIT_WIDTH}; "
            f"{FIT_EPOCHS} epochs of {FIT_ROWS} rows in batches of {FIT_BATCH}, in a fresh process, after the imports."
        )
        lines = ["| library | whole fit, s | first epoch, s | ms/step after it |", "| --- | --- | --- | --- |"]
        for row in rows:
            cells = [short(row["total"]), short(row["first_epoch"]), short(1e3 * row["step"])] if "total" in row else []
            lines.append("| " + " | ".join([row["library"], *(cells or [row["error"], "", ""])]) + " |")
        return [text, "\n".join(lines)]

    def _scaling(self, rows) -> list[str]:
        def label(row):
            factors = ", ".join(f"{row[key]} {name}" for key, name in FACTORS.items())
            return f"{ARCHITECTURES[row['architecture']]}: {factors}"

        text = ["## How the cost grows"]
        for what, name in QUANTITIES.items():
            text += [f"{name}, ms", table(rows, label, milliseconds(what), best=value(what))]
        return text


def short(number: float) -> str:
    """Three significant digits."""
    return f"{number:.0f}" if abs(number) >= 100.0 else f"{number:.3g}"


def value(what: str) -> Callable[[dict], float | None]:
    """How to find a quantity in a row; None where it is missing."""

    def find(row):
        found = row.get(what)
        return found.get("ms") if isinstance(found, dict) else found

    return find


def number(what: str) -> Callable[[dict], str]:
    return lambda row: short(row[what]) if row.get(what) is not None else row.get("error", "-")


def milliseconds(what: str) -> Callable[[dict], str]:
    """Median and half the distance of the quartiles."""

    def cell(row):
        found = row.get(what, row)
        if "ms" not in found:
            return found.get("error", "-")
        low, high = found["quartiles"]
        return f"{short(found['ms'])} ± {(high - low) / 2.0:.2g}"

    return cell


def first_calls(row: dict) -> str:
    first = row.get("first_call", {})
    return " / ".join(f"{first[what]:.1f}" if what in first else "-" for what in QUANTITIES)


def table(rows: list[dict], label, cell, best=None) -> str:
    """Rows by label, a column for each library and, with `best`, how many times less tfflows takes than the best peer.

    Args:
      rows: in the order of the table.
      label, cell: from a row to text.
      best: from a row to the number to compare, or None.
    """
    libraries = [library for library in LIBRARIES if any(row["library"] == library for row in rows)]
    groups: dict[str, dict[str, dict]] = {}
    for row in rows:
        groups.setdefault(label(row), {})[row["library"]] = row
    head = ["", *libraries, *(["best peer / tfflows"] if best else [])]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, group in groups.items():
        cells = [cell(group[library]).replace("|", "\\|") if library in group else "-" for library in libraries]
        if best:
            numbers = {library: best(row) for library, row in group.items() if best(row) is not None}
            ours = numbers.pop("tfflows", None)
            peer = min(numbers, key=numbers.get, default=None)
            cells.append(f"{numbers[peer] / ours:.2f} ({peer})" if ours and peer else "-")
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return "\n".join(lines)
