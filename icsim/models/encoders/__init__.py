"""Encoders: sound to a latent that all listeners share."""

from .sincnet import SincNet, SincNetConfig

EncoderConfig = SincNetConfig
"""Configurations of all encoders, told apart by `kind`."""


def make_encoder(config: EncoderConfig, clock) -> SincNet:
    """An untrained encoder."""
    return SincNet(config, clock)
