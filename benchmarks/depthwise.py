"""Time a training step with and without the gradient of the encoder's 5 x 5 depthwise kernels, in one run.

python benchmarks/depthwise.py [--encoder NAME] [--repeats N]
"""

from __future__ import annotations

import argparse
import time

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own abbreviation

from sonoloop.models.card import ModelSpec
from sonoloop.models.devices import autocast_dtype
from sonoloop.models.networks import build_network
from sonoloop_training.fit.fitting import freeze_depthwise


def main() -> None:
    """Print seconds a step, the fastest of each, and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--encoder", default=ModelSpec().encoder)
    parser.add_argument("--repeats", type=int, default=6)
    options = parser.parse_args()
    networks = [build_network(ModelSpec(encoder=options.encoder)).train() for _ in range(2)]
    freeze_depthwise(networks[1].get_submodule("encoder"))
    images = torch.rand(8, 1, 256, 256).to(memory_format=torch.channels_last)
    # alternately, so that whatever else the machine does falls on both
    times = [[step(network, images) for network in networks] for _ in range(options.repeats)]
    learned, frozen = (min(column) for column in zip(*times, strict=True))
    print(
        f"{options.encoder}: all learn {learned:.2f} s a step, frozen {frozen:.2f} s, {frozen / learned:.2f}"
    )


def step(network: torch.nn.Module, images: torch.Tensor) -> float:
    """Run one forward and backward pass and return its seconds."""
    dtype = autocast_dtype(torch.device("cpu"))
    start = time.perf_counter()
    with torch.autocast("cpu", dtype or torch.bfloat16, enabled=dtype is not None):
        lesion, _ = network(images)
    loss = F.binary_cross_entropy_with_logits(lesion.float(), (images > 0.5).float())
    torch.autograd.backward(loss)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
