"""Quantizers and VQGAN: shapes, ranges, gradients, numeric safety."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from drivesim.errors import InputError
from drivesim.tokenizer.losses import TokenizerLoss, TokenizerLossConfig
from drivesim.tokenizer.quantizer import FiniteScalarQuantizer, VectorQuantizer, codebook_usage
from drivesim.tokenizer.row_norm import SMALL_MAP, RowGroupNorm
from drivesim.tokenizer.vqgan import VQGAN, QuantizerKind, VQGANConfig, normalized, to_uint8
from drivesim.torchvision_guard import import_timm


def small(**changes):
    values = {
        "height_px": 32,
        "width_px": 64,
        "channels": [8, 16, 16],
        "num_res_blocks": [1, 1, 1],
        "codebook_size": 64,
    }
    return VQGANConfig(**values | changes)


@pytest.fixture
def frames(rng):
    return torch.from_numpy(rng.uniform(-1, 1, (3, 3, 32, 64)).astype("float32"))


@pytest.mark.parametrize("kind", list(QuantizerKind))
def test_shapes_and_ranges(kind, frames):
    vqgan = VQGAN(small(quantizer=kind)).eval()
    token_ids = vqgan.encode(frames)
    assert token_ids.shape == (3, 2 * 4)
    assert token_ids.dtype == torch.int64
    assert token_ids.min() >= 0 and token_ids.max() < vqgan.codebook_size  # noqa: PT018
    decoded = vqgan.decode(token_ids)
    assert decoded.shape == frames.shape
    assert decoded.abs().max() <= 1


@pytest.mark.parametrize("kind", list(QuantizerKind))
def test_gradient_passes_the_quantizer(kind, frames):
    vqgan = VQGAN(small(quantizer=kind))
    vqgan(frames).frames_BCHW.square().mean().backward()
    stem = vqgan.encoder[1].weight
    assert stem.grad is not None
    assert stem.grad.abs().sum() > 0


def test_full_size_is_f16_with_8_by_14_tokens():
    assert VQGANConfig().grid == (8, 14)


def test_fsq_codes_are_the_middles_of_their_cells():
    quantizer = FiniteScalarQuantizer([8, 5, 3])
    ids = torch.arange(quantizer.codebook_size).unsqueeze(0)
    codes = quantizer.codes(ids)
    assert torch.equal(quantizer(torch.atanh(codes)).token_ids_BS, ids)
    assert codes.unique(dim=1).shape[1] == 120


def test_fsq_survives_saturated_latents_in_bfloat16():
    quantizer = FiniteScalarQuantizer([8, 8])
    with torch.autocast("cpu", torch.bfloat16):
        ids = quantizer(torch.tensor([[[50.0, -50.0]]], dtype=torch.bfloat16)).token_ids_BS
    assert ids.item() == 7


def test_vector_quantizer_keeps_its_codebook_in_use(rng):
    quantizer = VectorQuantizer(32, 4).train()
    data = torch.from_numpy(rng.normal(size=(4, 256, 4)).astype("float32"))
    for _ in range(30):
        result = quantizer(data)
    assert codebook_usage(result.token_ids_BS, 32) > 0.9
    assert (result.codes_BSQ - data).square().mean() < 0.5


def test_wrong_shapes_are_named(frames):
    vqgan = VQGAN(small())
    with pytest.raises(ValueError, match=r"32, 64.*16, 64"):
        vqgan.encode(frames[:, :, :16])
    with pytest.raises(ValueError, match=r"\(B, 8\).*\(3, 7\)"):
        vqgan.decode(torch.zeros(3, 7, dtype=torch.int64))
    with pytest.raises(ValueError, match="divide by 16"):
        VQGANConfig(height_px=130)


def test_uint8_round_trip(rng):
    pictures = torch.from_numpy(rng.integers(0, 256, (2, 8, 8, 3), dtype="uint8"))
    assert torch.equal(to_uint8(normalized(pictures)), pictures)


def test_adversarial_game_trains_both_sides_without_mixing_them(frames):
    vqgan = VQGAN(small())
    criterion = TokenizerLoss(TokenizerLossConfig(adversarial_weight=0.1, discriminator_channels=8))
    terms = criterion(frames, vqgan(frames))
    judge = criterion.discriminator.layers[1].weight
    torch.autograd.grad(terms["discriminator"], judge, retain_graph=True)
    assert torch.autograd.grad(terms["adversarial"], judge, retain_graph=True, allow_unused=True)[0] is None
    head = vqgan.decoder[-2].weight
    assert torch.autograd.grad(terms["adversarial"], head, retain_graph=True)[0].abs().sum() > 0
    assert torch.autograd.grad(terms["discriminator"], head, allow_unused=True)[0] is None


def test_perceptual_term_needs_a_weights_file():
    with pytest.raises(ValueError, match="perceptual_weights=FILE"):
        TokenizerLossConfig(perceptual_weight=1.0)


def test_perceptual_term_reads_a_timm_model_from_a_file(frames, tmp_path):
    weights = tmp_path / "resnet10t.safetensors"
    judge = import_timm().create_model("resnet10t")
    save_file({name: value.contiguous() for name, value in judge.state_dict().items()}, weights)
    config = TokenizerLossConfig(
        perceptual_weight=0.5, perceptual_model="resnet10t", perceptual_weights=str(weights)
    )
    criterion, vqgan = TokenizerLoss(config), VQGAN(small())
    assert torch.equal(criterion.features.model.conv1[0].weight, judge.conv1[0].weight)
    terms = criterion(frames, vqgan(frames))
    assert terms["perceptual"] > 0
    assert torch.autograd.grad(terms["perceptual"], vqgan.decoder[-2].weight)[0].abs().sum() > 0
    with pytest.raises(InputError, match="resnet18"):
        TokenizerLoss(replace(config, perceptual_model="resnet18"))
    with pytest.raises(InputError, match="nowhere"):
        TokenizerLoss(replace(config, perceptual_weights="nowhere.safetensors"))


@pytest.mark.slow
def test_one_picture_can_be_learned_by_heart(rng):
    torch.manual_seed(0)
    vqgan = VQGAN(small())
    picture = torch.nn.functional.interpolate(torch.randn(1, 3, 4, 8), (32, 64), mode="bilinear").clamp(-1, 1)
    optimizer = torch.optim.AdamW(vqgan.parameters(), lr=3e-3)
    for _ in range(150):
        loss = (vqgan(picture).frames_BCHW - picture).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02


def test_vector_quantizer_searches_in_float32_even_in_a_bfloat16_model(frames):
    vqgan = VQGAN(small(quantizer=QuantizerKind.VQ)).eval()
    halved = VQGAN(vqgan.config).eval()
    halved.load_state_dict(vqgan.state_dict())
    ids = halved.to(torch.bfloat16).encode(frames)
    assert len(ids.unique()) > 1
    assert halved.decode(ids).dtype == torch.float32


@pytest.mark.parametrize("size", [(31, 33), (32, 32), (32, 56)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_picture_is_normalised_the_same_beside_others(size, dtype):
    assert 31 * 33 < SMALL_MAP <= 32 * 32
    norm = RowGroupNorm(8, 64).to(dtype)
    pictures = torch.randn(5, 64, *size, generator=torch.Generator().manual_seed(0)).to(dtype)
    pictures = pictures.contiguous(memory_format=torch.channels_last)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            alone = torch.cat([norm(picture) for picture in pictures.split(1)])
            together = norm(pictures)
    finally:
        torch.set_num_threads(num_threads)
    assert torch.equal(together, alone)
    assert together.is_contiguous(memory_format=torch.channels_last)
