"""The trilinear form ⟨A x, y⟩ of a convolution, from which the adjoint has its derivatives.

The form is linear in x, in the kernel K and in y. Its gradients are therefore bilinear in the two others:

    by y: A x, the forward;    by x: Aᵀ y, the adjoint;    by K: the gradient of the forward's kernel.

Each of these, contracted with a tensor of its own shape, is the form again. So the derivatives of each of the three are
the other two, to every order: no derivative of an adjoint costs more than what training the forward costs.
"""

from dataclasses import dataclass

from keras_adjoint.ops.algorithms.correlate import forward
from keras_adjoint.ops.algorithms.kernel_gradient import kernel_gradient
from keras_adjoint.ops.algorithms.problem import Algorithm
from keras_adjoint.ops.geometry import Convolution


@dataclass(frozen=True)
class Form:
    """⟨A x, y⟩; every method is the gradient by the argument that it is named after.

    Attributes:
        convolution: The geometry of A.
        algorithm: The way in which `x` computes Aᵀ y.
    """

    convolution: Convolution
    algorithm: Algorithm

    def x(self, kernel, y):
        """Aᵀ y."""
        return self.algorithm.apply(y, kernel, self.convolution)

    def y(self, x, kernel):
        """A x."""
        return forward(x, kernel, self.convolution)

    def kernel(self, x, y):
        """The gradient of the forward's kernel, for backends whose own is slow."""
        return kernel_gradient(x, y, self.convolution)

    def kernel_shape(self, x, y):
        """The shape of the kernel, `(*taps, channels / groups, filters)`."""
        return (*self.convolution.each("taps"), x.shape[-1] // self.convolution.groups, y.shape[-1])
