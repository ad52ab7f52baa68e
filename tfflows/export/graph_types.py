"""Looks whether the values that nodes of a graph hand each other are of the types that they expect.

TensorFlow looks too, but later: the functions that infer shapes come first, and end the process where a constant is of
another type than an operation takes.
"""

from __future__ import annotations

# Private: the rest of the package must not need it.
from tensorflow.python.framework import op_def_registry

MOST_VALUES = 1_000_000  # that the nodes of a graph, or of a function, put out together


def check_types(graph) -> None:
    """Refuses a `GraphDef` with a node whose inputs are not there, not as many, or not of the type that it takes.

    Raises:
      ValueError: that says which node.
    """
    functions = [(function.signature, function.node_def, function.ret) for function in graph.library.function]
    _check_nodes(graph.node, {}, in_function=False)
    for signature, nodes, results in functions:
        arguments = {argument.name: [argument.type] for argument in signature.input_arg}
        known = _check_nodes(nodes, arguments, in_function=True)
        for argument in signature.output_arg:
            _expect_type(known, results.get(argument.name, ""), argument.type, signature.name)


def _check_nodes(nodes, known, *, in_function):
    """The types of what each node puts out, by its name, or in a function by node and output."""
    n_left = MOST_VALUES
    for node in nodes:
        each = [(argument.name, _types(argument, node, n_left)) for argument in _definition(node).output_arg]
        n_left -= sum(len(types) for _, types in each)
        if node.op == "Const":
            value = node.attr["value"].tensor.dtype
            if [value] != each[0][1]:
                raise ValueError(f"a constant {node.name[:80]!r} of type {value} that is said to be of {each[0][1]}")
        if in_function:
            known |= {f"{node.name}:{name}": types for name, types in each}
        else:
            known[node.name] = [one for _, types in each for one in types]
    for node in nodes:
        given = [name for name in node.input if not name.startswith("^")]
        wanted = [one for argument in _definition(node).input_arg for one in _types(argument, node, len(given))]
        if len(given) != len(wanted):
            raise ValueError(f"{len(given)} inputs of {node.name[:80]!r}, which takes {len(wanted)}")
        for name, one in zip(given, wanted, strict=True):
            _expect_type(known, name, one, node.name)
    return known


def _expect_type(known, name, wanted, where):
    place, _, index = name.rpartition(":")
    if not index.isdecimal():
        place, index = name, "0"
    types = known.get(place, ())
    if int(index) >= len(types):
        raise ValueError(f"{name[:80]!r}, which is not there, in {where[:80]!r}")
    if types[int(index)] != wanted:
        raise ValueError(f"{name[:80]!r} of type {types[int(index)]} in {where[:80]!r}, which takes {wanted}")


def _definition(node):
    found = op_def_registry.get(node.op)
    if found is None:
        raise ValueError(f"the operation {node.op[:80]!r}")
    return found


def _types(argument, node, most) -> list[int]:
    """The types of an input or output of a node, which may be several values, `most` of them."""
    if argument.type_list_attr:
        return list(_attribute(node, argument.type_list_attr).list.type)
    one = _attribute(node, argument.type_attr).type if argument.type_attr else argument.type
    count = _attribute(node, argument.number_attr).i if argument.number_attr else 1
    if not 0 <= count <= max(most, 1):  # a single one too many is told by who counts
        raise ValueError(f"{count} values of {argument.name} in {node.name[:80]!r}")
    return [one] * count


def _attribute(node, name):
    if name in node.attr:
        return node.attr[name]
    for attribute in _definition(node).attr:
        if attribute.name == name and attribute.HasField("default_value"):
            return attribute.default_value
    raise ValueError(f"a {node.op} {node.name[:80]!r} without {name}")
