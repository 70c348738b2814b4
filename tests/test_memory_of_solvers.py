"""What solvers keep for a derivative: with implicit gradients no more for many steps than for few."""

import numpy as np
import pytest
from keras import layers, ops

import keras_adjoint as ka

STEPS = (2, 40)  # all of which are taken, as nothing converges to a tolerance of zero
LEAST_SQUARES = {
    gradient: lambda layer, steps, gradient=gradient: ka.LeastSquares(
        layer, ridge=0.1, tolerance=1e-30, max_steps=steps, gradient=gradient
    )
    for gradient in ("implicit", "unrolled")
}
SOLVERS = {  # and whether it keeps something of every step
    "LeastSquares": (LEAST_SQUARES["implicit"], False),
    "unrolled LeastSquares": (LEAST_SQUARES["unrolled"], True),
    "fixed point": (
        lambda layer, steps: ka.unroll(layer, weight=0.1, fixed_point=True, tolerance=1e-30, max_steps=steps),
        False,
    ),
    "unroll": (lambda layer, steps: ka.unroll(layer, steps, weight=0.1), True),
}


@pytest.mark.only_on("torch")
@pytest.mark.parametrize("name", SOLVERS)
@pytest.mark.filterwarnings("ignore:.*(did not converge|were not solved)")
def test_what_is_kept_for_the_gradient_grows_with_the_steps_only_where_these_are_unrolled(name):
    make, grows = SOLVERS[name]
    few, many = (kept_for_gradient(make, steps) for steps in STEPS)
    assert few > 0
    assert many > 5 * few if grows else many == few


def kept_for_gradient(make, steps):
    """Bytes of the tensors that PyTorch keeps from a call for its gradient."""
    import torch

    layer = layers.Dense(20, use_bias=False)
    layer.build((None, 30))
    solver = make(layer, steps)
    y = ops.convert_to_tensor(np.random.default_rng(0).random((4, 20), "float32"))
    kept = []

    def keep(tensor):
        kept.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        found = ops.sum(ops.square(solver(y)))
    (gradient,) = torch.autograd.grad(found, [layer.kernel.value])
    assert gradient.abs().sum() > 0
    return sum(kept)
