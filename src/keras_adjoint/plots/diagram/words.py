"""What stands on a rung, in words."""

from dataclasses import dataclass

from keras_adjoint.models.decisions import BROKEN, COPIED, EXACT, NOTHING, TIED, UNREACHED

HOW = {NOTHING: "nothing", UNREACHED: "nothing comes back", BROKEN: "no way back"}
SHARED = {TIED: "tied", COPIED: "a copy"}


@dataclass(frozen=True)
class Words:
    """A rung in words.

    Attributes:
        name: The encoder's layer.
        type: Its type.
        into: The sizes of its inputs.
        out: The sizes of its outputs.
        kernel: The shape of the kernel that is shared, or "".
        mirror: The type of what undoes it, or "".
        how: Whether that is exact, and what was decided.
        changes_size: Whether the sizes before and behind it differ.
    """

    name: str
    type: str
    into: str
    out: str
    kernel: str
    mirror: str
    how: str
    changes_size: bool

    @property
    def sentence(self):
        """All of it, for those who do not see the picture."""
        kernel = f" with a kernel of {self.kernel}," if self.kernel else ""
        beside = f"{self.mirror}, {self.how}" if self.mirror else self.how
        return f"{self.name}, {self.type},{kernel} from {self.into} to {self.out}; beside it {beside}"


def words_of(rung):
    operation, main = rung.call.operation, rung.main
    kernel = biggest(main.source.weights) if rung.shared else None
    return Words(
        name=operation.name,
        type=type(operation).__name__,
        into=all_sizes(rung.call.inputs),
        out=all_sizes(rung.call.outputs),
        kernel=by(kernel.shape) if kernel is not None else "",
        mirror="" if rung.how in HOW else type(operation if main is None else main).__name__,
        how=how(rung),
        changes_size=len({tuple(tensor.shape[1:]) for tensor in (*rung.call.inputs, *rung.call.outputs)}) > 1,
    )


def how(rung):
    """Whether it is exact, and what was decided."""
    policies = {policy: named(choice) for policy, choice in rung.decided.items()}
    if rung.how in HOW:
        return HOW[rung.how] + (f" ({listed(policies, ': ')})" if policies else "")
    bias = getattr(rung.main, "bias_mode", "none")
    if bias != "none":
        policies["bias"] = bias
    shared = [SHARED[rung.shared]] if rung.shared else []
    if rung.how == EXACT:
        return ", ".join(["exact", *shared]) + (f"; {listed(policies, ' ')}" if policies else "")
    return ", ".join([listed(policies, ": "), *shared])


def listed(policies, between):
    return ", ".join(f"{policy}{between}{choice}" for policy, choice in policies.items())


def named(choice):
    """A choice as a word, also where it is a function or a layer."""
    return choice if isinstance(choice, str) else getattr(choice, "__name__", type(choice).__name__)


def biggest(variables):
    return max(variables, key=lambda variable: len(variable.shape))


def all_sizes(tensors):
    """Sizes of tensors without the batch axis."""
    sizes = [by(tensor.shape[1:]) or "one number" for tensor in tensors]
    return f"{len(sizes)} of {sizes[0]}" if len(sizes) > 1 and len(set(sizes)) == 1 else " + ".join(sizes)


def by(sizes):
    """Sizes as people write them."""
    return "×".join("?" if size is None else str(size) for size in sizes)
