"""An aid for one listener as a program that needs none of this code: `torch.export`.

>>> from compensation.masks import Masks, MasksConfig
>>> aid = Masks(MasksConfig(listener=2, bands=6, width=4, layers=1, window=128, hop=16))
>>> program = export(aid, torch.tensor([0.2, 0.7])).module()
>>> program(torch.zeros(1, 32), torch.tensor(1.0), torch.tensor(1.0)).shape
torch.Size([1, 32])
"""

import warnings

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from .aid import Aid

MOST_HOPS = 64
"""Longer blocks are not tried."""


class Device(nn.Module):
    """An aid that keeps its state in buffers: a block in, a block out.

    Args:
        aid: Masks or LearnedFilters.
        listener: θ or an audiogram in [0, 1], `(P,)`.

    Raises:
        ValueError: If the listener does not fit, or no block leaves the state in its shape.
    """

    def __init__(self, aid: Aid, listener: Tensor):
        super().__init__()
        self.aid = aid
        # With gradients on there are no compiled layers, which cannot be exported.
        with torch.enable_grad():
            state = aid.begin(listener[None])
        self.block_samples = _steady_block(aid, state)
        leaves, self._tree = tree_flatten(state)
        self._fixed = [None if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        for place, leaf in enumerate(leaves):
            if isinstance(leaf, Tensor):
                self.register_buffer(
                    f"state_{place}", leaf.detach().clone(memory_format=torch.contiguous_format)
                )

    def forward(self, block: Tensor, noise_reduction: Tensor, gain: Tensor) -> Tensor:
        """`(1, block_samples)` [Pa] to the same, `aid.latency_samples - hop` late.

        Args:
            block: Pressure [Pa].
            noise_reduction: Exponent of the noise mask, `()`.
            gain: Exponent of the compensating mask, `()`.
        """
        leaves = [
            getattr(self, f"state_{place}") if fixed is None else fixed
            for place, fixed in enumerate(self._fixed)
        ]
        state = tree_unflatten(leaves, self._tree)
        out, after = self.aid.step(block, state, noise_reduction, gain)
        for place, leaf in enumerate(tree_flatten(after)[0]):
            if self._fixed[place] is None and leaf is not leaves[place]:
                leaves[place].copy_(leaf)
        return out


def export(aid: Aid, listener: Tensor) -> torch.export.ExportedProgram:
    """The aid for a listener; `torch.export.save` writes it to a file, without the limiter.

    Args:
        aid: Masks or LearnedFilters.
        listener: θ or an audiogram in [0, 1], `(P,)`.

    Returns:
        A program with `block` `(1, n)`, `noise_reduction` `()` and `gain` `()`; its state is its
        own, so load one for each ear. `n` is the shortest block that leaves the aid as it was.
    """
    device = Device(aid.eval(), listener).requires_grad_(False)
    exponents = torch.tensor(1.0), torch.tensor(1.0)
    with warnings.catch_warnings():
        # Torch's own recurrent layers keep a list of their weights beside them.
        warnings.filterwarnings(
            "ignore", message="The tensor attributes? .* assigned during export"
        )
        example = torch.zeros(1, device.block_samples), *exponents
        return torch.export.export(device, example, strict=False)  # the default from 2.7 on


@torch.no_grad()
def _steady_block(aid: Aid, state: dict) -> int:
    """Samples of the shortest block after which the state has the shapes that it had before."""

    def shapes(state: dict) -> list:
        return [leaf.shape if isinstance(leaf, Tensor) else leaf for leaf in tree_flatten(state)[0]]

    for hops in range(1, MOST_HOPS + 1):
        samples = hops * aid.block_samples
        if shapes(aid.step(torch.zeros(1, samples), state)[1]) == shapes(state):
            return samples
    raise ValueError(f"no block of up to {MOST_HOPS} hops leaves the aid's state in its shape")
