"""Mutants are drawn where tests reach, made one at a time, and found again after functions have moved."""

import ast
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[1]))  # the benchmarks are no part of the package

from benchmarks.mutants.draw import draw, found_again, mutants_of, source_of
from benchmarks.mutants.statements import Index, statements_of

pytestmark = pytest.mark.any_backend
BEFORE = '''
class Window:
    def outputs(self, size):
        """Output positions."""
        if self.padding == "valid":
            return (size - self.reach) // self.stride + 1
        if size < 0:
            raise ValueError(f"{size + 1} is too small.")
        return -(-size // self.stride)


def before(x, sizes):
    known = all(map(is_known, sizes))
    return pad(x, sizes, known) if known or x is None else x
'''
AFTER = """
def pad_before(x: Tensor, sizes: Shape) -> Tensor:
    known: bool = all(map(is_known, sizes))
    return pad(x, sizes, known) if known or x is None else x


def other(x):
    return pad(x, x, x) if x or x is None else x


class Window:
    def outputs(self, size: int) -> int:
        if self.padding == "same":
            return -(-size // self.stride)
        return (size - self.dilated_size) // self.stride + 1
"""
WORDS = {"reach": "dilated_size", "before": "pad_before"}


def tree(folder, name, text):
    package = folder / "src" / "keras_adjoint"
    package.mkdir(parents=True)
    (package / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def trees(tmp_path):
    return tree(tmp_path / "before", "sizes.py", BEFORE), tree(tmp_path / "after", "geometry.py", AFTER)


def mutants(folder, reached=lambda statement: True, **options):
    return draw(folder, **{"count": 100, "seed": 0, "patterns": ["*.py"], **options}, reached=reached)


def test_every_mutant_changes_what_its_file_computes(trees):
    (file,) = (path.relative_to(trees[0]) for path in trees[0].rglob("*.py"))
    found = [mutant for statement in statements_of(trees[0], [file]) for mutant in mutants_of(statement)]
    sources = {source_of(mutant, trees[0]) for mutant in found}
    kinds = {mutant.kind for mutant in found}
    assert kinds >= {"comparison", "arithmetic", "and, or", "sign", "one more", "one less", "branches", "condition"}
    assert len(sources) == len(found)
    assert ast.unparse(ast.parse(BEFORE)) + "\n" not in sources


def test_messages_are_left_alone(trees):
    assert not any("ValueError" in mutant.statement for mutant in mutants(trees[0]))


def test_a_seed_draws_the_same_mutants_one_of_a_statement(trees):
    assert mutants(trees[0]) == mutants(trees[0]) != mutants(trees[0], seed=1)
    places = [(mutant.function, mutant.statement, mutant.number) for mutant in mutants(trees[0])]
    assert len(set(places)) == len(places)


def test_only_what_is_reached_is_drawn(trees):
    found = mutants(trees[0], lambda statement: statement.function == "before")
    assert {mutant.function for mutant in found} == {"before"}


def test_mutants_are_found_again_in_other_files_under_other_names(trees):
    index = Index(trees[1], WORDS)
    for mutant in mutants(trees[0]):
        other = found_again(mutant, trees[0], index)
        if mutant.statement.startswith("If"):
            assert other is None or "same" in other.statement  # `size < 0` is gone
            continue
        assert other.function == mutant.function.replace("before", "pad_before")
        assert other.after == mutant.after.replace("reach", "dilated_size")
        assert source_of(other, trees[1]) != ast.unparse(ast.parse(AFTER)) + "\n"
