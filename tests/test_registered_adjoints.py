"""Rules of users that return a layer which reads the source: it is tied like any other adjoint, however it holds the source."""

import copy
import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from keras import ops

import keras_adjoint as ka
from keras_adjoint.layers.registry import REGISTERED_BY_USERS, RULES
from keras_adjoint.models.decisions import Sharing, decide


@keras.saving.register_keras_serializable(package="registered")
class Matrix(L.Layer):
    """x ↦ x W, which has no rule before it is registered."""

    def build(self, shape):
        self.kernel = self.add_weight(shape=(shape[-1], 4), name="kernel")

    def call(self, x):
        return ops.matmul(x, self.kernel)

    def compute_output_shape(self, shape):
        return (*shape[:-1], 4)


class HoldsSource(L.Layer):
    def __init__(self, source, **options):
        super().__init__(**options)
        self.source = source

    def call(self, y):
        return ops.matmul(y, ops.transpose(self.source.kernel))


class HoldsVariable(L.Layer):
    def __init__(self, kernel, **options):
        super().__init__(**options)
        self.kernel = kernel

    def call(self, y):
        return ops.matmul(y, ops.transpose(self.kernel))


class HasOwnToo(HoldsSource):
    def build(self, shape):
        self.shift = self.add_weight(shape=(self.source.kernel.shape[0],), initializer="zeros", name="shift")

    def call(self, y):
        return super().call(y) + self.shift


RULES_THAT_READ = {
    "an attribute": HoldsSource,
    "a variable": lambda source: HoldsVariable(source.kernel),
    "a function": lambda source: L.Lambda(lambda y: ops.matmul(y, ops.transpose(source.kernel))),
    "inside of a model": lambda source: keras.Sequential([L.Identity(), HoldsSource(source)]),
    "weights of its own": HasOwnToo,
}
OWN = {name: 6 if name == "weights of its own" else 0 for name in RULES_THAT_READ}
each_rule = pytest.mark.parametrize("rule", RULES_THAT_READ)


@pytest.fixture
def encoder(rule, monkeypatch):
    """An encoder with a layer of the user's, whose rule is registered during the test."""
    monkeypatch.setitem(RULES, Matrix, RULES_THAT_READ[rule])
    REGISTERED_BY_USERS.add(Matrix)
    yield keras.Sequential([keras.Input((6,)), Matrix(name="matrix"), L.Dense(3, use_bias=False)])
    REGISTERED_BY_USERS.remove(Matrix)


@each_rule
def test_ties_last_through_files_and_training(rule, encoder, tmp_path):
    model = ka.autoencoder(encoder, bias="none")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    y = np.ones((2, 6), "float32")
    np.testing.assert_allclose(loaded.predict(y, verbose=0), model.predict(y, verbose=0), rtol=1e-6)
    loaded.compile("sgd", "mse")
    loaded.fit(y, y, verbose=0)
    assert ka.is_tied(loaded) and loaded.count_params() == 6 * 4 + 4 * 3 + OWN[rule]
    if not OWN[rule]:
        assert ka.check_adjoint(loaded.get_layer("matrix"), loaded.get_layer("matrix_adjoint"))


@each_rule
@pytest.mark.any_backend
def test_each_side_has_its_own_switch(rule, encoder):
    model = ka.autoencoder(encoder)
    adjoint = model.get_layer("matrix_adjoint")
    adjoint.trainable = False
    assert encoder.layers[0].trainable and encoder.layers[0].kernel.trainable and not adjoint.trainable_weights
    adjoint.trainable = True
    encoder.trainable = False
    assert len(adjoint.trainable_weights) == bool(OWN[rule])


@each_rule
@pytest.mark.any_backend
def test_its_parameters_are_those_of_the_source(rule, encoder):
    (decision, _) = decide(encoder)
    assert decision.sharing == Sharing.TIED
    assert [variable.path for variable in decision.tied_variables] == [encoder.layers[0].kernel.path]
    assert sum(np.prod(variable.shape) for variable in decision.own_variables) == OWN[rule]
    assert ka.autoencoder(encoder).get_layer("matrix_adjoint").count_params() == OWN[rule]


@each_rule
@pytest.mark.any_backend
def test_a_copy_by_keras_warns_and_one_by_clone_tied_is_tied(rule, encoder):
    model = ka.autoencoder(encoder)
    with pytest.warns(UserWarning, match="`matrix_adjoint` was tied to the kernel of `matrix`. Its copy is not"):
        keras.models.clone_model(model)
    with warnings.catch_warnings(action="error", category=UserWarning):
        assert ka.is_tied(ka.clone_tied(model))


