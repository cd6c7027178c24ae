"""Convolutions whose weights are laid out once: the same bits, and nothing stale."""

import copy
import io

import pytest
import torch

from drivesim.tokenizer import convolution
from drivesim.tokenizer.convolution import Convolution, plain_convolutions

pytestmark = pytest.mark.skipif(not convolution._can_lay_out(), reason="this processor lays out no bfloat16")


@pytest.fixture
def layer():
    torch.manual_seed(0)
    layer = Convolution(16, 24, 3, stride=2, padding=1).to(torch.bfloat16).requires_grad_(False)
    return layer.to(memory_format=torch.channels_last)


@pytest.fixture
def pictures():
    return torch.randn(3, 16, 12, 20).bfloat16().contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def plainly(layer, pictures):
    with plain_convolutions():
        return layer(pictures)


@torch.no_grad()
def test_results_are_the_same_to_the_bit_alone_and_in_a_batch(layer, pictures):
    convolved = layer(pictures)
    assert layer._laid_out is not None
    assert convolved.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(convolved, plainly(layer, pictures))
    assert torch.equal(torch.cat([layer(row) for row in pictures.split(1)]), convolved)
    larger = torch.randn(1, 16, 64, 40).bfloat16()
    assert torch.equal(layer(larger), plainly(layer, larger))


@torch.no_grad()
def test_weights_that_change_are_laid_out_anew(layer, pictures):
    before = layer(pictures)
    layer.weight.mul_(2)
    doubled = layer(pictures)
    assert torch.equal(doubled, plainly(layer, pictures))
    layer.load_state_dict({name: -value for name, value in layer.state_dict().items()})
    assert torch.equal(layer(pictures), plainly(layer, pictures))
    layer.weight = torch.nn.Parameter(torch.zeros_like(layer.weight), requires_grad=False)
    assert torch.equal(layer(pictures), plainly(layer, pictures))
    assert not torch.equal(before, doubled)


@torch.no_grad()
def test_copies_and_files_hold_weights_alone(layer, pictures):
    convolved = layer(pictures)
    assert set(layer.state_dict()) == {"weight", "bias"}
    twin = copy.deepcopy(layer)
    assert twin._laid_out is None
    assert torch.equal(twin(pictures), convolved)
    written = io.BytesIO()
    torch.save(layer, written)
    written.seek(0)
    assert torch.equal(torch.load(written, weights_only=False)(pictures), convolved)


def test_nothing_is_laid_out_while_something_learns_or_is_not_bfloat16(layer, pictures):
    layer(pictures)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        layer(pictures)
    with torch.no_grad():
        layer.float()(pictures.float())
    assert layer._laid_out is None
    layer.bfloat16().requires_grad_()(pictures).float().sum().backward()
    assert layer.weight.grad is not None


def test_weights_made_for_inference_alone_work(pictures):
    with torch.inference_mode():
        layer = Convolution(16, 24, 3).to(torch.bfloat16)
        layer.weight = torch.nn.Parameter(layer.weight.clone(), requires_grad=False)
        assert torch.equal(layer(pictures), plainly(layer, pictures))
