"""LoRA layers with a hand-written backward pass, for devices without the fused path.

y = x W' + b + s (x A') B', W and b frozen. PEFT's own layer makes a dozen small operations of this and keeps
intermediate results that nobody needs; here each direction is one large and a few thin matrix products. The weights
stay PEFT's, so that saving and merging do not change. With bfloat16 the large products run twice as fast on CPUs
that have them (AVX512-BF16, AMX); sums, norms, the adapter and its gradients stay in float32.
"""

from typing import TYPE_CHECKING, Any

from embed_assets.training.adapter import NAME

if TYPE_CHECKING:
    import torch


def speed_up_adapter(model: "torch.nn.Module", *, bfloat16: bool = False) -> int:
    """Replaces the forward pass of every LoRA layer of `model`, in place; returns how many there were."""
    from peft.tuners.lora import Linear

    layers = [module for module in model.modules() if isinstance(module, Linear)]
    for layer in layers:
        layer.forward = _forward_of(layer, bfloat16)
    return len(layers)


def has_fast_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 natively; without that it is eight times slower than float32."""
    import torch

    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _forward_of(layer: Any, bfloat16: bool) -> Any:
    import torch

    base, a, b = layer.get_base_layer(), layer.lora_A[NAME].weight, layer.lora_B[NAME].weight
    scale = float(layer.scaling[NAME])
    weight = base.weight.detach().to(torch.bfloat16) if bfloat16 else base.weight.detach()
    bias = None if base.bias is None else base.bias.detach()
    function = _function()

    def forward(x: "torch.Tensor") -> "torch.Tensor":  # (..., in) -> (..., out)
        flat = x.reshape(-1, x.shape[-1])
        if not torch.is_grad_enabled():
            y: torch.Tensor = _product(flat, weight, bias)[0]
            y.addmm_(flat @ a.t(), b.t(), alpha=scale)
        else:
            y = function.apply(flat, weight, bias, a, b, scale)
        return y.view(*x.shape[:-1], -1)

    return forward


def _product(
    x: "torch.Tensor", weight: "torch.Tensor", bias: "torch.Tensor | None"
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """x W' + b in x's type, and x in the type it was multiplied in."""
    import torch

    if x.dtype == weight.dtype:
        return torch.nn.functional.linear(x, weight, bias), x
    low = x.to(weight.dtype)
    y = torch.mm(low, weight.t()).to(x.dtype)
    return (y if bias is None else y.add_(bias)), low


def _function() -> Any:
    import torch

    class LoraLinear(torch.autograd.Function):
        """Shapes: x (tokens, in), weight (out, in), a (rank, in), b (out, rank)."""

        @staticmethod
        def forward(ctx: Any, x: Any, weight: Any, bias: Any, a: Any, b: Any, scale: float) -> Any:
            y, low = _product(x, weight, bias)
            down = x @ a.t()  # (tokens, rank)
            y.addmm_(down, b.t(), alpha=scale)
            ctx.save_for_backward(low, weight, a, b, down)
            ctx.scale = scale
            return y

        @staticmethod
        def backward(ctx: Any, *gradients: Any) -> Any:
            low, weight, a, b, down = ctx.saved_tensors
            (gradient,) = gradients  # (tokens, out)
            up = (gradient @ b).mul_(ctx.scale)  # (tokens, rank)
            # (rank, tokens) times (tokens, out): the other way round the product is twice as slow.
            grad_b = (down.t() @ gradient).mul_(ctx.scale).t()  # (out, rank)
            grad_a = up.t() @ low.to(up.dtype)  # (rank, in)
            grad_x = None
            if ctx.needs_input_grad[0]:
                grad_x = torch.mm(gradient.to(weight.dtype), weight).to(gradient.dtype)
                grad_x.addmm_(up, a)
            return grad_x, None, None, grad_a, grad_b, None

    return LoraLinear
