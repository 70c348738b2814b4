"""A script as a concrete syntax tree: what its names import, where its expressions stand, and edits of them."""

import ast
import re
import warnings
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import libcst as cst
from libcst.helpers import parse_template_expression
from libcst.metadata import (
    CodeRange,
    ImportAssignment,
    MetadataWrapper,
    PositionProvider,
    QualifiedNameSource,
    ScopeProvider,
)
from libcst.metadata.scope_provider import Scope, ScopeVisitor

KERAS = ("tensorflow.keras", "tensorflow.python.keras", "tf_keras", "keras.api", "keras.src")
LONGEST = 60  # attributes, subscripts and calls in one chain
MOST_DIGITS = 100  # of a number that is read
MAX_RECURSION = 10_000  # libcst takes several calls per level of nesting, where Python's own parser takes none


@dataclass(frozen=True)
class Edit:
    """An expression to be replaced by another one.

    Attributes:
        source: The script.
        node: The expression.
        template: The text of the other one, with names in braces for expressions of the script.
        parts: These names with their expressions.
    """

    source: "Source"
    node: cst.BaseExpression
    template: str
    parts: tuple[tuple[str, cst.BaseExpression], ...] = ()


@dataclass(frozen=True)
class Insertion:
    """A statement to be added before or after another one."""

    source: "Source"
    node: cst.CSTNode
    statement: str
    after: bool


ScriptChange: TypeAlias = Edit | Insertion


class Names(ScopeProvider):
    """What every name is assigned to, and not where it is read: libcst notes each reading with each assignment before it."""

    def visit_Module(self, node: cst.Module) -> bool:
        node.visit(ScopeVisitor(self))
        return False


