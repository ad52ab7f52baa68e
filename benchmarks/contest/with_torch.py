"""zuko, nflows, normflows and torchflows."""

from __future__ import annotations

import time

import numpy as np

from contest.cases import BOUND, FIT_BATCH, FIT_EPOCHS, FIT_LAYERS, FIT_WIDTH, LEARNING_RATE, Case, Verbs


def torch_verbs(case: Case, x: np.ndarray, module, log_prob, sample) -> Verbs:
    """A PyTorch module, run eagerly, as all four libraries' documentation does, with the fused Adam.

    Args:
      case, x: as in the builders.
      module: what has the parameters.
      log_prob: from rows to log-densities.
      sample: from a number to so many rows.
    """
    import torch

    parameters = [p for p in module.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=LEARNING_RATE, fused=True)
    data = torch.from_numpy(x)

    def train():
        module.train()
        started = time.perf_counter()
        for rows in torch.randperm(len(data)).split(case.batch_size):
            loss = -log_prob(data[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss = loss.item()
        return time.perf_counter() - started, loss

    def evaluate(rows):
        module.eval()
        with torch.no_grad():
            return log_prob(torch.from_numpy(rows)).numpy()

    def draw(seed):
        module.eval()
        torch.manual_seed(seed)
        with torch.no_grad():
            return sample(case.batch_size).numpy()

    return Verbs(evaluate, draw, train, sum(p.numel() for p in parameters))


def zuko_couplings(n_dim: int, masks: list[np.ndarray], hidden, **options):
    """zuko's coupling flow with these halves, which its RealNVP and NSF(passes=2) cannot be given."""
    import torch
    from zuko import flows
    from zuko.distributions import DiagNormal

    layers = [
        flows.GeneralCouplingTransform(n_dim, mask=torch.from_numpy(~mask), hidden_features=hidden, **options)
        for mask in masks
    ]
    base = flows.UnconditionalDistribution(DiagNormal, torch.zeros(n_dim), torch.ones(n_dim), buffer=True)
    return flows.Flow(layers, base)


def build_zuko(case: Case, x: np.ndarray) -> Verbs:
    """zuko; its splines act on [-5, 5]."""
    from zuko import flows
    from zuko.transforms import MonotonicRQSTransform

    bins = case.bins
    if case.is_coupling:
        spline = {"univariate": MonotonicRQSTransform, "shapes": [(bins,), (bins,), (bins - 1,)]}
        flow = zuko_couplings(case.n_dim, case.halves(), case.hidden, **(spline if case.is_spline else {}))
    else:
        options = {"transforms": case.n_layers, "hidden_features": case.hidden}
        flow = flows.NSF(case.n_dim, bins=bins, **options) if case.is_spline else flows.MAF(case.n_dim, **options)
    return torch_verbs(case, x, flow, lambda rows: flow().log_prob(rows), lambda n: flow().sample((n,)))


def fit_zuko(x: np.ndarray) -> list[float]:
    """`fit_tfflows` for zuko, in a plain loop as in its documentation."""
    import torch

    flow = zuko_couplings(2, [np.arange(2) == i % 2 for i in range(FIT_LAYERS)], (FIT_WIDTH,))
    optimizer = torch.optim.Adam(flow.parameters(), lr=LEARNING_RATE, fused=True)
    data = torch.from_numpy(x)
    ends = []
    for _ in range(FIT_EPOCHS):
        for rows in torch.randperm(len(data)).split(FIT_BATCH):
            loss = -flow().log_prob(data[rows]).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        ends.append(time.perf_counter())
    return ends


def torch_net(hidden: tuple[int, ...]):
    """A class of plain nets, made from the numbers of inputs and outputs, for the couplings of nflows and normflows."""
    from torch import nn

    class Net(nn.Sequential):
        hidden_features = hidden[-1]  # the splines scale their bins' parameters by it

        def __init__(self, n_inputs, n_outputs):
            layers = []
            for width in hidden:
                layers += [nn.Linear(n_inputs, width), nn.ReLU()]
                n_inputs = width
            super().__init__(*layers, nn.Linear(n_inputs, n_outputs))

        def forward(self, inputs, context=None):
            return super().forward(inputs)

    return Net


def made_options(hidden: tuple[int, ...]) -> dict:
    """A plain MADE of nflows, or of normflows, which is the same code."""
    if len(set(hidden)) > 1:
        raise ValueError("the MADE of nflows and normflows has hidden layers of one width")
    return {"hidden_features": hidden[0], "num_blocks": len(hidden) - 1, "use_residual_blocks": False}


def build_nflows(case: Case, x: np.ndarray) -> Verbs:
    """nflows, with plain nets, not the residual ones of its ready-made flows."""
    from nflows import transforms
    from nflows.distributions import StandardNormal
    from nflows.flows import Flow

    spline = {"num_bins": case.bins, "tails": "linear", "tail_bound": BOUND} if case.is_spline else {}
    if case.is_coupling:
        coupling = (
            transforms.PiecewiseRationalQuadraticCouplingTransform
            if case.is_spline
            else transforms.AffineCouplingTransform
        )
        net = torch_net(case.hidden)
        layers = [coupling(mask, net, **spline) for mask in case.halves()]
    else:
        autoregressive = (
            transforms.MaskedPiecewiseRationalQuadraticAutoregressiveTransform
            if case.is_spline
            else transforms.MaskedAffineAutoregressiveTransform
        )
        layers = [autoregressive(case.n_dim, **made_options(case.hidden), **spline)]
        for _ in range(case.n_layers - 1):
            layers += [transforms.ReversePermutation(case.n_dim)]
            layers += [autoregressive(case.n_dim, **made_options(case.hidden), **spline)]
    flow = Flow(transforms.CompositeTransform(layers), StandardNormal([case.n_dim]))
    return torch_verbs(case, x, flow, flow.log_prob, flow.sample)


def build_normflows(case: Case, x: np.ndarray) -> Verbs:
    """normflows, each layer the way round that makes densities the cheap direction.

    Its samples come with their log-densities; there are none without.
    """
    import normflows as nf
    import torch
    from normflows.flows.neural_spline.autoregressive import MaskedPiecewiseRationalQuadraticAutoregressive
    from normflows.flows.neural_spline.coupling import PiecewiseRationalQuadraticCoupling

    n_dim, half = case.n_dim, case.n_dim // 2
    spline = {"num_bins": case.bins, "tails": "linear", "tail_bound": BOUND}

    def layer(mask):
        if case.architecture == "CouplingRQNSF":
            mask = torch.from_numpy(mask.astype(np.int64))
            return nf.flows.Reverse(PiecewiseRationalQuadraticCoupling(mask, torch_net(case.hidden), **spline))
        if case.architecture == "RealNVP":
            net = nf.nets.MLP([n_dim - half, *case.hidden, 2 * half], init_zeros=True)
            return nf.flows.AffineCouplingBlock(net)
        if case.is_spline:
            made = MaskedPiecewiseRationalQuadraticAutoregressive(n_dim, **made_options(case.hidden), **spline)
        else:
            made = nf.flows.MaskedAffineAutoregressive(n_dim, **made_options(case.hidden))
        return nf.flows.Reverse(made)

    layers = []
    for i, mask in enumerate(case.halves()):
        if i > 0 and case.architecture != "CouplingRQNSF":  # which has its masks
            layers.append(nf.flows.Permute(n_dim, mode="swap" if case.is_coupling else "shuffle"))
        layers.append(layer(mask))
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(n_dim, trainable=False), layers)
    return torch_verbs(case, x, flow, flow.log_prob, lambda n: flow.sample(n)[0])


def build_torchflows(case: Case, x: np.ndarray) -> Verbs:
    """torchflows' ready-made flows, which have the presets' names, and elementwise affine layers besides.

    The nets of its couplings are given ReLUs; its MADE has tanh and nothing else.
    """
    import torch
    from torchflows import flows
    from torchflows.bijections.finite.autoregressive import architectures

    if len(set(case.hidden)) > 1:
        raise ValueError("torchflows' nets have hidden layers of one width")
    # It counts the output as a layer.
    net = {"n_hidden": case.hidden[0], "n_layers": len(case.hidden) + 1}
    if case.is_coupling:
        net["nonlinearity"] = torch.nn.ReLU
    spline = {"transformer_kwargs": {"boundary": BOUND, "n_bins": case.bins}} if case.is_spline else {}
    architecture = getattr(architectures, case.architecture)
    bijection = architecture((case.n_dim,), n_layers=case.n_layers, conditioner_kwargs=net, **spline)
    flow = flows.Flow(bijection)
    return torch_verbs(case, x, flow, flow.log_prob, lambda n: flow.sample((n,), no_grad=True))
