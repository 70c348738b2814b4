"""The public API as a user calls it, for a type checker; a `type: ignore` marks a mistake that it has to find."""

from typing import assert_type

import keras
import numpy as np

import keras_adjoint as ka


def use_adjoints(conv: keras.layers.Conv2D, encoder: keras.Model) -> None:
    decode = ka.adjoint(
        conv, output_size=(27, 27), bias="own", channels=3, algorithm="native", tied=False, name="decode"
    )
    assert_type(ka.is_tied(decode, conv), bool)
    assert_type(ka.autotune(decode, (1, 14, 14, 8), seconds=0.1), dict[str, float])
    ka.autoencoder(encoder, activation="same", pooling="switches")
    ka.mirror(encoder, bias="none", tied=True)
    ka.untie(ka.clone_tied(encoder), to="conv")


def use_proof(conv: keras.layers.Conv2D) -> None:
    report = ka.check_adjoint(conv, trials=5)
    assert_type(report, ka.AdjointReport)
    assert_type(report.residual, float)
    assert_type(report.passed, bool)
    if not report:
        print(report.diagnosis.upper())


def use_certificates(model: keras.Model, logits: np.ndarray) -> None:
    certificate = ka.certify(model, input_norm=2, size=(28, 28))
    assert_type(certificate.bound, float)
    print(certificate.unknown[0].reason.upper(), certificate.radius(logits).mean())


def use_kernels(kernel: np.ndarray) -> None:
    ka.convert_layout(kernel, "OHWI", "HWIO")
    ka.transpose_kernel(kernel, "conv", layout="HWIO", groups=2)
    ka.adapt_channels(kernel, in_channels=1, method="average")
    ka.plot_kernels(keras.layers.Conv2D(4, 3)).savefig("kernels.png")


class Negate(keras.layers.Layer):  # type: ignore[misc]  # Keras has no types to derive from
    """A layer of the user's own."""


@ka.register_rule(Negate)
def negate(source: Negate) -> Negate:
    return Negate()


def catch() -> None:
    try:
        ka.adjoint(Negate())
    except ka.SizeError as error:
        assert_type(error, ka.SizeError)
    except ka.KerasAdjointError as error:
        print(str(error))


def mistakes(conv: keras.layers.Conv2D) -> None:
    ka.adjoint(conv, (27, 27))  # type: ignore[call-arg]
    ka.adjoint(conv, bias=0)  # type: ignore[arg-type]
    ka.adjoint(conv, lowering="native")  # type: ignore[call-arg]
    print(ka.check_adjoint(conv).no_such_attribute)  # type: ignore[attr-defined]
    ka.exporting(3)  # type: ignore[arg-type]
    ka.untie(conv, to=None)  # type: ignore[arg-type]
    ka.register_rule("Conv2D")  # type: ignore[arg-type]
