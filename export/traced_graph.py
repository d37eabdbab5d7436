"""What the outputs of a traced tf.function depend on, and what in it changes or is random."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias

import tensorflow as tf
from tensorflow.core.framework.graph_pb2 import GraphDef

Function: TypeAlias = tf.types.experimental.ConcreteFunction
Operation: TypeAlias = tf.Operation


def needed(function: Function) -> set[Operation]:
    """The operations whose values reach an output; side effects are not among them."""
    return ancestors(value.op for value in function.outputs)


def ancestors(operations: Iterable[Operation]) -> set[Operation]:
    """The operations given and all whose values reach one of them."""
    found: set[Operation] = set()
    waiting = list(operations)
    while waiting:
        operation = waiting.pop()
        if operation not in found:
            found.add(operation)
            waiting += [value.op for value in operation.inputs]
    return found


def descendants(operation: Operation) -> set[Operation]:
    """The operation given and all that its values reach; its shape alone does not count."""
    found: set[Operation] = set()
    waiting = [operation]
    while waiting:
        operation = waiting.pop()
        if operation not in found and operation.type not in ("Shape", "ShapeN", "Size"):
            found.add(operation)
            waiting += [user for value in operation.outputs for user in value.consumers()]
    return found


def unsteady(function: Function) -> list[str]:
    """Types of the operations by which the outputs could differ from one call to the next.

    A random draw counts if an output depends on it. A change of a variable counts if an output
    depends on that variable, or if it is a weight: a batch normalization that updates its
    statistics runs in training mode. The counter of a random generator whose draws nothing uses
    is neither: Keras layers that augment keep counting at rest.
    """
    used = needed(function)
    library = {item.signature.name: item for item in _definition(function).library.function}
    found = {operation.type for operation in used if "Random" in operation.type}
    for operation in function.graph.get_operations():
        if operation.type.startswith("Assign") and _matters(operation, used):
            found.add(operation.type)
        for name in _called(operation.node_def):
            inner = set(_types_within(name, library, set()))
            found |= {kind for kind in inner if kind.startswith("Assign")}
            if operation in used:
                found |= {kind for kind in inner if "Random" in kind}
    return sorted(found)


def _definition(function: Function) -> GraphDef:
    return function.graph.as_graph_def()


def _matters(assignment: Operation, used: set[Operation]) -> bool:
    kind = tf.as_dtype(assignment.get_attr("dtype"))
    return kind.is_floating or assignment.inputs[0].op in used


def _types_within(name: str, library: dict[str, Any], seen: set[str]) -> Iterator[str]:
    """Types of the operations of a function of the graph's library, and of those it calls."""
    if name in seen or name not in library:
        return
    seen.add(name)
    for node in library[name].node_def:
        yield node.op
        for inner in _called(node):
            yield from _types_within(inner, library, seen)


def _called(node: Any) -> Iterator[str]:
    """Names of the functions that a node runs: those of loops and branches, and plain calls."""
    for attribute in node.attr.values():
        if attribute.HasField("func"):
            yield attribute.func.name
        for item in attribute.list.func:
            yield item.name
