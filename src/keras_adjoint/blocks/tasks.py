"""Blocks of one program that are computed together, in an order that belongs to the plan."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from keras_adjoint.blocks.plan import Block, Plan


@dataclass(frozen=True)
class Task:
    """Blocks of one program that are computed together.

    Attributes:
        number: Its number, which is the same in every run of a plan.
        sample: The index of the sample, for arrays with a batch axis.
        blocks: The blocks.
    """

    number: int
    sample: tuple[int, ...]
    blocks: list[Block]

    def names(self) -> str:
        return ", ".join(
            "[" + ", ".join([*map(str, self.sample), *(f"{cut.start}:{cut.stop}" for cut in block.write)]) + "]"
            for block in self.blocks
        )


def tasks_of(plan: Plan, samples: int | None) -> Iterator[Task]:
    """The blocks of a plan, those of equal programs together, in an order that belongs to the plan."""
    number = 0
    for sample in [()] if samples is None else [(index,) for index in range(samples)]:
        alike: dict[Any, list[Block]] = {}
        for block in plan:
            same = alike.setdefault(block.program, [])
            same.append(block)
            if len(same) == plan.batch:
                yield Task(number, sample, alike.pop(block.program))
                number += 1
        for same in alike.values():
            yield Task(number, sample, same)
            number += 1
