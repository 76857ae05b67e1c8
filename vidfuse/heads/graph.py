"""Heads that pass messages along a graph of frames or of regions; they need torch_geometric."""

from __future__ import annotations

import math
import warnings
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vidfuse.heads import frame_graph
from vidfuse.heads.base import Head, check_sizes, frame_vectors, masked_mean
from vidfuse.heads.layers import PositionEmbedding, Readout, read_out

Graph = Literal["chain", "neighbours", "regions"]
Direction = Literal["forward", "both"]


class _GraphHead(Head):
    """Nodes → LayerNorm → Linear (+ positions) → graph layers → read-out, beside a mean of frames.

    ==========  =============================  =================================================
    graph       nodes x_i                      edges (`frame_graph`)
    ==========  =============================  =================================================
    chain       frames [D·g·g]                 from each frame to the next
    neighbours  frames [D·g·g]                 those; and from the frames most like each
    regions     cells of all frames' maps [D]  from the cells around it a frame before; and from
                                               those beside it
    ==========  =============================  =================================================

    With direction=both, edges of time lead backwards too, with the same weights. `_Block` has what
    happens in a layer.

    Frames learn their order from the edges' direction, and `PositionEmbedding` can be added.
    Regions also hold a learned vector for their cell. The clips of a batch are one graph without
    edges in between.

    Shapes: features [B, T, D, g, g] → nodes [B, N, hidden], N = T or T·g² → read-out [B, hidden],
    beside the mean frame [B, D·g·g] → logits [B, C].

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid; 4 suits graph=regions.
        classes: Number of classes C.
        graph: The nodes and edges: a `chain` of frames, the chain and the nearest `neighbours` of
            each frame, or `regions` of the frames' maps.
        direction: Whether time's edges lead `forward` or `both` ways. With both and without
            positions, a clip played backwards is the same.
        neighbours: How many frames each hears that are most like it, for graph=neighbours.
        positions: Whether nodes know when in the clip they are.
        hidden: Length of each node's vector.
        layers: Graph layers, one upon the other; so far does a node hear.
        readout: What is read from the nodes: their `mean`, the `last` one, or the `max` of each
            unit.
        block_dropout: Share of each layer's output that is dropped in training, 0..1.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    grid = 2
    order_aware = True
    reversal_aware = True
    extra = "graph"
    requires = ("torch_geometric",)

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        graph: Graph = "chain",
        direction: Direction = "forward",
        neighbours: int = 3,
        positions: bool = False,
        hidden: int = 256,
        layers: int = 2,
        readout: Readout = "max",
        block_dropout: float = 0.1,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(channels, grid, classes)
        check_sizes(neighbours=neighbours, hidden=hidden, layers=layers)
        self.graph = graph
        self.direction = direction
        self.neighbours = neighbours
        self.positions = positions
        self.hidden = hidden
        self.layers = layers
        self.readout = readout
        self.block_dropout = block_dropout
        self.dropout = dropout
        # A graph that is the same backwards, whose last node is not read either, has no direction.
        self.reversal_aware = positions or direction == "forward" or readout == "last"
        self.norm = nn.LayerNorm(self.frame_size)
        self.project = nn.Linear(channels if graph == "regions" else self.frame_size, hidden)
        if positions:
            self.times = PositionEmbedding(hidden)
        if graph == "regions":
            self.places = nn.Parameter(torch.randn(grid * grid, hidden) * 0.5)
        kinds = 1 if graph == "chain" else 2
        self.blocks = nn.ModuleList(
            _Block(hidden, [self.new_layer() for _ in range(kinds)], block_dropout)
            for _ in range(layers)
        )
        self.drop = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden + self.frame_size, classes)

    def new_layer(self) -> nn.Module:
        """A layer of torch_geometric: nodes [V, hidden] and edges [2, E] → nodes [V, hidden]."""
        raise NotImplementedError

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """Logits [B, C] of features [B, T, D, g, g] and lengths [B]."""
        frames = self.norm(frame_vectors(features, lengths))
        edges = [frame_graph.edges(kind) for kind in self.adjacent(frames, lengths)]
        nodes = self.nodes(frames, lengths)
        flat = nodes.flatten(0, 1)
        for block in self.blocks:
            flat = block(flat, edges)
        nodes = flat.view_as(nodes)
        read = read_out(nodes, lengths * (nodes.shape[1] // frames.shape[1]), self.readout)
        both = torch.cat([read, masked_mean(frames, lengths)], dim=1)
        logits: Tensor = self.classifier(self.drop(both))
        return logits

    def adjacent(self, frames: Tensor, lengths: Tensor) -> list[Tensor]:
        """Adjacency matrices [B, N, N] of each kind of edge, bool."""
        steps, both = frames.shape[1], self.direction == "both"
        if self.graph == "regions":
            side = math.isqrt(self.frame_size // self.channels)
            in_time = frame_graph.regions_in_time(lengths, steps, side, both=both)
            return [in_time, frame_graph.regions_in_space(lengths, steps, side)]
        chain = frame_graph.chain(lengths, steps, both=both)
        if self.graph == "chain":
            return [chain]
        return [chain, frame_graph.neighbours(frames, lengths, self.neighbours)]

    def nodes(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """Vectors of the nodes before the first layer [B, N, hidden]."""
        cells = frames[:, :, None]  # [B, T, 1, D·g·g]
        if self.graph == "regions":
            cells = frames.unflatten(2, (self.channels, -1)).transpose(2, 3)  # [B, T, g², D]
        nodes: Tensor = self.project(cells)
        if self.positions:
            nodes = nodes + self.times(lengths, frames.shape[1])[:, :, None]
        if self.graph == "regions":
            nodes = nodes + self.places
        return nodes.flatten(1, 2)


class _Block(nn.Module):
    """A residual layer: what a node holds has weights W of its own, and so has each kind of edge::

        y = LayerNorm(x)
        x ← x + Dropout(ReLU(W y + Σ_kind layer_kind(y, edges_kind)))

    With weights of its own a node can tell what differs from what it hears; a `GCNConv` alone adds
    the two up. The sum is equation 2 of Schlichtkrull et al., Modeling Relational Data with Graph
    Convolutional Networks, ESWC 2018.
    """

    def __init__(self, hidden: int, kinds: list[nn.Module], dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.own = nn.Linear(hidden, hidden, bias=False)
        self.kinds = nn.ModuleList(kinds)
        self.drop = nn.Dropout(dropout)

    def forward(self, nodes: Tensor, edges: list[Tensor]) -> Tensor:
        """Nodes [V, hidden] from others, and the edges [2, E] of each kind."""
        normed = self.norm(nodes)
        heard = [layer(normed, along) for layer, along in zip(self.kinds, edges, strict=True)]
        passed: Tensor = self.drop(F.relu(self.own(normed) + torch.stack(heard).sum(0)))
        return nodes + passed


class GCN(_GraphHead):
    """Graph convolutional network over frames or regions.

    `_GraphHead` has the nodes and edges. With N(i) the nodes that node i hears, itself among them,
    and their number d_i, equation 2 of Kipf and Welling (2017), for graphs with a direction by what
    is heard::

        layer(x)_i = b + Σ_{j ∈ N(i)} W x_j / √(d_i d_j)

    Cost: layers·hidden² MACs a node for its own weights, and again for each kind of edge; the
    sums over E edges take layers·E·hidden more, which counts of matrix products leave out.
    """

    name = "gcn"
    paper = (
        "Kipf and Welling, Semi-Supervised Classification with Graph Convolutional Networks, ICLR "
        "2017; over video: Wang and Gupta, Videos as Space-Time Region Graphs, ECCV 2018"
    )

    def new_layer(self) -> nn.Module:
        """A `GCNConv`, which adds that each node hears itself."""
        layer: nn.Module = _layers().GCNConv(self.hidden, self.hidden)
        return layer


class GAT(_GraphHead):
    """Graph attention network over frames or regions.

    `_GraphHead` has the nodes and edges. With N(i) the nodes that node i hears, itself among them,
    and for each of h heads a matrix W [hidden/h, hidden] and vectors a, a' [hidden/h], equations 1
    to 5 of Veličković et al. (2018)::

        e_ij = LeakyReLU(a'ᵀ W x_i + aᵀ W x_j),  α_ij = exp(e_ij) / Σ_{k ∈ N(i)} exp(e_ik)
        layer(x)_i = b + [Σ_j α_ij W x_j of each head]

    where `gcn` hears all neighbours alike.

    Cost: layers·hidden² MACs a node for its own weights, and again for each kind of edge;
    scores and sums over E edges take layers·2·E·hidden more, which counts of matrix products leave
    out.

    Args:
        channels: Channels D of the features.
        grid: Side g of the features' grid; 4 suits graph=regions.
        classes: Number of classes C.
        graph: The nodes and edges: a `chain` of frames, the chain and the nearest `neighbours` of
            each frame, or `regions` of the frames' maps.
        direction: Whether time's edges lead `forward` or `both` ways. With both and without
            positions, a clip played backwards is the same.
        neighbours: How many frames each hears that are most like it, for graph=neighbours.
        positions: Whether nodes know when in the clip they are.
        hidden: Length of each node's vector.
        heads: Attention heads; divides `hidden`.
        layers: Graph layers, one upon the other; so far does a node hear.
        readout: What is read from the nodes: their `mean`, the `last` one, or the `max` of each
            unit.
        block_dropout: Share of each layer's output that is dropped in training, 0..1.
        dropout: Share dropped in training before the classifier, 0..1.
    """

    name = "gat"
    paper = "Veličković et al., Graph Attention Networks, ICLR 2018"

    def __init__(
        self,
        channels: int,
        grid: int,
        classes: int,
        *,
        graph: Graph = "chain",
        direction: Direction = "forward",
        neighbours: int = 3,
        positions: bool = False,
        hidden: int = 256,
        heads: int = 4,
        layers: int = 2,
        readout: Readout = "max",
        block_dropout: float = 0.1,
        dropout: float = 0.5,
    ) -> None:
        check_sizes(heads=heads)
        if hidden % heads:
            raise ValueError(f"hidden={hidden} is no multiple of heads={heads}")
        self.heads = heads  # which new_layer needs before the base class is done
        super().__init__(
            channels,
            grid,
            classes,
            graph=graph,
            direction=direction,
            neighbours=neighbours,
            positions=positions,
            hidden=hidden,
            layers=layers,
            readout=readout,
            block_dropout=block_dropout,
            dropout=dropout,
        )

    def new_layer(self) -> nn.Module:
        """A `GATConv`, which adds that each node hears itself."""
        layer: nn.Module = _layers().GATConv(self.hidden, self.hidden // self.heads, self.heads)
        return layer


def _layers() -> Any:
    with warnings.catch_warnings():
        # Its import uses torch.jit, which newer versions of torch warn of.
        warnings.simplefilter("ignore")
        import torch_geometric.nn
    return torch_geometric.nn
