"""Exported flows in Apache Beam: rows of any number scored, encoded or drawn (the extra `tfflows[beam]`)."""

try:
    from tfflows.beam.jobs import Result, sample, score
    from tfflows.beam.transforms import FlowHandler, Score
except ImportError as error:  # what needs no Beam, rows and plans, can be had without
    _missing = str(error)

    def __getattr__(name: str):
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        raise ImportError(f"Expected Apache Beam and pyarrow: pip install 'tfflows[beam]'; got: {_missing}")


__all__ = ["FlowHandler", "Result", "Score", "sample", "score"]
