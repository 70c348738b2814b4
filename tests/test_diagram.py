"""The diagram of a mirror: decisions and their labels, the lanes of edges, and boxes that hold their text."""

import keras
import numpy as np
import pytest
from encoders import X, chain, values
from keras import layers

import keras_adjoint as ka
from keras_adjoint.models.decisions import Kind, Sharing, decide
from keras_adjoint.plots.diagram.labels import labels_of
from keras_adjoint.plots.diagram.layout import draw, lanes_of
from keras_adjoint.plots.diagram.shapes import Box, Text
from keras_adjoint.plots.diagram.text import MOST_LINES, NARROW, WIDE

pytestmark = pytest.mark.any_backend


def plain():
    return chain(
        layers.Conv2D(4, 3, strides=2, activation="relu", name="conv"),
        layers.BatchNormalization(name="norm"),
        layers.MaxPooling2D(name="pool"),
        layers.Dropout(0.5, name="drop"),
        layers.Flatten(name="flat"),
        layers.Dense(5, name="dense"),
    )


def with_gate():
    image = keras.Input((8, 8, 3))
    features = layers.Conv2D(6, 3, padding="same", name="conv")(image)
    gate = layers.Dense(6, activation="sigmoid", name="squeeze")(layers.GlobalAveragePooling2D(name="mean")(features))
    gate = layers.Reshape((1, 1, 6), name="gate")(gate)
    gated = layers.Multiply(name="times")([features, gate])
    return keras.Model(image, layers.Add(name="sum")([gated, features]))


def with_gaps():
    return chain(
        layers.Conv2D(4, 3, padding="same", name="conv"),
        layers.AutoContrast(name="contrast"),
        layers.Conv2D(2, 1, name="behind"),
    )


def by_name(decisions):
    return {decision.name: decision for decision in decisions}


# --- decisions


def test_there_is_a_decision_about_every_call():
    decisions = by_name(decide(plain()))
    assert {name: (one.kind, one.left_out, one.sharing) for name, one in decisions.items()} == {
        "conv": (Kind.LINEAR_PART, False, Sharing.TIED),
        "norm": (Kind.POLICY, False, None),
        "pool": (Kind.POLICY, False, None),
        "drop": (Kind.POLICY, True, None),
        "flat": (Kind.EXACT, False, None),
        "dense": (Kind.EXACT, False, Sharing.TIED),
    }
    assert decisions["conv"].policies == {"activation": "same", "bias": "own"}
    assert decisions["pool"].policies == {"pooling": "spread"}


def test_policies_are_those_that_were_given():
    given = dict(pooling="switches", norm={"norm": "adjoint"}, bias="none", tied=False)
    decisions = by_name(decide(plain(), given))
    assert decisions["conv"].sharing == decisions["norm"].sharing == Sharing.COPIED
    assert decisions["norm"].settings == {"norm": "norm"} and decisions["pool"].settings == {"pooling": None}
    assert labels_of(decisions["pool"]).how == "pooling: switches"
    assert labels_of(decisions["dense"]).how == "exact, a copy"
    with pytest.raises(ValueError, match="`norm` must be one of"):
        decide(plain(), {"norm": "none"})


def test_what_computes_a_gate_is_not_reached():
    decisions = by_name(decide(with_gate()))
    unreached = {name for name, decision in decisions.items() if decision.kind == Kind.UNREACHED}
    assert unreached == {"squeeze", "mean", "gate"}
    assert decisions["times"].reached == (True, False)


def test_a_layer_without_adjoint_and_policy_leaves_a_gap_and_the_rest_is_there():
    found = decide(with_gaps())
    decisions = by_name(found)
    assert [gap.name for gap in found.gaps] == ["contrast"]
    assert "has neither an adjoint nor a policy" in decisions["contrast"].reason
    assert decisions["conv"].sharing == decisions["behind"].sharing == Sharing.TIED


def test_of_several_calls_of_a_layer_the_first_that_is_reached_counts():
    image, shared = keras.Input((4, 4, 2)), layers.Conv2D(2, 1, name="shared")
    gate = layers.Activation("sigmoid")(shared(image))
    found = decide(keras.Model(image, layers.Multiply()([gate, shared(layers.ReLU()(image))])))
    first, second = (decision for decision in found if decision.name == "shared")
    assert (first.kind, second.kind) == (Kind.UNREACHED, Kind.EXACT)
    assert found.by_layer()[id(shared)] is second


def test_the_autoencoder_of_decisions_is_that_of_the_library():
    encoder = plain()
    whole = decide(encoder, {"pooling": "switches"}).autoencoder()
    expected = ka.autoencoder(encoder, pooling="switches")
    assert ka.is_tied(whole) and ka.is_tied(whole, encoder)
    np.testing.assert_allclose(values(whole(X)), values(expected(X)), rtol=1e-5, atol=1e-6)


def test_labels_name_layers_sizes_and_decisions():
    labels = labels_of(by_name(decide(plain()))["conv"])
    assert (labels.kernel, labels.into, labels.out) == ("3×3×3×4", "13×11×3", "6×5×4")
    assert labels.sentence == (
        "conv, Conv2D, with a kernel of 3×3×3×4, from 13×11×3 to 6×5×4; in the mirror AdjointConv, of the linear part, tied; "
        "activation same, bias own"
    )


def test_only_a_graph_has_decisions():
    class Own(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ka.NoRuleError, match="its `call` is its own"):
        decide(Own())


