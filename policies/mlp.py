"""Multilayer perceptrons differentiated by hand: functions of tensors that keep nothing.

For networks of a few hundred units autograd's bookkeeping costs a good part of what the arithmetic
costs, and what is written without it can be compiled as a whole. C networks of one shape go
through each layer as one batched product.

Symbols: C networks, B batch; z_k = a_{k-1} W_k + b_k and a_k = f(z_k) for layers k = 1 … K, with
a_0 the input and z_K the output; d before a name is the gradient of the loss in it.
"""

from __future__ import annotations

from typing import NamedTuple

import torch as th
from torch import nn
from torch.nn import functional as F

aten = th.ops.aten

# f(z), and dz of da, z and a = f(z), written where da is: one pass over memory less
ACTIVATIONS = {
    nn.GELU: (F.gelu, lambda da, z, a: aten.gelu_backward.grad_input(da, z, grad_input=da)),
    nn.ReLU: (
        F.relu,
        lambda da, z, a: aten.threshold_backward.grad_input(da, a, 0.0, grad_input=da),
    ),
    nn.SiLU: (F.silu, lambda da, z, a: aten.silu_backward.grad_input(da, z, grad_input=da)),
    nn.Tanh: (th.tanh, lambda da, z, a: aten.tanh_backward.grad_input(da, a, grad_input=da)),
}


class BatchedLinear(nn.Module):
    """C independent linear layers as one batched product, with torch's default initialisation.

    Maps ``[C, B, in_features]`` to ``[C, B, out_features]``.
    """

    def __init__(self, n: int, in_features: int, out_features: int):
        super().__init__()
        limit = in_features**-0.5
        self.weight = nn.Parameter(th.empty(n, in_features, out_features).uniform_(-limit, limit))
        self.bias = nn.Parameter(th.empty(n, 1, out_features).uniform_(-limit, limit))

    def forward(self, x: th.Tensor) -> th.Tensor:
        return th.baddbmm(self.bias, x, self.weight)


class MLP(NamedTuple):
    """C networks of one shape; C is 1 where the layers are ``nn.Linear``."""

    parameters: list[th.Tensor]
    """W_1, b_1 … W_K, b_K as the modules hold them"""
    activation: type[nn.Module]


class Tape(NamedTuple):
    """What :func:`forward` computed on its way."""

    z: list[th.Tensor]
    """z_1 … z_K, each ``[C, B, size]``"""
    a: list[th.Tensor]
    """a_0 … a_{K-1}"""


def is_plain(net: nn.Module) -> bool:
    """Whether `net` is linear layers with biases and one of the activations between them."""
    if not isinstance(net, nn.Sequential) or len(net) % 2 == 0:
        return False
    linear, between = list(net)[::2], list(net)[1::2]
    return (
        all(type(f) in (nn.Linear, BatchedLinear) and f.bias is not None for f in linear)
        and all(type(f) in ACTIVATIONS and type(f) is type(between[0]) for f in between)
        and all(getattr(f, "approximate", "none") == "none" for f in between)
    )


def mlp(net: nn.Sequential) -> MLP:
    """A plain network as the functions below take it; it shares its parameters."""
    return MLP(list(net.parameters()), type(net[1]) if len(net) > 1 else nn.ReLU)


def forward(net: MLP, x: th.Tensor) -> tuple[th.Tensor, Tape]:
    """Outputs z_K ``[C, B, out]`` for inputs ``[B, in]``."""
    f, _ = ACTIVATIONS[net.activation]
    weights = [_batched(w) for w in net.parameters[::2]]
    z: list[th.Tensor] = []
    a = [x.expand(len(weights[0]), -1, -1)]
    for weight, bias in zip(weights, net.parameters[1::2], strict=True):
        if z:
            a.append(f(z[-1]))
        if weight.shape[2] < weight.shape[1]:  # BLAS is slow with few columns in rows
            weight = weight.mT.contiguous().mT
        z.append(th.baddbmm(bias.view(len(weight), 1, -1), a[-1], weight))
    return z[-1], Tape(z, a)


def backward(net: MLP, tape: Tape, dy: th.Tensor) -> list[th.Tensor]:
    """Gradients of the parameters, in their order and shapes, given dz_K."""
    gradients: list[th.Tensor] = []
    for k, dz in reversed(list(enumerate(_backwards(net, tape, dy)))):
        weight, bias = net.parameters[2 * k : 2 * k + 2]
        d_weight = _transposed_product(tape.a[k], dz)
        d_weight = d_weight[0].mT if weight.dim() == 2 else d_weight
        gradients += [dz.sum(1).view(bias.shape), d_weight.contiguous()]
    return gradients[::-1]


def backward_input(net: MLP, tape: Tape, dy: th.Tensor, first: int) -> th.Tensor:
    """Gradient of the inputs from column `first` on, ``[C, B, in - first]``, given dz_K."""
    weight = _batched(net.parameters[0])[:, first:]
    return th.bmm(_backwards(net, tape, dy)[0], weight.contiguous().mT)


def _backwards(net: MLP, tape: Tape, dy: th.Tensor) -> list[th.Tensor]:
    """dz_1 … dz_K."""
    _, df = ACTIVATIONS[net.activation]
    dz = [dy]
    for k in reversed(range(1, len(tape.z))):
        da = th.bmm(dz[0], _batched(net.parameters[2 * k]).mT)
        dz.insert(0, df(da, tape.z[k - 1], tape.a[k]))
    return dz


def _batched(weight: th.Tensor) -> th.Tensor:
    """A weight as ``[C, in, out]``; that of ``nn.Linear`` is ``[out, in]``."""
    return weight if weight.dim() == 3 else weight.mT.unsqueeze(0)


def _transposed_product(a: th.Tensor, dz: th.Tensor) -> th.Tensor:
    """a^T dz or the same as (dz^T a)^T: BLAS is quick with few rows, slow with few columns."""
    return th.bmm(a.mT, dz) if a.shape[2] <= dz.shape[2] else th.bmm(dz.mT, a).mT
