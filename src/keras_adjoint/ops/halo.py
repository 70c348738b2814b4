"""One axis of a convolution divided among devices: what each computes, and the halo that it reads of others, in integers.

Of `devices` devices, number k holds the shards x[k·n', (k+1)·n') and y[k·m', (k+1)·m'), where n' and m' are the sizes divided
by the number of devices and rounded up. Each device reads as many positions before and after its shard as the one that reads
most, so that all do the same; where n' ≠ s·m', each reads k·(n' − s·m') positions earlier or later.
"""

from dataclasses import dataclass
from functools import cached_property

from keras_adjoint.ops.geometry import Axis


@dataclass(frozen=True)
class Divided:
    """An `Axis` of known sizes that is divided among so many devices."""

    axis: Axis
    devices: int

    @cached_property
    def inputs(self) -> int:
        """n', positions of x on each device."""
        return int(-(-self.axis.size // self.devices))

    @cached_property
    def outputs(self) -> int:
        """m', positions of y on each device."""
        return int(-(-self.axis.outputs // self.devices))

    @cached_property
    def drift(self) -> int:
        """By how many positions of x the shards of x run ahead of those of y, from one device to the next."""
        return self.inputs - self.axis.stride * self.outputs

    @cached_property
    def halo_of_x(self) -> tuple[int, int]:
        """Positions of x that the forward reads (before, after) the shard of a device, on those that read most."""
        axis, bounds = self.axis, []
        for device in range(self.devices):
            first, last = device * self.outputs, min((device + 1) * self.outputs, axis.outputs) - 1
            if first <= last:
                reads = (
                    first * axis.stride - axis.pad_before,
                    last * axis.stride - axis.pad_before + axis.dilated_taps - 1,
                )
                bounds.append(
                    (device * self.inputs - max(reads[0], 0), min(reads[1], axis.size - 1) - self._end(device))
                )
        return _largest(bounds)

    @cached_property
    def halo_of_y(self) -> tuple[int, int]:
        """Positions of y that the adjoint reads (before, after) the shard of a device, on those that read most."""
        axis, bounds = self.axis, []
        for device in range(self.devices):
            first, last = device * self.inputs, min((device + 1) * self.inputs, axis.size) - 1
            if first <= last:
                start = -((axis.dilated_taps - 1 - first - axis.pad_before) // axis.stride)
                stop = (last + axis.pad_before) // axis.stride
                end = (device + 1) * self.outputs - 1
                bounds.append((device * self.outputs - max(start, 0), min(stop, axis.outputs - 1) - end))
        return _largest(bounds)

    def _end(self, device: int) -> int:
        return (device + 1) * self.inputs - 1

    # --- the forward, and the gradient of the kernel

    @property
    def valid(self) -> Axis:
        """The convolution of each device, from what all its outputs read."""
        axis = self.axis
        size = (self.outputs - 1) * axis.stride + axis.dilated_taps
        return Axis(size, self.outputs, axis.taps, axis.stride, axis.dilation)

    @property
    def first_read(self) -> int:
        """Where in its shard of x, with the halo, device 0 begins to read; the next one does so `drift` positions earlier."""
        return self.halo_of_x[0] - int(self.axis.pad_before)

    # --- the adjoint

    @property
    def spread(self) -> int:
        """How many positions the devices' results are apart, from the first to the last device."""
        return abs(self.drift) * (self.devices - 1)

    @property
    def adjoint(self) -> Axis:
        """The convolution whose adjoint a device applies to its shard of y with the halo; it gives `spread` positions more."""
        axis, (before, after) = self.axis, self.halo_of_y
        pad_before = axis.pad_before + before * axis.stride + min(0, self.drift * (self.devices - 1))
        outputs = before + self.outputs + after
        return Axis(self.inputs + self.spread, outputs, axis.taps, axis.stride, axis.dilation, pad_before)

    @property
    def first_result(self) -> int:
        """Where in that the shard of device 0 begins; that of the next one does so `drift` positions later."""
        return max(0, -self.drift * (self.devices - 1))


def _largest(bounds: list[tuple[int, int]]) -> tuple[int, int]:
    befores, afters = zip(*bounds, strict=True)
    return max(0, *befores), max(0, *afters)
