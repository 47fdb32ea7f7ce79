"""The network: sizes, layers, initial values, and the flat buffer that holds all parameters."""

from gpumlp.network.embedded import Embedded
from gpumlp.network.embedding import Embedding
from gpumlp.network.initial import INITS
from gpumlp.network.layers import Layer, flatten, layout, pad, unflatten
from gpumlp.network.network import Network
from gpumlp.network.stack import Stack

__all__ = [
    "INITS",
    "Embedded",
    "Embedding",
    "Layer",
    "Network",
    "Stack",
    "flatten",
    "layout",
    "pad",
    "unflatten",
]
