"""The kernel of a convolution with groups in a transposed convolution, which has none.

Its shape (*taps, I, O) has I channels per group, and a transposed convolution takes them for all that there are: what
should go to different groups is summed up, without an error.
"""

from keras_adjoint.doctor.finding import ERROR, Finding
from keras_adjoint.doctor.models.comparison import compare
from keras_adjoint.doctor.models.wrong_transposes import is_grouped

NAME = "groups lost"


def find(patient):
    """A finding for every transposed convolution with a grouped kernel."""
    for twins in patient.twins:
        if is_grouped(twins):
            first, second = twins.first, twins.second
            channels = first.read().shape[-2]
            comparison = compare(first, second)
            yield Finding(
                place=second.place,
                illness=NAME,
                severity=ERROR,
                what=f"it transposes with the `{first.name}` of `{first.place}`, which has {first.groups} groups",
                effect=(
                    f"it returns {channels} channels, the sum over the groups, where the adjoint returns "
                    f"{channels * first.groups}; given to every group, {comparison}"
                ),
                fix=(
                    f"put `keras_adjoint.adjoint` of `{first.place}` there (by hand: it has {first.groups} times the "
                    f"channels, so what follows has to change as well)"
                ),
                figures={
                    "channels": channels,
                    "channels_of_adjoint": channels * first.groups,
                    **comparison.figures(),
                },
            )
