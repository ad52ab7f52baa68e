"""Compositions that nobody thought of. `TFFLOWS_COMPOSITIONS=5000 pytest tests/test_compositions.py` tries as many."""

import itertools
import os

import compositions
from hypothesis import HealthCheck, given, settings

N_EXAMPLES = int(os.environ.get("TFFLOWS_COMPOSITIONS", "0"))
HOW = {"deadline": None, "database": None, "suppress_health_check": list(HealthCheck), "derandomize": not N_EXAMPLES}
_count = itertools.count(1)


@settings(max_examples=N_EXAMPLES or 25, **HOW)
@given(compositions.recipes())
def test_any_composition(recipe):
    compositions.check(recipe)
    if next(_count) % 200 == 0:
        compositions.forget()


@settings(max_examples=N_EXAMPLES // 5 or 5, **HOW)
@given(compositions.tables())
def test_any_table(recipe):
    compositions.check_table(recipe)
    if next(_count) % 200 == 0:
        compositions.forget()
