"""Memory of a log-probability step, forward and backward: without logits as we do it, and by the whole softmax."""

from __future__ import annotations

import time

import torch
from serving import Turns, forget_peak, options, peak_mib
from torch import Tensor

from llm.log_prob import token_log_prob


def whole_softmax(hidden_ND: Tensor, weight_VD: Tensor, target_N: Tensor) -> Tensor:
    return (hidden_ND @ weight_VD.T).log_softmax(-1).gather(1, target_N[:, None]).squeeze(1)


WAYS = {"token_log_prob": token_log_prob, "log_softmax": whole_softmax}


def main() -> None:
    turns, told = Turns(), options()
    way = WAYS[told["which"]]
    torch.set_num_threads(told["first_threads"])
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(told["rows"], told["width"], generator=draw).requires_grad_()
    weight = (torch.randn(told["vocabulary"], told["width"], generator=draw) / 50).requires_grad_()
    target = torch.randint(told["vocabulary"], (told["rows"],), generator=draw)
    way(torch.ones(2, 4, requires_grad=True), torch.ones(8, 4, requires_grad=True), target[:2] % 8).sum().backward()
    forget_peak()
    before, began = peak_mib(), time.perf_counter()
    said = way(hidden, weight, target).mean()
    said.backward()
    facts = {"mib": peak_mib() - before, "seconds": time.perf_counter() - began}
    slopes = [float(one.grad.double().norm()) for one in (hidden, weight)]
    turns.ready(facts | {"log_prob": float(said), "slopes": slopes})


if __name__ == "__main__":
    main()
