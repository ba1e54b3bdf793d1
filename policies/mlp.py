"""Multilayer perceptrons differentiated by hand, in buffers that are made once.

For networks of a few hundred units on a CPU, autograd's bookkeeping and a new tensor for every
result cost a good part of what the arithmetic costs. Here C networks of one shape go through each
layer as one batched product, and each product writes where its result is needed: weight gradients
straight into ``Parameter.grad``.

Symbols: C networks, B batch; z_k = a_{k-1} W_k^T + b_k and a_k = f(z_k) for layers k = 1 … K, with
a_0 the input and z_K the output; d before a name is the gradient of the loss in it.
"""

from __future__ import annotations

from typing import Any

import torch as th
from torch import nn

Layers = list[tuple[th.Tensor, th.Tensor]]
"""Per layer a weight ``[C, out, in]`` and a bias ``[C, 1, out]``."""


class BatchedLinear(nn.Module):
    """C independent linear layers as one batched product, with torch's default initialisation.

    Maps ``[C, B, in_features]`` to ``[C, B, out_features]``.
    """

    def __init__(self, n: int, in_features: int, out_features: int):
        super().__init__()
        limit = in_features**-0.5
        self.weight = nn.Parameter(th.empty(n, out_features, in_features).uniform_(-limit, limit))
        self.bias = nn.Parameter(th.empty(n, 1, out_features).uniform_(-limit, limit))

    def forward(self, x: th.Tensor) -> th.Tensor:
        return th.baddbmm(self.bias, x, self.weight.mT)


def supported(net: nn.Module) -> bool:
    """Whether :class:`MLP` computes what `net` does: linear layers with GELU or ReLU between."""
    if not isinstance(net, nn.Sequential) or len(net) % 2 == 0:
        return False
    activations = list(net)[1::2]
    return all(
        type(layer) in (nn.Linear, BatchedLinear) and layer.bias is not None
        for layer in list(net)[::2]
    ) and (
        all(type(f) is nn.ReLU for f in activations)
        or all(type(f) is nn.GELU and f.approximate == "none" for f in activations)
    )


def _views(weight: th.Tensor, bias: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    weight = weight.detach().view(-1, *weight.shape[-2:])
    return weight, bias.detach().view(len(weight), 1, -1)


def layers(net: nn.Sequential) -> Layers:
    """Views of a network's parameters; C is 1 for ``nn.Linear``."""
    linear: list[Any] = list(net)[::2]
    return [_views(layer.weight, layer.bias) for layer in linear]


def gradients(net: nn.Sequential) -> Layers:
    """Views of the gradients of a network's parameters, which are made if missing."""
    for parameter in net.parameters():
        if parameter.grad is None:
            parameter.grad = th.zeros_like(parameter)
    linear: list[Any] = list(net)[::2]
    return [_views(layer.weight.grad, layer.bias.grad) for layer in linear]


class MLP:
    """Buffers for the forward and backward of C networks of one shape, at one batch size.

    A result lasts until the next call, and the backward is that of the latest :meth:`forward`.
    Nothing here is seen by autograd: call it where gradients are off.

    :param net: what :func:`supported` allows; only its shape is used
    :param batch_size: B
    """

    def __init__(self, net: nn.Sequential, batch_size: int):
        shape = layers(net)
        weight = shape[0][0]
        self.gelu = len(net) > 1 and isinstance(net[1], nn.GELU)
        sizes = [len(bias[0, 0]) for _, bias in shape]
        self.z = [weight.new_empty(len(weight), batch_size, size) for size in sizes]
        self.a = [th.empty_like(z) for z in self.z[:-1]]
        self.da = [th.empty_like(a) for a in self.a]

    def forward(self, net: Layers, x: th.Tensor) -> th.Tensor:
        """Outputs ``[C, B, out]`` for inputs ``[B, in]``."""
        a = self.x = x.expand(len(self.z[0]), -1, -1)
        for k, (weight, bias) in enumerate(net):
            th.baddbmm(bias, a, weight.mT, out=self.z[k])
            if k < len(self.a):
                a = self._activate(k)
        return self.z[-1]

    def backward(self, net: Layers, dy: th.Tensor, into: Layers) -> None:
        """Write the gradients of the parameters into `into`, given those of the outputs."""
        dz = dy
        for k in reversed(range(len(net))):
            d_weight, d_bias = into[k]
            th.bmm(dz.mT, self.a[k - 1] if k else self.x, out=d_weight)
            th.sum(dz, 1, keepdim=True, out=d_bias)
            if k:
                dz = self._through(net, k, dz)

    def backward_input(self, net: Layers, dy: th.Tensor, columns: slice) -> th.Tensor:
        """Gradients of some columns of the inputs, ``[C, B, columns]``; the parameters' are not
        computed."""
        dz = dy
        for k in reversed(range(1, len(net))):
            dz = self._through(net, k, dz)
        return th.bmm(dz, net[0][0][..., columns])

    def _activate(self, k: int) -> th.Tensor:
        if self.gelu:
            return th.ops.aten.gelu.out(self.z[k], out=self.a[k])
        return th.clamp_min(self.z[k], 0.0, out=self.a[k])

    def _through(self, net: Layers, k: int, dz: th.Tensor) -> th.Tensor:
        """dz_{k-1} from dz_k, through layer k's weight and the activation before it."""
        da, z = self.da[k - 1], self.z[k - 1]
        th.bmm(dz, net[k][0], out=da)
        if self.gelu:
            return th.ops.aten.gelu_backward.grad_input(da, z, grad_input=da)
        return th.ops.aten.threshold_backward.grad_input(da, z, 0.0, grad_input=da)
