"""Mutations that know the form of an input: JSON, and `.keras` archives, whose checksums stay right."""

from __future__ import annotations

import io
import json
import random
import zipfile

import harness

HOSTILE = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 64, 65_536, 65_537, 10**6, 10**9, 2**31, -(2**63), 10**40, 0.0, 0.5),
    *(1e-45, 1e308, float("nan"), float("inf"), -float("inf"), "", "relu", "zeros", "float32", "object", "S1000000000"),
    *("../../etc/passwd", "os.system", "__lambda__", "function", "builtins", "keras", "Lambda", "tfb.Inline"),
    *("tfd.Sample", "tfb.Exp", "tfd.Normal", "tfflows>MLP", "tfflows>Chain", "é\x00", [], {}, [[]], [1, 2]),
    *(
        [0],
        [10**9],
        [65_536, 65_536],
        [None],
        {"array": [1], "dtype": "object"},
        {"array": [[1], [1, 2]], "dtype": "float32"},
    ),
    *(
        {"dtype_name": "string"},
        {"tfp_class": "tfb.Exp", "parameters": {}},
        {"class_name": "Dense", "config": {"units": 10**9}},
    ),
    {"class_name": "__lambda__", "config": {"value": "4wEAAAA="}},
    {
        "class_name": "Lambda",
        "module": "keras.layers",
        "config": {"function": {"class_name": "__lambda__", "config": {}}},
    },
    {"class_name": "function", "module": "builtins", "config": "eval"},
]


def places(value, found=None):
    """All (container, key) in JSON."""
    found = [] if found is None else found
    for key in list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
        found.append((value, key))
        places(value[key], found)
    return found


def mutate_json(value, rng: random.Random):
    """JSON with a few places of it changed."""
    box = [value]
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        spots = places(box)
        container, key = rng.choice(spots)
        kind = rng.randrange(8)
        if kind <= 2:
            container[key] = rng.choice(HOSTILE)
        elif kind == 3:  # of another place
            other, at = rng.choice(spots)
            container[key] = json.loads(json.dumps(other[at]))
        elif kind == 4 and container is not box:
            del container[key]
        elif kind == 5 and isinstance(container, list) and container is not box:
            container[key:key] = [json.loads(json.dumps(container[key]))] * rng.choice((1, 2, 30))
        elif kind == 6 and isinstance(container[key], (int, float)) and not isinstance(container[key], bool):
            container[key] = container[key] * rng.choice((-1, 0, 2, 10, 0.5)) + rng.choice((-1, 0, 1))
        elif kind == 7 and isinstance(container, dict):
            container[rng.choice(["config", "class_name", "module", "registered_name", "dtype", "array", "x"])] = (
                container[key]
            )
        else:
            container[key] = [container[key]]
    return box[0]


def mutate_config(data: bytes, max_size: int, seed: int) -> bytes:
    """A custom mutator of a JSON document."""
    rng = random.Random(seed)
    try:
        value = json.loads(data)
        changed = json.dumps(mutate_json(value, rng)).encode()
    except (ValueError, RecursionError, IndexError, TypeError, OverflowError):
        changed = harness.atheris.Mutate(data, max_size)
    return changed if len(changed) <= max_size else data[:max_size]


def mutate_archive(data: bytes, max_size: int, seed: int) -> bytes:
    """A custom mutator of a zip: one member is changed, or names and their number, or just bytes."""
    rng = random.Random(seed)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
        kind = rng.randrange(6)
        if kind == 0:
            return harness.atheris.Mutate(data, max_size)
        i = rng.randrange(len(members))
        name, content = members[i]
        if kind == 1:
            members.append(
                (rng.choice(["../evil", "/etc/x", "assets/a", name, "config.json", "a\x00b"]), content[:100])
            )
        elif kind == 2 and name.endswith(".json"):
            members[i] = (name, json.dumps(mutate_json(json.loads(content), rng)).encode())
        else:
            weights = next((j for j, (n, _) in enumerate(members) if n.endswith(".h5")), i)
            name, content = members[weights]
            members[weights] = (name, mutate_bytes(content, rng))
        made = io.BytesIO()
        how = rng.choice([zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
        with zipfile.ZipFile(made, "w", how) as archive:
            for name, content in members:
                archive.writestr(name, content)
        if len(made.getvalue()) <= max_size:
            return made.getvalue()
    except Exception:
        pass
    return harness.atheris.Mutate(data, max_size)


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes with some changed, a stretch cut out or repeated, or the end cut off."""
    changed = bytearray(content)
    if not changed:
        return b"\x00"
    kind = rng.randrange(5)
    at = rng.randrange(len(changed))
    if kind <= 2:
        # Where the bytes are not zero is the structure.
        spots = [i for i, byte in enumerate(changed) if byte] or [at]
        for _ in range(rng.choice((1, 1, 2, 4, 16))):
            changed[rng.choice(spots)] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
    elif kind == 3:
        del changed[at : at + rng.choice((1, 8, 512, len(changed)))]
    else:
        changed[at:at] = changed[at : at + rng.choice((1, 8, 512))]
    return bytes(changed)


def edited(content: bytes, script: bytes) -> bytes:
    """Bytes changed: of each four of the script three say where, and one is the new one; an odd end cuts it off."""
    changed = bytearray(content)
    for i in range(0, len(script) - 3, 4):
        changed[int.from_bytes(script[i : i + 3], "big") % len(changed)] = script[i + 3]
    if len(script) % 4 == 3:
        del changed[int.from_bytes(script[-3:], "big") % len(changed) :]
    return bytes(changed)
