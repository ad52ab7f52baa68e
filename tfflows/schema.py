"""Schemas: what the columns of a table are called and hold, so that tables go in by name and come out alike."""

from __future__ import annotations

import dataclasses

from tfflows.serialization import Record, register

__all__ = ["Column", "Schema"]


@register
@dataclasses.dataclass(frozen=True)
class Column(Record):
    """A column of a table.

    Args:
      name: by which it is found in a table.
      dtype: of its values, by NumPy's name; "str" for text.
      categories: the values that a flow knows by their numbers 0, 1, ...; None for numbers.
      domain: where values live, in words for readers; the flow itself knows it from its `Domain`.
    """

    name: str
    dtype: str = "float64"
    categories: tuple | None = None
    domain: str = "real"

    def __post_init__(self):
        if self.categories is not None:
            object.__setattr__(self, "categories", tuple(self.categories))  # of a file, a list

    def get_config(self) -> dict:
        config = dataclasses.asdict(self)
        return config | {"categories": None if self.categories is None else list(self.categories)}

    @property
    def is_whole(self) -> bool:
        """Whether values are integers by type."""
        return self.dtype.lstrip("u").startswith("int")


@register
@dataclasses.dataclass(frozen=True)
class Schema:
    """The columns of the table that a flow is of.

    Args:
      columns: of x, in the flow's order.
      context: of the context, in the flow's order; one with categories is heard as a one-hot vector.
    """

    columns: tuple[Column, ...]
    context: tuple[Column, ...] = ()

    @property
    def names(self) -> list[str]:
        """Of all columns, those of the context last."""
        return [column.name for column in (*self.columns, *self.context)]

    def get_config(self) -> dict:
        """The columns as dicts, as a `.keras` file holds them."""
        return {part: [column.get_config() for column in getattr(self, part)] for part in ("columns", "context")}

    @classmethod
    def from_config(cls, config: dict) -> Schema:
        """The same schema again, from the `config` of `get_config`."""
        return cls(*(tuple(Column(**column) for column in config[part]) for part in ("columns", "context")))
