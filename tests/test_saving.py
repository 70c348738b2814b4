"""Every kind of adjoint survives its file: a model of a layer and its adjoint loads and predicts the same."""

import keras
import numpy as np
from helpers import build_pair
from layer_list import HALF, LAYERS, for_each

import keras_adjoint as ka
from keras_adjoint.layers.tied import Tied
from keras_adjoint.testing.pairs import UNPOOLING


@for_each([case for case in LAYERS if case.runs_itself], quick=HALF)
def test_model_of_a_layer_and_its_adjoint_loads_and_predicts_the_same(case, tmp_path):
    layer, adjoint = build_pair(case, "float32")
    extra = {"switches": layer.input} if isinstance(adjoint, UNPOOLING) else {}
    model = keras.Model(layer.input, adjoint(layer.output, **extra))
    generator = np.random.default_rng(0)
    x = [generator.integers(0, 7, (2, *i.shape[1:])).astype(i.dtype) for i in model.inputs]
    x = x if case.merges else x[0]
    model.save(tmp_path / "m.keras")
    loaded = keras.saving.load_model(tmp_path / "m.keras")
    for found, expected in zip(*(keras.tree.flatten(m.predict(x, verbose=0)) for m in (loaded, model)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    if isinstance(adjoint, Tied) and layer.weights:
        assert ka.is_tied(loaded) and loaded.count_params() == layer.count_params()
