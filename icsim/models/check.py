"""Whether a module can stand where a response model does, and what is wrong if it cannot."""

import dataclasses
from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from icsim.clock import Clock
from icsim.loss import Responder
from icsim.sound import calibrate

LEVELS_DB_SPL = (0.0, 40.0, 65.0, 100.0)
"""At which a response must be finite [dB SPL]."""

TOLERANCE = 1e-4
"""Largest difference of log-probabilities that counts as none."""


@dataclasses.dataclass(frozen=True)
class Finding:
    """One property that `ResponseLoss` and its users rely on."""

    name: str
    holds: bool
    remark: str
    """What was seen, and what to do about it if it does not hold."""


def check_model(
    model: nn.Module, parameters: int, clock: Clock | None = None, bins: int = 40
) -> list[Finding]:
    """Try a module with `respond(sound (B, T), theta (B or 1, P)) -> (B, C, K, N)`.

    Args:
        model: What is to stand in `ResponseLoss`; it is left as it was.
        parameters: Numbers of θ that it takes, P.
        clock: Of its sounds and bins; the published one if not given.
        bins: Length of the sounds that it is tried on.

    Returns:
        Everything that was tried, in the order tried; after one that makes the others meaningless
        no more.

    >>> from icsim.models.response import ResponseModel, beta_icnet
    >>> from icsim.models.encoders import SincNetConfig
    >>> sizes = SincNetConfig(filters=4, kernels=4, size=4, bottleneck=4)
    >>> model = ResponseModel(beta_icnet(2, 3, 2, sizes))
    >>> all(finding.holds for finding in check_model(model, parameters=2))
    True
    """
    clock = clock or Clock()
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, bins * clock.bin_samples, generator=generator)
    sound, theta = calibrate(noise, 60.0), torch.full((2, parameters), 0.5)
    training = model.training
    model.eval()
    try:
        return _checks(cast(Responder, model), sound, theta, clock)
    finally:
        model.train(training)


def require_model(model: nn.Module, parameters: int, clock: Clock | None = None) -> None:
    """Raise a ValueError that lists everything that `check_model` finds wrong.

    Args:
        model: See `check_model`.
        parameters: See there.
        clock: See there.
    """
    wrong = [f for f in check_model(model, parameters, clock) if not f.holds]
    if wrong:
        listed = "; ".join(f"{finding.name}: {finding.remark}" for finding in wrong)
        raise ValueError(f"{type(model).__name__} is no response model: {listed}")


def _checks(model: Responder, sound: Tensor, theta: Tensor, clock: Clock) -> list[Finding]:
    findings: list[Finding] = []

    def note(name: str, holds: bool, remark: str) -> bool:
        findings.append(Finding(name, bool(holds), remark))
        return bool(holds)

    bins = sound.shape[-1] // clock.bin_samples
    try:
        with torch.no_grad():
            response = model.respond(sound, theta)
    except Exception as error:
        note("respond", False, f"respond(sound, theta) raises {error!r}; give it that method")
        return findings
    shape = tuple(response.shape)
    if not note(
        "shape",
        response.ndim == 4 and len(response) == 2 and shape[-1] == bins,
        f"{shape} for {tuple(sound.shape)}; (B, C, K, N) with N = {bins} is wanted",
    ):
        return findings
    off = (response.double().exp().sum(2) - 1).abs().max().item()
    note("distribution", off < 1e-3, f"probabilities of a bin add up to 1 within {off:.1e}")
    _check_causality(model, sound, theta, response, clock, note)
    _check_gradients(model, sound, theta, note)
    with torch.no_grad():
        one = model.respond(sound[:1], theta[:1])
        apart = (one - response[:1]).abs().max().item()
        note("batch", apart < TOLERANCE, f"a sound alone differs from one of two by {apart:.1e}")
        shared = (model.respond(sound, theta[:1]) - response).abs().max().item()
        note("one listener", shared < TOLERANCE, f"θ (1, P) for all sounds differs by {shared:.1e}")
        again = (model.respond(sound, theta) - response).abs().max().item()
        note("repeatable", again == 0, f"asked again it differs by {again:.1e}")
        for level in LEVELS_DB_SPL:
            loud = model.respond(calibrate(sound, level), theta)
            note(f"{level:g} dB SPL", bool(loud.isfinite().all()), "the response is finite")
        silence = model.respond(torch.zeros_like(sound), theta)
        note("silence", bool(silence.isfinite().all()), "the response is finite")
    return findings


def _check_causality(
    model: Responder,
    sound: Tensor,
    theta: Tensor,
    response: Tensor,
    clock: Clock,
    note: Callable[[str, bool, str], bool],
) -> None:
    half = response.shape[-1] // 2
    changed = sound.clone()
    changed[:, half * clock.bin_samples :] = sound.flip(-1)[:, half * clock.bin_samples :]
    with torch.no_grad():
        other = model.respond(changed, theta)
    early = (other[..., :half] - response[..., :half]).abs().max().item()
    late = (other[..., half:] - response[..., half:]).abs().max().item()
    note("causal", early < TOLERANCE, f"the future changes earlier bins by {early:.1e}")
    note("listens", late > 0, f"another sound changes later bins by {late:.1e}")


def _check_gradients(
    model: Responder, sound: Tensor, theta: Tensor, note: Callable[[str, bool, str], bool]
) -> None:
    sound, theta = sound.clone().requires_grad_(), theta.clone().requires_grad_()
    response = model.respond(sound, theta)
    if not note(
        "differentiable",
        response.requires_grad,
        "gradients flow from the response; compute it without no_grad and detach",
    ):
        return
    summed = response[:, :, 0].square().sum()
    gradients = torch.autograd.grad(summed, (sound, theta), allow_unused=True)
    for name, gradient in zip(("sound", "theta"), gradients, strict=True):
        there = gradient is not None and bool(gradient.isfinite().all()) and bool(gradient.any())
        note(f"gradient of {name}", there, "it is finite, and not zero throughout")
