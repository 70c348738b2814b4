"""The way back through an encoder that has gaps in it: layers with neither an adjoint nor a policy."""

import keras

from keras_adjoint.models.mirror import MirrorBackwardPass


class BackwardPassOverGaps(MirrorBackwardPass):
    """A mirror's way back that goes on with new tensors behind a call that cannot be undone, and takes notes.

    No model can be made of it if it met any gap.

    Args:
        *arguments: See `MirrorBackwardPass`.
        **options: See `MirrorBackwardPass`.

    Attributes:
        errors: Why a call cannot be undone, by call.
        passed: The calls behind which everything is as before, because the policy put nothing in their place.
        returned: For each call, which was reached, whether something goes back to each of its inputs.
    """

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.errors, self.passed, self.returned = {}, set(), {}

    def carry_back(self, call, backs):
        try:
            given = super().carry_back(call, backs)
        except Exception as error:
            self.errors[call] = error
            given = [keras.KerasTensor(x.shape, x.dtype) for x in call.inputs]
        if any(back is after for back in given for after in backs if after is not None):
            self.passed.add(call)
        self.returned[call] = tuple(back is not None for back in given)
        return given
