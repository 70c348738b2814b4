"""What differs between backends, as a protocol that each backend's module implements."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

from keras_adjoint.ops import Size, Tensor
from keras_adjoint.ops.geometry import Convolution

Pads = Sequence[tuple[Size, Size]]
Adjoint = Callable[[Tensor, Tensor], Tensor]  # (y, kernel) ↦ Aᵀ y


class HostProduct(Protocol):
    """A linear function of NumPy arrays: rows of `inputs` numbers to as many rows of `outputs` numbers, in the same dtype."""

    inputs: int
    outputs: int

    def __call__(self, rows: Any) -> Any:
        """The function."""


class Form(Protocol):
    """What a backend needs to know of a bilinear form ⟨A x, y⟩ to differentiate its adjoint."""

    def __hash__(self) -> int:
        """Forms are parts of programs that are cached."""

    @property
    def convolution(self) -> Convolution:
        """The geometry of A."""

    @property
    def is_native(self) -> bool:
        """Whether the adjoint is the backend's own operation, which brings its derivatives along."""

    def prepare(self) -> Adjoint:
        """The function (y, kernel) ↦ Aᵀ y, with everything worked out that depends on sizes alone."""

    def x(self, y: Tensor, kernel: Tensor) -> Tensor:
        """The gradient by x: Aᵀ y."""

    def y(self, x: Tensor, kernel: Tensor) -> Tensor:
        """The gradient by y: A x."""

    def kernel(self, x: Tensor, y: Tensor) -> Tensor:
        """The gradient by the kernel of A, tap by tap."""

    def at(self, convolution: Convolution) -> "Form":
        """The form of another convolution with the same kind of kernel, by the same algorithm."""

    def kernel_shape(self, x: Tensor, y: Tensor) -> tuple[int, ...]:
        """The shape of the kernel."""


