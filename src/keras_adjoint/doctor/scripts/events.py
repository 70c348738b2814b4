"""What a script does, as far as illnesses look at it: calls, and assignments to attributes."""

import ast
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, eq=False)
class Called:
    """A call.

    Attributes:
        node: The call.
        path: The dotted path of what is called, if it begins with an import.
        method: The name after the last dot, if there is one.
        receiver: The value in front of that dot.
        arguments: (expression, value) of the positional arguments.
        keywords: (expression, value) of the keyword arguments by name.
        names: What every name stands for at this point.
        scope: The function that it is in.
        result: The value of the call.
        unbuilt: Whether the receiver is a layer that was made in the same function and not used until now.
    """

    node: ast.Call
    path: str | None
    method: str | None
    receiver: Any
    arguments: list
    keywords: dict
    names: dict = field(repr=False)
    scope: Any = None
    result: Any = None
    unbuilt: bool = False

    @property
    def receiver_node(self):
        return self.node.func.value if isinstance(self.node.func, ast.Attribute) else None


@dataclass(frozen=True, eq=False)
class Set:
    """An assignment to an attribute.

    Attributes:
        node: The statement.
        target: The attribute.
        owner: The value in front of its dot.
        value: (expression, value) of what is assigned.
        names: What every name stands for at this point.
        in_layer: The name of the method, if this is in a class of a layer; else "".
    """

    node: ast.stmt
    target: ast.Attribute
    owner: Any
    value: tuple
    names: dict = field(repr=False)
    in_layer: str = ""
