"""Latent of a sound and numbers of a listener, brought together."""

import itertools
from typing import cast

import torch
from torch import Tensor, nn

from icsim.convolution import causal_convolution
from icsim.layers import CausalConv

LAYERS = 4
"""Layers of the fusion. Source: arXiv 2506.03088."""


class Fusion(nn.Module):
    """Latent and numbers of a listener to features of that listener's responses.

    Features are the latent and what the listener changes in it, little at the start: the network
    begins as one for all brains, and learns how they differ.

    The listener does not change within a frame, so its part of the first layer is a bias, and that
    layer's convolution of the latent serves all listeners at once.

    Args:
        latent: Channels of the latent.
        parameters: Numbers that describe a listener, P.
        size: Taps of the convolutions.
    """

    def __init__(self, latent: int, parameters: int, size: int = 16):
        super().__init__()
        even = torch.linspace(latent + 3 * parameters, latent, LAYERS + 1)
        widths = [round(width) for width in even.tolist()]
        steps = [parameters, parameters, 2 * parameters, 3 * parameters]
        self.embed = nn.Sequential(*(CausalConv(i, o, 1) for i, o in itertools.pairwise(steps)))
        layers = [CausalConv(i, o, size) for i, o in itertools.pairwise(widths)]
        with torch.no_grad():
            layers[-1].conv.weight.mul_(0.1)
        self.layers = nn.ModuleList(layers)
        self.latent, self.size = latent, size

    @property
    def receptive_bins(self) -> int:
        """Bins before a bin that its features can depend on."""
        return LAYERS * (self.size - 1)

    def forward(self, latent: Tensor, listener: Tensor, crop: int = 0) -> Tensor:
        """Features of every listener for every sound.

        Args:
            latent: `(B, latent, N)`.
            listener: `(B, A, P)`, or `(1, A, P)` for the same listeners throughout.
            crop: Bins left out at the start, whose context is incomplete.

        Returns:
            `(B, A, latent, N − crop)`.
        """
        sounds, listeners = len(latent), listener.shape[1]
        first = cast(CausalConv, self.layers[0])
        on_latent, on_listener = first.conv.weight.split(
            [self.latent, first.conv.weight.shape[1] - self.latent], dim=1
        )
        from_latent = causal_convolution(latent, on_latent, first.bias, stride=1)
        embedded = self.embed(listener.transpose(1, 2))
        from_listener = torch.einsum("ze,bea->baz", on_listener.sum(-1), embedded)
        x = from_latent.unsqueeze(1) + from_listener.unsqueeze(-1)
        x = first.activation(x.expand(sounds, -1, -1, -1).flatten(0, 1))
        for layer in self.layers[1:]:
            x = layer(x)
        changed = x.unflatten(0, (sounds, listeners))
        return (latent.unsqueeze(1) + changed)[..., crop:]