class Backend(Protocol):
    """The module of one backend, as `current()` returns it."""

    NAME: str
    """The backend in `cost_model.json`."""

    CANDIDATES: Mapping[str, Mapping[str, tuple[str, ...]]]
    """Names of the algorithms to choose from, for each precision and kind of convolution."""

    FOLDED_RANKS: tuple[int, ...]
    """Along how many axes `fold` adds up columns."""

    WRITES_COLUMNS: tuple[str, ...]
    """In which precisions the backend's own transposed convolution writes its columns to memory."""

    UNFOLDS_GROUPS: bool
    """Whether a grouped convolution writes to memory what each of its positions reads."""

    CHANNELS_AT_ONCE: int
    """How many channels dense convolutions compute together."""

    NATIVE_MARGIN: float
    """By which factor another algorithm has to be expected faster than the backend's own operation."""

    LONGEST_SUM_IN_HALF: float
    """How many numbers a convolution may sum over in half precision to be fast and, if it is strided, to be right."""

    SHIFTS_CONV_TRANSPOSE: bool
    """Whether this version of Keras shifts the output of some `Conv*Transpose` layers with "same" padding."""

    JIT_CALLS_HOST: bool
    """Whether what Keras compiles a model with can call the host."""

    DIVIDES_VARIABLES: bool
    """Whether `keras.distribution` divides variables among devices."""

    RECORDS_LOOPS: bool
    """Whether what traces a function keeps `keras.ops.while_loop` as a loop."""

    PROCESS_GROUPS: Mapping[Any, Any]
    """The groups of processes among which the backend may have divided variables behind Keras' back, as they are now."""

    def coarse_epsilon(self) -> float:
        """Machine epsilon of float32 products as the backend is set to compute them, 0 if they are exact to float32."""

    def average_pooling_edges(
        self, pad_before: Sequence[Size], pad_after: Sequence[Size]
    ) -> Literal["inside", "replicated"]:
        """What average pooling with "same" padding takes its means over at the edges.

        "inside" means over positions of the input alone, "replicated" also over copies of the edge.
        """

    def held_dtype(self, dtype: str) -> str:
        """The dtype that numbers of `dtype` have: JAX holds float64 in float32 unless it is set to do otherwise."""

    def device_of(self, tensor: Tensor) -> Literal["cpu", "gpu"]:
        """Where a tensor is computed with."""

    def signature(self, tensor: Tensor) -> Hashable:
        """What a plan for tensors of this shape, dtype and device is cached under.

        `None` where sizes are not plain integers, and while a compiler traces that keeps sizes free.
        """

    def compiled(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function as most users run it: compiled, or operation by operation without derivatives."""

    def in_one(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function without derivatives, compiled as a whole where each of its operations would be compiled otherwise."""

    def untraced(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, which a compiler without loops of unknown length leaves as it is."""

    def check_trained(self, variable: Any, layers: Sequence[Any]) -> None:
        """Raise a TieError if a variable of one of these layers, or of the model they are called in, is trained in vain."""

    def wait(self, tensor: Tensor) -> None:
        """Return when the tensor has been computed."""

    def eagerly(self) -> AbstractContextManager[Any]:
        """Within this, operations are computed at once, also where a compiler traces what is around it."""

    def is_concrete(self, tensors: Sequence[Tensor]) -> bool:
        """Whether tensors hold numbers now, rather than being traced, compiled or transformed."""

    def is_dense(self, tensor: Any) -> bool:
        """Whether a tensor has a number in every place, rather than being sparse or of rows of several lengths."""

    def variables_read(self, function: Callable[[], Sequence[Tensor]]) -> list[Any]:
        """The variables of the backend's own, behind those of Keras or others, that a function computes with.

        Of PyTorch's tensors these are the ones that have a gradient; the others are constants.
        """

    def convolving(self, operation: Any, xs: Sequence[Any]) -> AbstractContextManager[Any]:
        """A context in which a layer or operation convolves tensors right, whatever the backend has wrong."""

    def fixed_shape(self, tensor: Tensor) -> tuple[int, ...]:
        """The shape of a tensor whose sizes are the same in every call, such as a kernel, as integers in traces as well."""

    def known_size(self, size: Size) -> Size:
        """The integer behind a size that tracing has made a tensor of."""

    def static(self, sizes: Any) -> Any:
        """The same sizes, of which transformations such as `jax.checkpoint` make no tensors."""

    def sum_sequential(self, term: Callable[..., Tensor], operand: Tensor, rows: Sequence[tuple[Any, ...]]) -> Tensor:
        """The sum of `term(operand, *row)`, with few terms in memory at once."""

    def map_sequential(
        self, term: Callable[..., Tensor], operand: Tensor, rows: Sequence[tuple[Any, ...]]
    ) -> list[Tensor]:
        """A list of `term(operand, *row)`, none begun before the previous one is done."""

    def convolve(
        self, x: Tensor, kernel: Tensor, pads: Pads, strides: Sequence[int], dilation: Sequence[int]
    ) -> Tensor:
        """A convolution with explicit pads, grouped where the kernel has fewer input channels than `x`."""

    def can_transpose(self, convolution: Convolution, kind: str) -> bool:
        """Whether the backend has an operation for the adjoint of a convolution."""

    def transposed_convolution(self, convolution: Convolution) -> Adjoint:
        """The adjoint by the backend's own operation, as a function of y and the forward's kernel."""

    def fold(self, columns: Tensor, convolution: Convolution) -> Tensor:
        """Add up overlapping columns, given as `(batch, channels·taps, outputs)`."""

    def differentiable(self, form: Form) -> Adjoint:
        """The adjoint as a function of y and the kernel, differentiated as the form says."""

    def vjp(self, function: Callable[[Any], Any], x: Any, y: Any) -> Any:
        """The transpose of the derivative of `function` at `x`, applied to `y`; differentiable by whatever is involved.

        Either of them may be a list of tensors; `y` has the dtypes of what the function gives.
        """

    def linear_vjp(
        self, function: Callable[[list[Tensor]], list[Tensor]], zeros: list[Tensor], y: list[Tensor]
    ) -> list[Tensor]:
        """The same at zeros, of a function that is linear up to a constant; differentiable by y to every order.

        What the function computes with are variables: a backend may not see other tensors that it reads.
        """

    def custom_gradient(
        self,
        function: Callable[[Sequence[Tensor]], Tensor],
        gradient: Callable[[Sequence[Tensor], Tensor], list[Tensor]],
        operands: Sequence[Tensor],
    ) -> Tensor:
        """`function(operands)`, of which `gradient(operands, cotangent)` gives the cotangents of the operands.

        Operands are floats, and everything that has a derivative is one of them. The function is not differentiated; the
        gradient is wherever it is asked for.
        """

    def linear_on_host(self, product: HostProduct, transposed: HostProduct, rows: Tensor) -> Tensor:
        """A linear function on the host, whose derivative is its transpose, also while a compiler traces.

        Args:
            product: The function. It is told from others by its identity.
            transposed: Its transpose.
            rows: Tensor of shape `(batch, product.inputs)`.

        Returns:
            Tensor of shape `(batch, product.outputs)` and the same dtype.
        """
