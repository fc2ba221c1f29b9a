"""Between host and device without waiting: whoever copies goes on, and waits only where a value is read.

An ordinary copy makes the host wait for everything that the device still has to do. In a step of a hundred
milliseconds a few of those cost a tenth.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


class Arrival:
    """A tensor on its way from its device."""

    def __init__(self, tensor: "torch.Tensor") -> None:
        import torch

        self._tensor = tensor.detach()
        self._event: Any = None
        if tensor.device.type == "cuda":
            on_host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            self._tensor = on_host.copy_(tensor.detach(), non_blocking=True)
            self._event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            self._event.record()

    def seconds_since(self, earlier: "Arrival") -> float | None:
        """The device's time between two arrivals, both waited for; None on a CPU."""
        if self._event is None or earlier._event is None:
            return None
        return float(earlier._event.elapsed_time(self._event)) / 1e3

    def wait(self) -> "torch.Tensor":
        """The values, on the host; waits for what computes them and for nothing that was queued later."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor.cpu()


def to_device(array: np.ndarray, device: "torch.device") -> "torch.Tensor":
    """The array as a tensor on `device`; on CUDA the copy is queued like any other work."""
    import torch

    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)
