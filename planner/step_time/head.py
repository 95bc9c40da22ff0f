"""Seconds of the head and the loss in one micro-batch."""

from __future__ import annotations

from planner.counts.run import Resolved
from planner.formulas import throughput
from planner.formulas.recording import real
from planner.rules import rules
from planner.step_time.blocks import both_ways, product_seconds
from planner.step_time.rates import Rates


def head_and_loss_seconds(run: Resolved, rates: Rates) -> float:
    """The head's products, and the traffic of logits and loss; a loss in chunks makes the logits twice."""
    s, t = run.shape, run.config.training
    n, loss = t.micro_batch * t.seq, rules("time")["loss"]
    if rates.measured is not None:  # the traffic is that of kernels in its tables
        forward, backward = both_ways(run, rates, n, s.hidden, s.vocab, 1.0)
        return forward * (2 if t.loss == "chunked" else 1) + backward
    product = product_seconds(run, rates, n, s.hidden, s.vocab, head=True)
    per_logit = rates.software["logit_bytes"] * rates.runtime["logits"] * loss[t.loss]
    logits = real(throughput.traffic_seconds(per_logit * 1.0 * n * s.vocab, rates.bandwidth))
    return real(throughput.head_seconds(product, logits)) + (product if t.loss == "chunked" else 0.0)
