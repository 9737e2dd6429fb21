"""Shared by all tests."""

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread_each():
    """Tests are small: more threads only wait for each other where cores are shared."""
    torch.set_num_threads(1)