class Source:
    """The text of a script.

    Args:
        text: The text, with the line ends that it has in the file.
        path: Where it was read.

    Attributes:
        stars: The modules of `from … import *`, as far as the script was read.

    Raises:
        libcst.ParserSyntaxError: If it is not Python.
    """

    def __init__(self, text: str, path: str) -> None:
        module = cst.parse_module(text)
        # A form feed in the first indentation would be one in every new one, which libcst itself refuses.
        self.module = module.with_changes(default_indent=module.default_indent.replace("\f", ""))
        self.text = self.module.code  # where libcst counts columns: it drops a form feed in front of a statement
        self.path = path
        self.stars: list[str] = []
        self._metadata = MetadataWrapper(self.module, unsafe_skip_copy=True)  # a tree just parsed has no node twice
        self._paths: dict[tuple[Scope, str], str | None] = {}

    # --- names

    @cached_property
    def _scopes(self) -> Mapping[cst.CSTNode, Scope | None]:
        return self._metadata.resolve(Names)

    def import_path(self, node: cst.CSTNode) -> str | None:
        """The dotted path that an expression stands for: `L.Conv2D` may be `keras.layers.Conv2D`.

        `None` if it does not begin with a name that was imported.
        """
        name = dotted(node)
        scope = self._scopes.get(first_name(node)) if name is not None else None
        if name is None or scope is None:
            return None
        if (scope, name) not in self._paths:
            self._paths[scope, name] = self._import_path(scope, name)
        return self._paths[scope, name]

    def _import_path(self, scope: Scope, name: str) -> str | None:
        found = scope.get_qualified_names_for(name)
        paths = {
            canonical(one.name)
            for one in found
            if one.source is QualifiedNameSource.IMPORT and not one.name.startswith(".")
        }
        if not paths and self.stars and name[0].isupper() and not found:
            return canonical(f"{self.stars[-1]}.{name}")
        return min(paths, key=lambda path: (not path.startswith("keras"), path), default=None)

    def _imports(self) -> Iterator[tuple[str, str]]:
        """(name, path) of every import, wherever it stands."""
        for scope in dict.fromkeys(self._scopes.values()):
            for assignment in scope.assignments if scope is not None else ():
                if isinstance(assignment, ImportAssignment):
                    for qualified in assignment.get_qualified_names_for(assignment.name):
                        yield assignment.name, qualified.name

    def alias_of(self, package: str) -> str | None:
        """The name under which a package was imported, or `None`."""
        return next((name for name, path in self._imports() if path == package), None)

    def imports(self, package: str) -> bool:
        """Whether anything of a package is imported."""
        paths = (*self.stars, *(path for _, path in self._imports()))
        return any(path == package or path.startswith(f"{package}.") for path in paths)

    # --- positions

    @cached_property
    def _positions(self) -> Mapping[cst.CSTNode, CodeRange]:
        return self._metadata.resolve(PositionProvider)

    @cached_property
    def _lines(self) -> list[int]:
        """Where each line begins, as Python counts lines."""
        ends = [match.end() for match in re.finditer(r"\r\n?|\n", self.text)]
        return [0, *(end for end in ends if end < len(self.text))]

    def place(self, node: cst.CSTNode) -> str:
        """file:line:column, both counted from 1."""
        start = self._positions[node].start
        return f"{self.path}:{start.line}:{start.column + 1}"

    def span(self, node: cst.CSTNode) -> tuple[int, int]:
        """Where an expression begins and ends in the text, without brackets around it."""
        first, last = node, node
        if isinstance(node, (cst.Tuple, cst.GeneratorExp)) and node.lpar:
            first, last = node.lpar[-1], node.rpar[0]
        start, end = self._positions[first].start, self._positions[last].end
        return self._lines[start.line - 1] + start.column, self._lines[end.line - 1] + end.column

    def code(self, node: cst.CSTNode) -> str:
        """The text of an expression as it stands in the script."""
        start, end = self.span(node)
        return self.text[start:end]

    # --- edits

    def edit(self, node: cst.BaseExpression, template: str, **parts: cst.BaseExpression) -> Edit:
        """The `Edit` that writes a template, filled in with expressions of the script, in the place of an expression."""
        return Edit(self, node, template, tuple(parts.items()))

    def insert_import(self, package: str, *, above: cst.CSTNode) -> Insertion:
        """Adds an import after the last one at the top level above a node, or else at the beginning."""
        line = self._positions[above].start.line
        before = [statement for statement in self.module.body if self._positions[statement].end.line < line]
        after = next((statement for statement in reversed(before) if is_import(statement)), None)
        if after is None and before and self.module.get_docstring(clean=False) is not None:
            after = before[0]
        return Insertion(self, after or self.module.body[0], f"import {package}", after is not None)

    def overlap(self, edit: ScriptChange, other: ScriptChange) -> bool:
        """Whether two different edits cannot both be made."""
        if edit == other or isinstance(edit, Insertion) or isinstance(other, Insertion):
            return False
        (start, end), (other_start, other_end) = self.span(edit.node), self.span(other.node)
        return start < other_end and other_start < end

    def edited(self, edits: Iterable[ScriptChange]) -> str:
        """The text after edits that do not overlap."""
        return self.module.visit(_Editor(self.module.config_for_parsing, edits)).code

    def lines_after(self, edit: Edit) -> str:
        """The lines that an edit touches, as they are afterwards."""
        start, end = self.span(edit.node)
        first = self._lines[bisect_right(self._lines, start) - 1]
        after = bisect_left(self._lines, max(end, start + 1))
        last = self._lines[after] if after < len(self._lines) else len(self.text)
        parts = {name: self.code(part) for name, part in edit.parts}
        return (self.text[first:start] + edit.template.format(**parts) + self.text[end:last]).strip("\r\n")


class _Editor(cst.CSTTransformer):
    """Makes edits in a syntax tree."""

    def __init__(self, config: cst.PartialParserConfig, edits: Iterable[ScriptChange]) -> None:
        super().__init__()
        self.config = config
        self.edits: dict[cst.CSTNode, ScriptChange] = {edit.node: edit for edit in edits}

    def on_leave(self, original_node: cst.CSTNode, updated_node: cst.CSTNode) -> Any:
        edit = self.edits.get(original_node)
        if isinstance(edit, Edit):
            return self.replaced(edit)
        if edit is not None:
            added = cst.parse_statement(edit.statement, config=self.config)
            return cst.FlattenSentinel([updated_node, added] if edit.after else [added, updated_node])
        return super().on_leave(original_node, updated_node)

    def replaced(self, edit: Edit) -> cst.BaseExpression:
        """The new expression, in the brackets around the old one."""
        old = edit.node
        own = 1 if isinstance(old, (cst.Tuple, cst.GeneratorExp)) and old.lpar else 0  # these are part of it
        around = len(old.lpar) - own
        bare = old.with_changes(lpar=old.lpar[around:], rpar=old.rpar[:own])
        parts = {name: bare if part is old else part for name, part in edit.parts}
        for name, part in parts.items():
            if f"({{{name}}})" in edit.template:  # libcst drops the brackets of a template around what it inserts
                parts[name] = part.with_changes(lpar=[cst.LeftParen(), *part.lpar], rpar=[*part.rpar, cst.RightParen()])
        new = parse_template_expression(edit.template, config=self.config, **parts)
        return new.with_changes(lpar=[*old.lpar[:around], *new.lpar], rpar=[*new.rpar, *old.rpar[own:]])


