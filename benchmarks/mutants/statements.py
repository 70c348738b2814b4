"""The statements of a tree, described so that they are found again after functions were moved, renamed and annotated."""

import ast
import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

BLOCKS = {"body", "orelse", "finalbody", "handlers", "cases"}
LEFT_OUT = {"annotation", "returns", "decorator_list", "args", "ctx", "type_comment", "name", "simple"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
TELLING = (ast.BinOp, ast.BoolOp, ast.Compare, ast.Call, ast.IfExp, ast.Subscript)
LIKE_ENOUGH = 0.75  # what is less alike is another function that happens to have such a statement


@dataclass(frozen=True)
class Statement:
    """A statement of a function, without the blocks that it may hold.

    Attributes:
        file: Path of its file, relative to the tree.
        function: Name of the function with those of its classes.
        node: Its syntax tree.
        number: How many statements of the same text stand before it in the function.
        context: Name and text of the function.
    """

    file: str
    function: str
    node: ast.stmt
    number: int
    context: str

    @cached_property
    def expressions(self):
        """All nodes of its expressions, parents first; what is inside of an f-string is a message and left out."""
        return [node for part in parts(self.node) for node in nodes(part)]

    @cached_property
    def text(self):
        return header(self.node)

    @cached_property
    def shape(self):
        """What stays the same when names and strings are replaced by others."""
        kind = "Assign" if isinstance(self.node, ast.AnnAssign) else type(self.node).__name__
        return (kind, *map(shape_of, self.expressions))

    @cached_property
    def words(self):
        return words_of(self.text)

    @cached_property
    def context_words(self):
        return words_of(self.context)

    @property
    def lines(self):
        """First and last line, without the blocks."""
        ends = [node.end_lineno for node in self.expressions if hasattr(node, "end_lineno")]
        return self.node.lineno, max([self.node.lineno, *ends])


def parts(statement):
    """The expressions that a statement holds itself."""
    for field, value in ast.iter_fields(statement):
        if field not in BLOCKS | LEFT_OUT:
            yield from (part for part in (value if isinstance(value, list) else [value]) if isinstance(part, ast.AST))


def nodes(node):
    yield node
    if isinstance(node, ast.JoinedStr):
        return
    for child in ast.iter_child_nodes(node):
        strict = isinstance(child, ast.keyword) and child.arg == "strict"  # of `zip`: a guard, not a computation
        if not strict and not isinstance(child, (ast.expr_context, ast.arg)):
            yield from nodes(child)


def shape_of(node):
    if isinstance(node, ast.Constant):
        return "str" if isinstance(node.value, str) else repr(node.value)
    operators = getattr(node, "ops", None) or [getattr(node, "op", None)]
    return " ".join([type(node).__name__, *(type(op).__name__ for op in operators if op is not None)])


def header(statement):
    """A statement as text, without blocks, annotations and decorators."""
    if isinstance(statement, ast.AnnAssign):
        statement = ast.Assign([statement.target], statement.value)
    return type(statement).__name__ + " " + " ; ".join(map(ast.unparse, parts(statement)))


def words_of(text):
    return Counter(re.findall(r"[A-Za-z]+|\d+|[^\w\s]", text.replace("_", " ")))


def likeness(one, other):
    """1 for the same words, 0 for no word in common."""
    return 2 * (one & other).total() / max(one.total() + other.total(), 1)


def statements_of(tree, files):
    """Every `Statement` inside of a function of some files."""
    for file in files:
        yield from statements_in(ast.parse(Path(tree, file).read_text(encoding="utf-8")), str(file))


def statements_in(module, file):
    for name, function in functions_of(module):
        found = list(walk(function))
        context = " ".join([name, *map(header, found)])
        seen = Counter()
        for node in found:
            yield Statement(file, name, node, seen[header(node)], context)
            seen[header(node)] += 1


def statement_of(module, place):
    """The `Statement` of a parsed file that has the function, text and number of `place`."""
    wanted = place.function, place.statement, place.number
    return next(s for s in statements_in(module, place.file) if (s.function, s.text, s.number) == wanted)


def functions_of(node, prefix=""):
    """(name, syntax tree) of functions and methods; one inside of another belongs to that."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield prefix + child.name, child
        elif isinstance(child, ast.ClassDef):
            yield from functions_of(child, f"{prefix}{child.name}.")


def walk(function):
    """The statements of a function that compute something: no docstrings, no errors, no warnings."""
    for field, value in ast.iter_fields(function):
        for child in value if field in BLOCKS else ():
            if isinstance(child, (ast.Raise, ast.Assert, ast.Import, ast.ImportFrom)):
                continue
            if isinstance(child, ast.stmt) and not isinstance(child, (*FUNCTIONS, ast.ClassDef)) and says_much(child):
                yield child
            yield from walk(child)


def says_much(statement):
    text = ast.unparse(statement.value) if isinstance(statement, ast.Expr) else ""
    docstring = isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    return not docstring and not text.startswith("warnings.warn") and any(parts(statement))


class Index:
    """The statements of a tree, for finding those of another.

    Args:
        tree: The tree.
        words: What words of the other tree are called in this one.
    """

    def __init__(self, tree, words=()):
        self.words = dict(words)
        self.by_shape, self.by_function = defaultdict(list), defaultdict(list)
        files = [path.relative_to(tree) for path in sorted(Path(tree, "src").rglob("*.py"))]
        for statement in statements_of(tree, files):
            self.by_shape[statement.shape].append(statement)
            self.by_function[statement.function].append(statement)

    def find(self, statement, node):
        """(the `Statement` that another tree's has become, the number that its expression `node` has there); or `None`."""
        found = self.whole(statement)
        return (found, node) if found else self.part(statement, node)

    def whole(self, statement):
        """The statement of the same form whose words, and those of the function around it, are nearest."""
        words, context = self.renamed(statement.text), self.renamed(statement.context)

        def score(found):
            return likeness(words, found.words) + likeness(context, found.context_words)

        scored = sorted(((score(found), found) for found in self.by_shape[statement.shape]), key=lambda pair: -pair[0])
        best = [found for value, found in scored if value == scored[0][0]]
        if len({(found.file, found.function) for found in best}) != 1:
            return None
        if min(likeness(words, best[0].words), likeness(context, best[0].context_words)) < LIKE_ENOUGH:
            return None
        return next((found for found in best if found.number == statement.number), best[0] if len(best) == 1 else None)

    def part(self, statement, node):
        """The one place in the function of the same name that has the same operation or call, in whatever statement."""
        own = statement.expressions
        around = [n for n in range(node + 1) if own[node] in nodes(own[n]) and isinstance(own[n], TELLING)]
        if not around:
            return None
        top = around[-1]
        form, words = form_of(own[top]), self.renamed(ast.unparse(own[top]))
        name = re.sub(r"\w+", self.new_word, statement.function)
        found = [
            (other, number + node - top)
            for other in self.by_function[name]
            for number, expression in enumerate(other.expressions)
            if form_of(expression) == form and words_of(ast.unparse(expression)) == words
        ]
        return found[0] if len(found) == 1 else None

    def renamed(self, text):
        return words_of(re.sub(r"\w+", self.new_word, text))

    def new_word(self, match):
        return self.words.get(match[0], match[0])


def form_of(expression):
    return [shape_of(node) for node in nodes(expression)]
