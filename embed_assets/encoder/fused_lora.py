"""Linear layers that read the same input, and their LoRA adapters, as one matrix.

    M = [[W, sB],      (outputs + low, inputs + low)
         [A,  0]]

`low` is the adapters' rank times the number of layers, B is block-diagonal. The adapter then rides in the inner
dimension of the two large matrix products, which costs a hundredth more arithmetic and no further pass over the
activations:

    forward    y  = [x | x A^T] @ M[:outputs]^T
    backward   dx = [dy | dy sB] @ M[:, :inputs]

The spare columns of x and dy are allocated with them. W is the base model's own storage where precisions agree. The
adapter's masters stay where they are, in float32; `refresh` rounds them into M. Hu et al. 2021 (arXiv 2106.09685).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALLEST_RANK = 16
"""Matrix units work on tiles of 16, kernels on powers of two: other ranks are filled up with zeros."""


class LinearGroup:
    """One such matrix, and the place where its adapters' gradients are gathered."""

    def __init__(self, linears: Sequence["nn.Module"], dtype: torch.dtype, *, block_diagonal: bool = False) -> None:
        bases: list[Any] = [getattr(linear, "base_layer", linear) for linear in linears]
        device = bases[0].weight.device
        self.outputs = sum(base.out_features for base in bases)
        self.inputs: int = bases[0].in_features
        self.rank = adapter_rank(linears[0])
        self.low_each = max(SMALLEST_RANK, 1 << (self.rank - 1).bit_length()) if self.rank else 0
        self.low = self.low_each * len(bases)
        matrix = torch.zeros(self.outputs + self.low, self.inputs + self.low, dtype=dtype, device=device)
        biases = [base.bias for base in bases]
        self.bias = None if biases[0] is None else torch.cat([bias.detach() for bias in biases]).to(dtype)

        self.a = matrix[self.outputs :, : self.inputs]  # (low, inputs)
        self.b = matrix[: self.outputs, self.inputs :]  # (outputs, low)
        self.weight_t = matrix[: self.outputs, : self.inputs].T  # (inputs, outputs)
        self.forward_t = matrix[: self.outputs].T  # (inputs + low, outputs)
        self.backward = matrix[:, : self.inputs]  # (outputs + low, inputs)
        self.backward_wide = matrix[: self.outputs]  # (outputs, inputs + low)
        self.parameters: list[Tensor] = []
        self.masters: list[tuple[Tensor, Tensor, float]] = []
        """(adapter parameter, its place in the matrix, factor)"""
        self.gathered: list[tuple[Tensor, float]] = []
        """(gradient, factor), in the order of `parameters`"""
        wide = torch.promote_types(dtype, torch.float32)
        self.grad_a = torch.zeros(self.low, self.inputs, dtype=wide, device=device)
        columns = self.low_each if block_diagonal else self.low
        self.grad_b = torch.zeros(self.outputs, columns, dtype=wide, device=device)
        start = 0
        for index, (linear, base) in enumerate(zip(linears, bases, strict=True)):
            rows = slice(start, start + base.out_features)
            start += base.out_features
            place = matrix[rows, : self.inputs]
            place.copy_(base.weight.detach())
            if base.weight.dtype == dtype:
                base.weight.data = place  # one copy in memory; `released` undoes it
            if self.rank:
                self._add_adapter(linear, rows, index, matrix, block_diagonal=block_diagonal)

    def _add_adapter(self, linear: Any, rows: slice, index: int, matrix: "Tensor", *, block_diagonal: bool) -> None:
        name = linear.active_adapters[0]
        factor = float(linear.scaling[name])
        a, b = linear.lora_A[name].weight, linear.lora_B[name].weight
        low = slice(index * self.low_each, index * self.low_each + self.rank)
        here = slice(0, self.rank) if block_diagonal else low
        self.parameters += [a, b]
        self.masters += [
            (a, matrix[self.outputs :, : self.inputs][low], 1.0),
            (b, matrix[rows, self.inputs :][:, low], factor),
        ]
        self.gathered += [(self.grad_a[low], 1.0), (self.grad_b[rows, here], factor)]

    def lower(self, x_: "Tensor") -> "Tensor":
        """Fills the spare columns of x (tokens, inputs + low) with x A^T, and returns them."""
        low = x_[:, self.inputs :]
        if self.low:
            torch.mm(x_[:, : self.inputs], self.a.T, out=low)
        return low

    def of_lowered(self, x: "Tensor", out: "Tensor | None" = None) -> "Tensor":
        """(tokens, inputs + low), already lowered -> (tokens, outputs)."""
        if self.bias is None:
            return torch.mm(x, self.forward_t, out=out)
        return torch.addmm(self.bias, x, self.forward_t, out=out)

    def grad_input(self, grad: "Tensor") -> tuple["Tensor", "Tensor"]:  # (tokens, inputs), (tokens, low)
        """dx, and dy sB, of dy (tokens, outputs) without spare columns.

        For layers with many outputs: dy sB rides in the columns of the large product, which reads dy anyway, and what the
        adapter adds to dx is a small product over few inputs. With `grad_low` dy is read twice.
        """
        joined = grad @ self.backward_wide
        grad_x, low = joined[:, : self.inputs], joined[:, self.inputs :]
        if self.low:
            grad_x.addmm_(low, self.a)
        return grad_x, low

    def grad_low(self, grad_: "Tensor") -> "Tensor":
        """Fills the spare columns of dy (tokens, outputs + low) with dy sB, and returns them."""
        low = grad_[:, self.outputs :]
        torch.mm(grad_[:, : self.outputs], self.b, out=low)
        return low


