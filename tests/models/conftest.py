"""A small real network, and bundles of it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sonoloop.models.bundle import Bundle, save_bundle
from sonoloop.models.card import Card, ModelSpec
from sonoloop.models.networks import build_network

SPEC = ModelSpec(
    encoder="tu-test_efficientnet", size=64, dropout=0.0, arguments={"decoder_channels": [32, 16, 8, 8, 4]}
)


@pytest.fixture(scope="session")
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return build_network(SPEC).eval()


@pytest.fixture
def card() -> Card:
    return Card(name="tiny", spec=SPEC)


@pytest.fixture
def bundle(tmp_path: Path, network: torch.nn.Module, card: Card) -> Bundle:
    return save_bundle(tmp_path / "tiny", network, card)
