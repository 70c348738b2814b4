"""Draw mutants of a tree by a seed, and make them, there and in other trees."""

import ast
import random
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from benchmarks.mutants.mutations import Replacement, mutations
from benchmarks.mutants.statements import statement_of, statements_of

# What computes: sizes, algorithms, the rules of layers, and the walk through a graph.
FILES = (
    "ops/geometry.py", "ops/window.py", "ops/algorithms/*.py", "layers/*.py", "models/graph.py", "models/operations.py",
    "models/backward.py", "models/adjoint.py",
)  # fmt: skip
# What only estimates a cost, or words a message.
FUNCTIONS_LEFT_OUT = ("work", "spread", "collected", "seconds", "describe", "_no_graph", "_ambiguous", "_span")
MOST_PER_FUNCTION = 4


@dataclass(frozen=True)
class Mutant:
    """One wrong change of one expression.

    Attributes:
        file: Path relative to the tree.
        function: Name of the function, with those of its classes.
        statement: Text of the statement.
        number: How many statements of the same text stand before it in the function.
        node: Number of the expression in the statement.
        kind: What is done to it.
        before: Its text.
        after: What it becomes.
    """

    file: str
    function: str
    statement: str
    number: int
    node: int
    kind: str
    before: str
    after: str

    @property
    def key(self):
        return f"{self.file}::{self.function}: {self.statement} #{self.number}.{self.node} {self.kind}"


def mutants_of(statement):
    """All mutants of a `Statement`."""
    for number, node in enumerate(statement.expressions):
        for kind, new in mutations(node, statement.node):
            place = statement.file, statement.function, statement.text, statement.number
            yield Mutant(*place, number, kind, ast.unparse(node).strip(), ast.unparse(new).strip())


def draw(tree, count, seed, reached, patterns=FILES):
    """Some mutants of the lines that the tests reach: one of a statement, a few of a function.

    Args:
        tree: The tree.
        count: How many, at most.
        seed: An integer.
        reached: `reached(statement)` says whether a test runs it.
        patterns: Which files, below the package.
    """
    package = Path(tree, "src", "keras_adjoint")
    files = [path for path in sorted(package.rglob("*.py")) if fits(str(path.relative_to(package)), patterns)]
    found = []
    for statement in statements_of(tree, [path.relative_to(tree) for path in files]):
        if not fits(statement.function, FUNCTIONS_LEFT_OUT) and reached(statement):
            found += mutants_of(statement)
    random.Random(seed).shuffle(found)
    drawn, statements, functions = [], set(), []
    for mutant in found:
        function = mutant.file, mutant.function
        place = (*function, mutant.statement, mutant.number)
        if place not in statements and functions.count(function) < MOST_PER_FUNCTION:
            drawn.append(mutant)
            statements.add(place)
            functions.append(function)
    return drawn[:count]


def fits(name, patterns):
    return any(fnmatch(name, pattern) for pattern in patterns)


def parsed(mutant, tree):
    return ast.parse(Path(tree, mutant.file).read_text(encoding="utf-8"))


def statement_in(mutant, tree):
    """The `Statement` of a mutant."""
    return statement_of(parsed(mutant, tree), mutant)


def source_of(mutant, tree):
    """The whole file of a mutant, as it becomes."""
    module = parsed(mutant, tree)
    statement = statement_of(module, mutant)
    node = statement.expressions[mutant.node]
    new = dict(mutations(node, statement.node))[mutant.kind]
    return ast.unparse(Replacement(node, new).visit(module)) + "\n"


def found_again(mutant, tree, index):
    """The same mutant in the tree of an `Index`; `None` if its statement is not there."""
    place = index.find(statement_in(mutant, tree), mutant.node)
    if place is None:
        return None
    statement, node = place
    return next((m for m in mutants_of(statement) if (m.node, m.kind) == (node, mutant.kind)), None)
