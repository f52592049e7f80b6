"""The networks that a specification can name, all with one way of being called.

Each takes (B, 1, S, S) in [-1, 1] and gives lesion logits (B, 1, S, S), or None where it only classifies, and
class logits (B, 3). Each has its part that may start from ImageNet as the submodule ``encoder``.
"""

from sonoloop.models.networks.build import build_network, outline_network

__all__ = ["build_network", "outline_network"]
