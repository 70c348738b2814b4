"""How steps are run: until every sample has ended, or a given number of times so that they can be differentiated."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from keras import ops

from keras_adjoint.errors import KerasAdjointError
from keras_adjoint.ops import Tensor
from keras_adjoint.ops.backend import current

State = tuple[Tensor, ...]
Step = Callable[[State], State]

MOST_UNROLLED = 200  # steps that are recorded one by one, where a backend cannot record a loop


class Watch:
    """A user's function that is called after every step with (number of the step, x so far), and ends it by a true value.

    Args:
        callback: The function.
        shown: What makes of rows the x that is shown.

    Attributes:
        unit: By which x has been divided.
    """

    def __init__(self, callback: Callable[[int, Any], object], shown: Callable[[Tensor], Any]) -> None:
        self.callback, self.shown = callback, shown
        self.unit: Tensor | float = 1.0
        self.is_over = False

    def look(self, state: State) -> None:
        """Call the function."""
        answer = self.callback(int(state[0]), self.shown(state[3] * self.unit))
        try:
            self.is_over = bool(answer)
        except (TypeError, ValueError, RuntimeError) as error:  # of arrays, by the backend
            raise ValueError(
                f"`callback` returns one value, which ends the iteration if it is true. Received: {answer!r}"
            ) from error


@dataclass(frozen=True)
class Loop:
    """The steps of a solver. A state begins with (how many steps were taken, steps per sample, which samples go on, x).

    Attributes:
        most: The most steps.
        unrolled: Whether all of them are taken, of which a sample that has ended notices nothing.
        watch: What looks on. It needs numbers after every step, so nothing is compiled then.
    """

    most: int
    unrolled: bool = False
    watch: "Watch | None" = None

    def run(self, step: Step, state: State) -> State:
        """Take steps until no sample goes on."""
        if self.watch is not None:
            while bool(self._goes_on(state)) and not self.watch.is_over:
                state = tuple(step(state))
                self.watch.look(state)
            return state
        if self.unrolled:
            return tuple(ops.fori_loop(0, self.most, lambda _, now: tuple(step(now)), state))
        return tuple(ops.while_loop(lambda *now: self._goes_on(now), lambda *now: step(now), state))

    def _goes_on(self, state: State) -> Tensor:
        return (state[0] < self.most) & ops.any(state[2])

    def rounds(self, most: int, again: Step, state: State) -> State:
        """Take rounds of steps, each of which ends some samples, until all have ended. A state begins with which have."""

        def goes_on(count: Tensor, *now: Tensor) -> Tensor:
            return (count < most) & (now[1] < self.most) & ops.logical_not(ops.all(now[0]))

        if self.watch is not None:
            count = 0
            while bool(goes_on(count, *state)) and not self.watch.is_over:
                count, state = count + 1, again(state)
            return state
        start = (ops.convert_to_tensor(0, "int32"), *state)
        found = ops.while_loop(goes_on, lambda count, *now: (count + 1, *again(tuple(now))), start)
        return tuple(found[1:])


def loop_for(tensors: list[Tensor], most: int, *, unrolled: bool, watch: Watch | None = None) -> Loop:
    """The loop for tensors that hold numbers, or that a compiler traces.

    Raises:
        KerasAdjointError: If the backend would have to record too many steps one by one.
    """
    is_concrete = current().is_concrete(tensors)
    records = not current().RECORDS_LOOPS and not is_concrete
    if records and most > MOST_UNROLLED:
        raise KerasAdjointError(
            f"What exports a model of PyTorch records every step of a solver, and may record at most {MOST_UNROLLED}. Make the "
            f"layer with `max_steps={MOST_UNROLLED}` or less, or export the model where Keras runs on TensorFlow or JAX. "
            f"Received: max_steps={most}"
        )
    return Loop(most, unrolled or records, watch if is_concrete else None)  # a function that is compiled has no numbers
