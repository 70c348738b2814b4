"""Functional models that Hypothesis wires at random from the operations in `random_operations`."""

import math

import keras
import numpy as np
from hypothesis import strategies as st
from keras import tree
from random_operations import FUNCTIONS, LAYERS, SHAPES, TWO, WRITTEN, runs_here

import keras_adjoint as ka

LARGEST = 80  # elements of a tensor
NAMES = ["x", "a"]
KINDS = ["layer", "layer", "layer", "written", "written", "function", "two", "two", "again", "nested", "adjoint"]


class Drawn:
    """A random model, and words for what it is made of."""

    def __init__(self, model, steps):
        self.model, self.steps = model, steps

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
        self.called = []  # (name, what was called, the shapes of what it was called with)
        self.steps = []

    def one_of(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def number_of(self, tensor):
        return next(number for number, one in enumerate(self.tensors) if one is tensor)

    def call(self, name, called, tensors):
        """Call something, and keep what it returns, unless that is large."""
        try:
            outputs = tree.flatten(called(tensors if len(tensors) > 1 else tensors[0]))
        except Exception as error:
            error.add_note(f"{name} of {[tuple(x.shape) for x in tensors]}")
            raise
        self.called.append((name, called, shapes_of(tensors)))
        kept = [y for y in outputs if is_small(shape_of(y))]
        read = ", ".join(f"t{self.number_of(x)}" for x in tensors)
        written = ", ".join(f"t{len(self.tensors) + number}{shape_of(y)}" for number, y in enumerate(kept))
        self.tensors.extend(kept)
        if kept:
            self.steps.append(f"{written} = {name}({read})")

    # --- what can be called

    def layer(self):
        self.from_table(LAYERS)

    def written(self):
        self.from_table(WRITTEN)

    def from_table(self, table):
        x = self.one_of(self.tensors)
        name = self.one_of(name for name, operation in table.items() if operation.fits(shape_of(x)))
        self.call(name, table[name].make(shape_of(x)), [x])

    def two(self):
        x = self.one_of(self.tensors)
        y = self.one_of(y for y in self.tensors if y.shape == x.shape)
        name = self.one_of(name for name, operation in TWO.items() if operation.fits(shape_of(x)))
        self.call(name, TWO[name].make(shape_of(x)), [x, y])

    def function(self):
        x = self.one_of(self.tensors)
        fitting = [name for name, applied in FUNCTIONS.items() if applied.shapes[0] == shape_of(x)]
        name = self.one_of(fitting) if fitting else None
        if name is None or not runs_here(FUNCTIONS[name]):
            return
        others = [y for y in self.tensors if y.shape == x.shape]
        read = [x, *(self.one_of(others) for _ in FUNCTIONS[name].shapes[1:])]
        called = FUNCTIONS[name].function
        self.call(name, called if len(read) == 1 else lambda xs: called(*xs), read)

    def again(self):
        """Something that was called before, with other tensors."""
        fitting = [each for each in self.called if all(any(shape_of(x) == s for x in self.tensors) for s in each[2])]
        if fitting:
            name, called, shapes = self.one_of(fitting)
            read = [self.one_of(x for x in self.tensors if shape_of(x) == shape) for shape in shapes]
            self.call(f"again {name}", called, read)

    def nested(self, adjoint=False):
        """A nested model, or its adjoint, called with a list or a dictionary."""
        read = [self.one_of(self.tensors) for _ in range(self.draw(st.integers(1, 2)))]
        inner = draw_model(self.draw, shapes_of(read), most=3, nesting=0)
        read = [read[NAMES.index(x.name)] for x in inner.model.inputs]
        text = "; ".join(inner.steps)
        if not adjoint:
            self.call(f"nested [{text}]", called_by(inner.model, self.one_of([False, True])), read)
            return
        model = ka.adjoint(inner.model)
        wanted = [tuple(y.shape[1:]) for y in model.inputs]
        if all(any(shape_of(x) == shape for x in self.tensors) for shape in wanted):
            read = [self.one_of(x for x in self.tensors if shape_of(x) == shape) for shape in wanted]
            self.call(f"adjoint of nested [{text}]", called_by(model, False), read)

    def adjoint(self):
        self.nested(adjoint=True)


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
    return Drawn(keras.Model(inputs, results), steps)


def one_or_list(values):
    return values[0] if len(values) == 1 else values


def is_small(shape):
    """Whether a shape is known, and that of a small tensor."""
    return None not in shape and math.prod(shape) <= LARGEST and len(shape) <= 4


def shape_of(x):
    return tuple(x.shape[1:])


def shapes_of(tensors):
    return tuple(map(shape_of, tensors))