# --- expressions


def canonical(path: str) -> str:
    """A dotted path with Keras under its own name."""
    for prefix in KERAS:
        if path == prefix or path.startswith(f"{prefix}."):
            return canonical(f"keras{path[len(prefix) :]}")
    return path


def is_import(statement: cst.CSTNode) -> bool:
    return isinstance(statement, cst.SimpleStatementLine) and any(
        isinstance(part, (cst.Import, cst.ImportFrom)) for part in statement.body
    )


def first_name(node: cst.CSTNode) -> cst.CSTNode:
    """What stands at the beginning of a chain of attributes; of a longer one than any program has, some attribute in it."""
    for _ in range(LONGEST):
        if not isinstance(node, cst.Attribute):
            break
        node = node.value
    return node


def dotted(node: cst.CSTNode) -> str | None:
    """`a.b.c` of a name or of attributes of a name; `None` of everything else."""
    attributes: list[str] = []
    while isinstance(node, cst.Attribute) and len(attributes) < LONGEST:
        attributes.append(node.attr.value)
        node = node.value
    return ".".join([node.value, *reversed(attributes)]) if isinstance(node, cst.Name) else None


def text_of(node: cst.CSTNode) -> str:
    """An expression as text, the same however it is spaced, quoted and broken into lines.

    A chain of attributes, subscripts and calls that is longer than in any program has a text of its own: each part of it
    would be read once for every part that follows.
    """
    code = dotted(node)
    if code is not None:
        return code
    if is_long(node):
        return f"<{id(node)}>"
    with warnings.catch_warnings(action="ignore"):  # as of escapes in strings, which are the script's own
        return ast.unparse(ast.parse(f"({cst.Module([]).code_for_node(node)}\n)", mode="eval").body)


def is_long(node: cst.CSTNode) -> bool:
    """Whether an expression is a chain of more than `LONGEST` attributes, subscripts and calls."""
    for _ in range(LONGEST):
        match node:
            case cst.Attribute(value=inner) | cst.Subscript(value=inner) | cst.Call(func=inner):
                node = inner
            case _:
                return False
    return True


def children(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """The nodes that a node is made of."""
    for name in node.__dataclass_fields__:
        value = getattr(node, name)
        if isinstance(value, cst.CSTNode):
            yield value
        elif isinstance(value, (list, tuple)):
            yield from (item for item in value if isinstance(item, cst.CSTNode))


def expressions_in(node: cst.CSTNode) -> Iterator[cst.BaseExpression]:
    """The outermost expressions that a node is made of, without itself."""
    for child in children(node):
        if isinstance(child, cst.BaseExpression):
            yield child
        elif not isinstance(child, cst.BaseSuite):
            yield from expressions_in(child)


def descendants(node: cst.CSTNode) -> Iterator[cst.CSTNode]:
    """A node and everything that it is made of, the outer nodes first."""
    queue = deque([node])
    while queue:
        yield queue[0]
        queue.extend(children(queue.popleft()))


def literal(node: cst.CSTNode | None) -> Any:
    """The value of a literal expression; `None` if it is none."""
    try:
        return literal_value(node)
    except (ValueError, TypeError, SyntaxError):
        return None


def literal_value(node: cst.CSTNode | None) -> Any:
    """The value of a literal expression.

    Raises:
        ValueError: If it is none; TypeError: If it is the negative of something else than a number.
    """
    match node:
        case cst.Integer(value=text) if len(text) > MOST_DIGITS:
            raise ValueError("No size is that large")
        case cst.Integer() | cst.Float() | cst.Imaginary() | cst.SimpleString() | cst.ConcatenatedString():
            with warnings.catch_warnings(action="ignore"):
                return ast.literal_eval(cst.Module([]).code_for_node(node.with_changes(lpar=(), rpar=())))
        case cst.Name(value="None" | "True" | "False" as name):
            return {"None": None, "True": True, "False": False}[name]
        case cst.Ellipsis():
            return ...
        case cst.UnaryOperation(operator=cst.Minus(), expression=operand):
            return -literal_value(operand)
        case cst.UnaryOperation(operator=cst.Plus(), expression=operand):
            return +literal_value(operand)
        case cst.Tuple() | cst.List() if all(isinstance(element, cst.Element) for element in node.elements):
            values = [literal_value(element.value) for element in node.elements]
            return tuple(values) if isinstance(node, cst.Tuple) else values
    raise ValueError("This expression is not a literal")