@each_rule
@pytest.mark.any_backend
def test_it_is_saved_before_it_is_called_and_called_at_every_step(rule, encoder, tmp_path):
    adjoint = ka.adjoint(encoder.layers[0])
    assert adjoint.count_params() == OWN[rule] and copy.deepcopy(adjoint).count_params() == 6 * 4 + OWN[rule]
    x = keras.Input((5, 6))
    distributed = L.TimeDistributed(Matrix())
    y = distributed(x)
    model = keras.Model(x, ka.adjoint(distributed)(y))
    model.save(tmp_path / "distributed.keras")
    loaded = keras.saving.load_model(tmp_path / "distributed.keras")
    assert ka.is_tied(loaded) and loaded.count_params() == 6 * 4 + OWN[rule]
    assert loaded.output_shape == (None, 5, 6)


@each_rule
@pytest.mark.any_backend
def test_untied_it_has_a_kernel_of_its_own(rule, encoder):
    decoder = ka.mirror(encoder, tied=False)
    assert not ka.is_tied(decoder, encoder)
    assert decoder.count_params() == 6 * 4 + 4 * 3 + 4 + OWN[rule]
    decoder.trainable = False
    assert not decoder.trainable_weights and encoder.layers[0].kernel.trainable


@each_rule
@pytest.mark.any_backend
def test_untie_refuses_it_and_says_what_a_rule_can_return_instead(rule, encoder):
    with pytest.raises(ka.NoRuleError, match="reads the variables of the source.* Have the rule return stock layers"):
        ka.untie(ka.autoencoder(encoder))


@keras.saving.register_keras_serializable(package="registered")
class Affine(Matrix):
    """x ↦ (x W) g + b."""

    def build(self, shape):
        super().build(shape)
        self.gain = self.add_weight(shape=(4,), initializer="ones", name="gain")
        self.shift = self.add_weight(shape=(4,), initializer="zeros", name="shift")

    def call(self, x):
        return super().call(x) * self.gain + self.shift


def by_numbers_of_today(source):
    kernel = ops.convert_to_numpy(source.kernel)
    return L.Lambda(lambda y: ops.matmul(y, kernel.T))


COPIES = {
    "all": (Matrix, by_numbers_of_today, "`kernel`"),
    "one": (Affine, lambda source: L.Lambda(lambda y: ops.matmul(y, ops.transpose(source.kernel))), "`gain`"),
}


@pytest.mark.parametrize("copies", COPIES)
def test_a_rule_that_copies_numbers_of_weights_is_refused_unless_a_copy_is_asked_for(copies, monkeypatch):
    layer_class, rule, names = COPIES[copies]
    monkeypatch.setitem(RULES, layer_class, rule)
    REGISTERED_BY_USERS.add(layer_class)
    try:
        layer = layer_class()
        layer.build((None, 6))
        with pytest.raises(ka.NoRuleError, match=f"does not follow {names} of its source"):
            ka.adjoint(layer)
        assert ka.check_adjoint(layer, ka.adjoint(layer, tied=False))
    finally:
        REGISTERED_BY_USERS.remove(layer_class)


PARTS = {"tied": lambda source: keras.Sequential([ka.adjoint(source.part)]), "kept": lambda source: L.Permute((2, 1))}


@pytest.mark.any_backend
def test_what_ties_itself_or_reads_nothing_stays_what_the_rule_returned(monkeypatch):
    class Around(L.Layer):
        def __init__(self):
            super().__init__()
            self.part = L.Dense(3, use_bias=False)

        def build(self, shape):
            self.part.build(shape)

        def call(self, x):
            return self.part(x)

        def get_config(self):
            return {}

        @classmethod
        def from_config(cls, config):
            return cls()

    class Turned(L.Permute):
        pass

    for layer_class, rule in ((Around, PARTS["tied"]), (Turned, PARTS["kept"])):
        monkeypatch.setitem(RULES, layer_class, rule)
        REGISTERED_BY_USERS.add(layer_class)
    try:
        around, turned = Around(), Turned((2, 1))
        around.build((None, 5))
        turned.build((None, 3, 2))
        assert isinstance(ka.adjoint(around), keras.Sequential) and type(ka.adjoint(turned)) is L.Permute
        copy = ka.adjoint(around, tied=False)
        assert not ka.is_tied(copy, around) and copy.count_params() == 15
        copy.trainable = False
        assert not copy.trainable_weights and around.part.kernel.trainable
    finally:
        REGISTERED_BY_USERS.difference_update((Around, Turned))
