"""Skipping random initialisation leaves tensors blank, and a blank that is looked at ends the attempt."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn
from torch.nn import init

from weightstore.loading.initialisation import BlankRead, skipping

FILLS = [
    lambda t: t.normal_(),
    lambda t: t.uniform_(),
    lambda t: t.random_(),
    lambda t: init.normal_(t, std=0.02),
    init.uniform_,
    lambda t: init.trunc_normal_(t, std=0.02),
    init.kaiming_normal_,
    init.kaiming_uniform_,
    init.xavier_uniform_,
    init.xavier_normal_,
]


@pytest.mark.parametrize("fill", FILLS)
def test_filling_at_random_is_skipped(fill) -> None:
    tensor = torch.zeros(4, 4)
    state = torch.get_rng_state()
    with skipping() as mode:
        assert fill(tensor) is tensor
    assert mode.is_blank(tensor)
    assert tensor.count_nonzero() == 0
    assert torch.equal(torch.get_rng_state(), state)


def test_constants_are_filled_in() -> None:
    with skipping() as mode:
        ones = init.ones_(torch.empty(3))
        computed = torch.arange(4).float().mul(2)
    assert ones.tolist() == [1, 1, 1]
    assert computed.tolist() == [0, 2, 4, 6]
    assert not mode.is_blank(ones)
    assert not mode.is_blank(computed)


def test_shapes_that_are_kept_are_filled() -> None:
    with skipping(frozenset({torch.Size([3, 2])})) as mode:
        kept, skipped = init.normal_(torch.zeros(3, 2)), init.normal_(torch.zeros(2, 3))
        truncated = init.trunc_normal_(torch.zeros(3, 2))
    assert kept.count_nonzero() == truncated.count_nonzero() == 6
    assert not mode.is_blank(kept)
    assert skipped.count_nonzero() == 0


@pytest.mark.parametrize(
    "read",
    [
        lambda t: t.sum().item(),
        lambda t: bool(t.max() > 0),
        lambda t: t.tolist(),
        lambda t: float(t[0, 0]),
        lambda t: torch.equal(t, torch.zeros(4, 4)),
        lambda t: t.numpy(),
        lambda t: nn.Linear(4, 4)(t).sum().item(),
        lambda t: torch.cat([torch.ones(4, 4), t]).mean().item(),
        lambda t: torch.stack([t.t()])[0].data.sum().item(),
    ],
)
def test_reading_a_blank_value_ends_the_attempt(read) -> None:
    with pytest.raises(BlankRead), skipping():
        read(init.normal_(torch.zeros(4, 4)))


def test_asking_for_shapes_and_types_reads_no_value() -> None:
    with skipping():
        weight = init.normal_(nn.Parameter(torch.zeros(4, 2)))
        described = (weight.shape, weight.dtype, weight.size(0), weight.dim(), weight.numel(), weight.is_contiguous())
        assert init.calculate_gain("relu") > 0
        assert len(weight) == 4
        assert weight.requires_grad
        assert described == (torch.Size([4, 2]), torch.float32, 4, 2, 8, True)


def test_a_parameter_made_of_a_blank_tensor_is_blank_too() -> None:
    with skipping() as mode:
        parameter = nn.Parameter(torch.empty(3).normal_())
    assert mode.is_blank(parameter)


def test_what_is_overwritten_as_a_whole_is_blank_no_more() -> None:
    with skipping() as mode:
        whole = init.normal_(torch.empty(4)).fill_(1)
        copied = init.normal_(torch.empty(4)).copy_(torch.arange(4.0))
        part = init.normal_(torch.empty(4))
        part[:2].fill_(1)
        scaled = init.normal_(torch.zeros(4)).mul_(2).add_(1)
    assert not mode.is_blank(whole)
    assert not mode.is_blank(copied)
    assert copied.sum().item() == 6
    assert mode.is_blank(part)
    assert mode.is_blank(scaled)


def test_copying_a_blank_makes_the_copy_blank() -> None:
    with skipping() as mode:
        target = torch.zeros(4).copy_(init.normal_(torch.empty(4)))
    assert mode.is_blank(target)


def test_other_threads_initialise_as_ever() -> None:
    filled = []

    def other() -> None:
        filled.append(init.trunc_normal_(torch.zeros(100)).count_nonzero().item())
        filled.append(nn.Linear(10, 10).weight.count_nonzero().item())

    with skipping():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert filled == [100, 100]


def test_afterwards_torch_is_as_it_was() -> None:
    original = init.trunc_normal_
    with skipping(), skipping():
        assert init.trunc_normal_ is not original
    assert init.trunc_normal_ is original
    with pytest.raises(ZeroDivisionError), skipping():
        raise ZeroDivisionError
    assert init.trunc_normal_ is original
    assert nn.Linear(10, 10).weight.count_nonzero() > 0