# --- lanes


def test_a_chain_stays_in_the_first_lane():
    lanes, edges = lanes_of([[1], [2], []])
    assert lanes == [0, 0, 0]
    assert [(edge.start, edge.end, edge.lane) for edge in edges] == [(0, 1, 0), (1, 2, 0)]


def test_edges_that_skip_rows_run_beside_them():
    lanes, edges = lanes_of([[1, 3], [2], [3], []])
    assert lanes == [0, 0, 0, 0]
    assert (0, 3, 1) in [(edge.start, edge.end, edge.lane) for edge in edges]


@pytest.mark.parametrize("seed", range(20))
def test_no_two_edges_overlap_in_a_lane(seed):
    generator = np.random.default_rng(seed)
    targets = [sorted(set(generator.integers(row + 1, 12, size=3).tolist())) for row in range(11)] + [[]]
    lanes, edges = lanes_of(targets)
    assert len(edges) == sum(map(len, targets))
    taken = [(edge.lane, row) for edge in edges for row in range(edge.start, edge.end)]
    assert len(taken) == len(set(taken))
    passing = {(edge.lane, row) for edge in edges for row in range(edge.start + 1, edge.end)}
    assert not passing & {(lane, row) for row, lane in enumerate(lanes)}


# --- drawings


@pytest.mark.parametrize("fmt", [WIDE, NARROW], ids=["wide", "narrow"])
@pytest.mark.parametrize(
    "make", [plain, with_gate, with_gaps, lambda: long_names()], ids=["plain", "gate", "gaps", "long names"]
)
def test_boxes_do_not_overlap_and_hold_their_text(make, fmt):
    drawing = draw(decide(make()), fmt)
    rows = [row for row in drawing.rows if any(isinstance(shape, Box) for shape in row.shapes)]
    tops = []
    for row in rows:
        boxes = [shape for shape in row.shapes if isinstance(shape, Box)]
        tops.append((min(box.y for box in boxes), max(box.y + box.height for box in boxes)))
        for box in boxes:
            assert box.x >= 0 and box.x + box.width <= drawing.width and box.y + box.height <= drawing.height
        inside = [shape for shape in row.shapes if isinstance(shape, Text) and shape.role != "kernel"]
        for text in inside:
            length = fmt.width_of(text.text, text.role)
            left = {"start": text.x, "middle": text.x - length / 2, "end": text.x - length}[text.anchor]
            assert any(box.x <= left and left + length <= box.x + box.width for box in boxes), text
    assert all(bottom < top for (_, bottom), (top, _) in zip(tops, tops[1:], strict=False))


def long_names():
    """Names and types that no narrow box holds on one line, and sizes beside them."""
    return chain(
        layers.Conv2D(4, 3, strides=2, activation="relu", name="a_layer_whose_name_is_rather_long"),
        layers.SeparableConv2D(6, 2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(5, activation="softmax", name="猫の画像を分類する最後の層"),
    )


@pytest.mark.parametrize("fmt", [WIDE, NARROW], ids=["wide", "narrow"])
def test_no_word_and_no_size_is_cut_off(fmt):
    decisions = decide(long_names())
    rows = [row for row in draw(decisions, fmt).rows if row.operation is not None]
    for row, decision in zip(rows, decisions, strict=True):
        labels, texts = labels_of(decision), [shape for shape in row.shapes if isinstance(shape, Text)]
        written = "".join(text.text for text in texts if text.role in ("name", "detail")).replace(" ", "")
        assert "…" not in written
        wanted = [labels.type, labels.how] + ([labels.name, labels.mirror] if decision.sharing else [])
        for want in wanted:
            assert want.replace(" ", "") in written, want
        if labels.changes_size:
            assert {labels.into, labels.out} <= {text.text for text in texts if text.role == "size"}


def test_lines_end_behind_commas_and_between_words_if_they_can():
    assert NARROW.wrapped("exact, tied; activation same, bias own") == ["exact, tied;", "activation same,", "bias own"]
    assert NARROW.wrapped("nothing (activation: same)") == ["nothing (activation:", "same)"]
    assert NARROW.wrapped("GlobalAveragePooling2D") == ["GlobalAverage", "Pooling2D"]
    assert NARROW.wrapped("a_rather_long_name_of_a_layer", "name") == ["a_rather_long_", "name_of_a_layer"]


def test_what_would_need_too_many_lines_is_shortened():
    lines = NARROW.wrapped("a" * 200 + "b" * 200, "name")
    assert len(lines) == MOST_LINES and lines[0].startswith("a") and lines[-1].endswith("b") and "…" in "".join(lines)
    assert all(NARROW.width_of(line, "name") <= NARROW.text_width for line in lines)


def test_wide_letters_count_twice_and_marks_not():
    assert WIDE.width_of("猫") == 2 * WIDE.width_of("c")
    assert WIDE.width_of("e\u0301\u202e") == WIDE.width_of("e")


def test_a_drawing_says_everything_in_words_too():
    decisions = decide(plain())
    sentences = [row.sentence for row in draw(decisions).rows if row.operation is not None]
    assert sentences == [labels_of(decision).sentence for decision in decisions]


def test_long_names_are_shortened_in_the_middle():
    text = WIDE.shortened("a" * 50 + "b" * 50, 100, "name")
    assert "…" in text and text.startswith("a") and text.endswith("b")
    assert WIDE.width_of(text, "name") <= 100