def adapter_rank(linear: Any) -> int:
    """Rank of the layer's one active adapter; 0 when it has none."""
    if not hasattr(linear, "lora_A"):
        return 0
    names = [name for name in linear.active_adapters if name in linear.lora_A]
    return int(linear.r[names[0]]) if names else 0


def adapter_problem(linears: Sequence[Any]) -> str | None:
    """Why these layers' adapters cannot ride along; None when they can."""
    ranks = {adapter_rank(linear) for linear in linears}
    if len(ranks) > 1:
        return f"the layers' adapters have different ranks ({', '.join(map(str, sorted(ranks)))})"
    for linear in linears:
        if not hasattr(linear, "lora_A"):
            continue
        if linear.merged or linear.disable_adapters or len(linear.active_adapters) != 1:
            return "an adapter is merged, disabled, or not the only one"
        name = linear.active_adapters[0]
        if linear.use_dora.get(name) or getattr(linear, "lora_bias", {}).get(name):
            return "DoRA and adapters with a bias are not supported"
        if getattr(linear.lora_dropout[name], "p", 0.0) and linear.training:
            return "the adapter has dropout"
        wide = (torch.float32, torch.float64)
        if linear.lora_A[name].weight.dtype not in wide or linear.lora_B[name].weight.dtype not in wide:
            return f"the adapter's weights are {linear.lora_A[name].weight.dtype}; its masters must be float32"
    return None


class Adapters:
    """All groups' adapters: masters into the matrices, gathered gradients out, each in one kernel."""

    def __init__(self, groups: Sequence[LinearGroup], copies: Any) -> None:
        self.parameters = [parameter for group in groups for parameter in group.parameters]
        if not self.parameters:
            return
        self._sizes = [parameter.numel() for parameter in self.parameters]
        gathered = [entry for group in groups for entry in group.gathered]
        layout = gathered[0][0].new_empty(sum(self._sizes))
        aims = [part.view(p.shape) for part, p in zip(layout.split(self._sizes), self.parameters, strict=True)]
        moves = [(source, aim, factor) for (source, factor), aim in zip(gathered, aims, strict=True)]
        self._gather = copies(moves, layout)
        self._refresh = copies([master for group in groups for master in group.masters])

    def refresh(self) -> None:
        """Rounds the masters into the matrices."""
        if self.parameters:
            with torch.no_grad():
                self._refresh.run()

    def gradients(self) -> list["Tensor"]:
        """The gathered gradients in fresh memory, one per parameter, each of its parameter's shape."""
        wide = torch.promote_types(self.parameters[0].dtype, torch.float32)
        flat = torch.empty(sum(self._sizes), dtype=wide, device=self.parameters[0].device)
        self._gather.run(flat)
        return [part.view(p.shape) for part, p in zip(flat.split(self._sizes), self.parameters, strict=True)]
