"""Functional models that Hypothesis wires at random from the operations in `random_operations`."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
from hypothesis import strategies as st
from keras import tree
from random_operations import FUNCTIONS, LAYERS, OF_ANY_SIZE, SHAPES, TWO, WRITTEN, runs_here

import keras_adjoint as ka

LARGEST = 80  # elements of a tensor
NAMES = ["x", "a"]
KINDS = ["layer", "layer", "layer", "written", "written", "function", "two", "two", "again", "nested", "adjoint"]


@dataclass(frozen=True)
class Called:
    """What was called in a model.

    Attributes:
        name: Its name.
        function: What was called.
        shapes: The shapes of the tensors.
        reads_mask: Whether it depends on masks.
        masked: Whether there was one.
    """

    name: str
    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = ()
    reads_mask: bool = False
    masked: bool = False

    def again(self):
        return self if self.name.startswith("again") else replace(self, name=f"again {self.name}")


class Drawn:
    """A random model, words for what it is made of, and what was called in it."""

    def __init__(self, model, steps, called):
        self.model, self.steps, self.called = model, steps, called

    @property
    def reads_mask(self):
        """Whether it depends on masks that come with its inputs."""
        return any(called.reads_mask for called in self.called)

    @property
    def depends_on_mask(self):
        """Whether it depends on masks that it computes, and so is not linear."""
        return any(called.reads_mask and called.masked for called in self.called)

    def __repr__(self):
        return "\n    ".join(["a graph of", *self.steps])


@st.composite
def graphs(draw):
    """A model of up to eight calls, some of them of layers that were called before, of nested models, and of adjoints."""
    shapes = draw(st.lists(st.sampled_from(SHAPES), min_size=1, max_size=2))
    drawn = draw_model(draw, shapes, most=8, nesting=1)
    generator = np.random.default_rng(0)
    for weight in drawn.model.weights:
        if "float" in weight.dtype:
            value = generator.normal(size=weight.shape) / math.sqrt(math.prod(weight.shape[:-1]))
            weight.assign((np.abs(value) + 0.5 if "variance" in weight.name else value).astype(weight.dtype))
    return drawn


class Drawing:
    """The tensors of a model that is being drawn, and what was called with them."""

    def __init__(self, draw, shapes):
        self.draw = draw
        self.inputs = [keras.Input(shape, name=name) for shape, name in zip(shapes, NAMES, strict=False)]
        self.tensors = list(self.inputs)
        self.called = []
        self.steps = []

    def one_of(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def tensor(self, fits=lambda shape: True):
        return self.one_of(x for x in self.tensors if shape_of(x) and fits(shape_of(x)))

    def has(self, shapes):
        return all(any(shape_of(x) == shape for x in self.tensors) for shape in shapes)

    def call(self, called, tensors):
        """Call something, and keep what it returns, unless that is large."""
        try:
            outputs = tree.flatten(called.function(tensors if len(tensors) > 1 else tensors[0]))
        except Exception as error:
            error.add_note(f"{called.name} of {[tuple(x.shape) for x in tensors]}")
            raise
        self.called.append(
            replace(called, shapes=shapes_of(tensors), masked=called.masked or any(map(mask_of, tensors)))
        )
        kept = [y for y in outputs if is_small(shape_of(y))]
        read = ", ".join(f"t{self.number_of(x)}" for x in tensors)
        written = ", ".join(f"t{len(self.tensors) + number}{shape_of(y)}" for number, y in enumerate(kept))
        self.tensors.extend(kept)
        if kept:
            self.steps.append(f"{written} = {called.name}({read})")

    def number_of(self, tensor):
        return next(number for number, one in enumerate(self.tensors) if one is tensor)

    # --- what can be called

    def layer(self):
        self.from_table(LAYERS)

    def written(self):
        self.from_table(WRITTEN)

    def from_table(self, table):
        x = self.tensor()
        name = self.one_of(name for name, operation in table.items() if operation.fits(shape_of(x)))
        self.call(Called(name, table[name].make(shape_of(x)), reads_mask=table[name].reads_mask), [x])

    def two(self):
        x = self.tensor()
        y = self.tensor(lambda shape: shape == shape_of(x))
        name = self.one_of(name for name, operation in TWO.items() if operation.fits(shape_of(x)))
        self.call(Called(name, TWO[name].make(shape_of(x))), [x, y])

    def function(self):
        x = self.tensor()
        fitting = [name for name, applied in FUNCTIONS.items() if applied.shapes[0] == shape_of(x)]
        name = self.one_of(fitting) if fitting else None
        if name is not None and runs_here(FUNCTIONS[name]):
            function, more = FUNCTIONS[name].function, FUNCTIONS[name].shapes[1:]
            read = [x, *(self.tensor(lambda shape: shape == shape_of(x)) for _ in more)]
            self.call(Called(name, (lambda xs: function(*xs)) if more else function), read)

    def again(self):
        """Something that was called before, with other tensors."""
        fitting = [each for each in self.called if self.has(each.shapes)]
        if not fitting:
            return
        called = self.one_of(fitting)
        if called.name.removeprefix("again ") in OF_ANY_SIZE:
            (first,) = called.shapes
            read = [self.tensor(lambda shape: len(shape) == len(first) and shape[-1] == first[-1])]
            if not LAYERS[called.name.removeprefix("again ")].fits(shape_of(read[0])):
                return
        else:
            read = [self.tensor(lambda shape, wanted=wanted: shape == wanted) for wanted in called.shapes]
        self.call(called.again(), read)

    def nested(self):
        """A nested model, called with a tensor, a list or a dictionary."""
        read = [self.tensor() for _ in range(self.draw(st.integers(1, 2)))]
        inner = draw_model(self.draw, shapes_of(read), most=3, nesting=0)
        read = [read[NAMES.index(x.name)] for x in inner.model.inputs]
        by_keyword = self.draw(st.booleans())
        text = "; ".join(inner.steps)
        self.call(Called(f"nested [{text}]", called_by(inner.model, by_keyword), reads_mask=inner.reads_mask), read)

    def adjoint(self):
        """The adjoint of a nested model."""
        inner = draw_model(self.draw, [shape_of(self.tensor())], most=3, nesting=0)
        if inner.depends_on_mask:
            return
        model = ka.adjoint(inner.model)
        wanted = shapes_of(model.inputs)
        if self.has(wanted):
            read = [self.tensor(lambda shape, wanted=wanted: shape == wanted) for wanted in wanted]
            self.call(Called(f"adjoint of [{'; '.join(inner.steps)}]", called_by(model, False)), read)


def called_by(model, keyword):
    """A function of a tensor, or of a list of them, that calls a model with them, in the structure that it takes."""

    def call(tensors):
        flat = tree.flatten(tensors)
        packed = tree.pack_sequence_as(model.input, flat) if tree.is_nested(model.input) else flat[0]
        return model(inputs=packed) if keyword else model(packed)

    return call


def draw_model(draw, shapes, most, nesting):
    drawing = Drawing(draw, shapes)
    kinds = [kind for kind in KINDS if nesting or kind not in ("nested", "adjoint")]
    for _ in range(draw(st.integers(1, most))):
        getattr(drawing, drawing.one_of(kinds))()
    tensors = drawing.tensors
    outputs = [tensors[-1], *draw(st.lists(st.sampled_from(tensors), max_size=2))]
    taken = draw(st.sampled_from(["one or a list", "list", "dictionary", "list of lists"]))
    returned = draw(st.sampled_from(["one or a list", "list", "dictionary", "list of dictionaries"]))
    inputs = {
        "one or a list": one_or_list(drawing.inputs),
        "list": drawing.inputs,
        "dictionary": {x.name: x for x in drawing.inputs},
        "list of lists": [drawing.inputs[-1:], *drawing.inputs[:-1]],
    }[taken]
    results = {
        "one or a list": one_or_list(outputs),
        "list": outputs,
        "dictionary": {f"{9 - number}": output for number, output in enumerate(outputs)},
        "list of dictionaries": [outputs[0], {"b": outputs[1:], "a": outputs[0]}],
    }[returned]
    given = ", ".join(f"t{number}{shape_of(x)}" for number, x in enumerate(drawing.inputs))
    ends = ", ".join(f"t{drawing.number_of(y)}" for y in outputs)
    steps = [f"{given} as {taken}", *drawing.steps, f"return {ends} as {returned}"]
    return Drawn(keras.Model(inputs, results), steps, drawing.called)


def one_or_list(values):
    return values[0] if len(values) == 1 else values


def mask_of(x):
    return getattr(x, "_keras_mask", None) is not None


def is_small(shape):
    """Whether a shape is known, and that of a small tensor."""
    return None not in shape and 0 < math.prod(shape) <= LARGEST and len(shape) <= 4


def shape_of(x):
    return tuple(x.shape[1:])


def shapes_of(tensors):
    return tuple(map(shape_of, tensors))
