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

    The listener does not change within a frame, so its part of the first layer is a bias. Unless
    it modulates, that layer's convolution of the latent serves all listeners at once.

    Args:
        latent: Channels of the latent.
        parameters: Numbers that describe a listener, P.
        size: Taps of the convolutions.
        modulated: Whether the listener also scales and shifts each channel of the latent and of
            every layer, beside joining the first one. Source: Perez et al. 2018 (FiLM).
    """

    def __init__(self, latent: int, parameters: int, size: int = 16, modulated: bool = False):
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
        modulations = [latent, *widths[1:]] if modulated else []
        self.modulations = nn.ModuleList(nn.Linear(steps[-1], 2 * width) for width in modulations)
        for parameter in self.modulations.parameters():
            nn.init.zeros_(parameter)

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
        embedded = self.embed(listener.transpose(1, 2)).transpose(1, 2)
        begun = self._modulate(latent.unsqueeze(1), embedded, 0)
        x = self._first_layer(begun, embedded)
        for place, layer in enumerate(self.layers[1:], 2):
            x = layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])
            x = self._modulate(x, embedded, place)
        return (begun + x)[..., crop:]

    def _first_layer(self, begun: Tensor, embedded: Tensor) -> Tensor:
        """From `(B, A or 1, latent, N)` and `(B or 1, A, 3 P)` to the first layer, `(B, A, …)`."""
        first = cast(CausalConv, self.layers[0])
        inputs = self.latent, first.conv.weight.shape[1] - self.latent
        on_latent, on_listener = first.conv.weight.split(inputs, dim=1)
        x = causal_convolution(begun.flatten(0, 1), on_latent, first.bias, stride=1)
        from_listener = torch.einsum("ze,bae->baz", on_listener.sum(-1), embedded)
        x = x.unflatten(0, begun.shape[:2]) + from_listener.unsqueeze(-1)
        return self._modulate(first.activation(x.flatten(0, 1)).view_as(x), embedded, 1)

    def _modulate(self, x: Tensor, embedded: Tensor, place: int) -> Tensor:
        """Channels `(B, A or 1, W, N)` scaled and shifted by the listener, if that is wanted."""
        if not self.modulations:
            return x
        scale, shift = self.modulations[place](embedded).unsqueeze(-1).chunk(2, -2)
        return x * (1 + scale) + shift
