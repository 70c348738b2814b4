"""How much of a kernel a picture shows, in words."""

import numpy as np

from keras_adjoint.plots.tiles import filters_in_rows


def counted(shown, there, noun):
    return f"{there if shown == there else f'{shown} of {there}'} {noun}{'' if there == 1 else 's'}"


def extent(kernel):
    """What of a `Kernel` its picture shows, and what in it is no number."""
    missing = int(np.sum(~np.isfinite(kernel.values)))
    return shown(kernel) + (
        f" · {missing:,} {'value is' if missing == 1 else 'values are'} not finite" if missing else ""
    )


def shown(kernel):
    *_, inputs, filters = kernel.values.shape
    single = 1 in (inputs, filters)
    inputs, filters = counted(inputs, kernel.inputs, "input channel"), counted(filters, kernel.filters, "filter")
    if kernel.colours is not None:
        return f"{filters}, in the colours that they see" if kernel.colours == -2 else f"{inputs}, {filters} as colours"
    rows, columns = (filters, inputs) if filters_in_rows(kernel.values) else (inputs, filters)
    parts = [filters, inputs] if single else [f"{rows} downwards", f"{columns} across"]
    if kernel.all_groups > 1:
        parts.append(counted(kernel.groups, kernel.all_groups, "group"))
    return " · ".join(parts)
