"""A public VQGAN from its files: equal to diffusers' own path, and a tokenizer like drivesim's."""

import json
import shutil
import sys

import pytest
import torch
from no_network import refuse_network

from drivesim.errors import InputError
from drivesim.tokenizer.interface import Tokenizer
from drivesim.tokenizer.public_vqgan import CONFIG_NAME, WEIGHTS_NAME, PixelRange, PublicVQGAN
from drivesim.tokenizer.vqgan import VQGAN, VQGANConfig, normalized
from drivesim.torchvision_guard import ensure_torchvision
from drivesim.world_model.token_embedding import TokenEmbedding, TokenHead

SIZE = {"height_px": 32, "width_px": 64}


def make_model(**changes):
    ensure_torchvision()
    from diffusers import VQModel

    torch.manual_seed(0)
    widths = [8, 8, 8, 8, 16]
    sizes = {
        "block_out_channels": widths,
        "down_block_types": ["DownEncoderBlock2D"] * len(widths),
        "up_block_types": ["UpDecoderBlock2D"] * len(widths),
        "latent_channels": 8,
        "num_vq_embeddings": 32,
        "norm_num_groups": 4,
        "mid_block_add_attention": False,
        "lookup_from_codebook": True,
        "force_upcast": True,
    }
    model = VQModel(**sizes | changes).eval()
    with torch.no_grad():
        some = model.encode(torch.rand(4, 3, 64, 64)).latents
        model.quantize.embedding.weight.copy_(some.movedim(1, -1).flatten(0, -2)[:32])
    return model


@pytest.fixture(scope="module")
def model():
    return make_model()


@pytest.fixture(scope="module")
def pipeline(model, tmp_path_factory):
    """Return a folder in the layout of a whole pipeline, not to be changed."""
    folder = tmp_path_factory.mktemp("amused")
    (folder / "model_index.json").write_text("{}")
    model.save_pretrained(folder / "vqvae")
    return folder


@pytest.fixture
def copied(pipeline, tmp_path):
    """Return the folder of the model, to damage."""
    return shutil.copytree(pipeline / "vqvae", tmp_path / "vqgan")


@pytest.fixture
def vqgan(pipeline):
    return PublicVQGAN.load(pipeline, **SIZE)


@pytest.fixture
def pictures(rng):
    return torch.from_numpy(rng.integers(0, 256, (2, 32, 64, 3), dtype="uint8"))


def change_config(folder, **values):
    path = folder / CONFIG_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@torch.no_grad()
def test_encoding_and_decoding_are_those_of_the_amused_pipeline(model, vqgan, pictures):
    from diffusers.image_processor import VaeImageProcessor

    processor = VaeImageProcessor(vae_scale_factor=16, do_normalize=False)  # as AmusedImg2ImgPipeline has it
    pixels = processor.preprocess(pictures.numpy() / 255.0)
    expected = model.quantize(model.encode(pixels.float()).latents)[2][2].reshape(2, 2, 4)
    token_ids = vqgan.encode(normalized(pictures))
    assert token_ids.dtype == torch.int64
    assert len(token_ids.unique()) > 4
    torch.testing.assert_close(token_ids, expected.flatten(1))

    drawn = model.decode(expected, force_not_quantize=True, shape=(2, 2, 4, 8)).sample
    assert drawn.min() < 0  # so that clipping is seen
    wanted = processor.postprocess(drawn.clip(0, 1), "pt")
    torch.testing.assert_close((vqgan.decode(token_ids) + 1) / 2, wanted, atol=5e-5, rtol=0)


@torch.no_grad()
def test_codes_of_another_width_without_lookup_decode_like_diffusers(tmp_path, pictures):
    other = make_model(vq_embed_dim=4, lookup_from_codebook=False)
    other.save_pretrained(tmp_path)
    vqgan = PublicVQGAN.load(tmp_path, **SIZE, pixel_range=PixelRange.MINUS_ONE_TO_ONE)
    frames = normalized(pictures)
    codes, _, (_, _, ids) = other.quantize(other.encode(frames).latents)
    token_ids = vqgan.encode(frames)
    torch.testing.assert_close(token_ids, ids.reshape(2, 8))
    wanted = other.decode(codes, force_not_quantize=True).sample.clamp(-1, 1)
    torch.testing.assert_close(vqgan.decode(token_ids), wanted, atol=5e-5, rtol=0)


def test_both_vqgans_are_tokenizers(vqgan):
    own = VQGAN(VQGANConfig(height_px=32, width_px=64, channels=[8, 8, 8], num_res_blocks=[1, 1, 1]))
    for tokenizer in (own, vqgan):
        assert isinstance(tokenizer, Tokenizer)
        assert tokenizer.grid == tokenizer.config.grid == (2, 4)
        assert tokenizer.num_tokens == 8
        assert tokenizer.config.stride == 16
        assert tokenizer.quantizer.codebook_size == tokenizer.codebook_size


def test_the_world_model_embeds_its_tokens(vqgan, pictures):
    token_ids_BTS = vqgan.encode(normalized(pictures)).unsqueeze(1)
    embedding = TokenEmbedding(12, vqgan.quantizer, num_tokens=8, guide_dim=0)
    x_BTSC = embedding(token_ids_BTS, torch.zeros_like(token_ids_BTS, dtype=torch.bool), None)
    assert x_BTSC.shape == (2, 1, 8, 12)
    assert TokenHead(12, vqgan.quantizer, guide_dim=0)(x_BTSC, None).shape == (2, 1, 8, 32)


def test_the_quantizer_gives_back_its_own_codes(vqgan):
    quantizer, ids = vqgan.quantizer, torch.arange(32).reshape(2, 16)
    assert (quantizer.levels, quantizer.code_dim) == ((), 8)
    codes = quantizer.codes(ids)
    torch.testing.assert_close(quantizer.nearest(quantizer.bounded(codes)), ids)
    latents = (codes + 1e-4).requires_grad_()
    quantized = quantizer(latents)
    torch.testing.assert_close(quantized.codes_BSQ, codes)
    torch.testing.assert_close(quantized.token_ids_BS, ids)
    quantized.codes_BSQ.sum().backward()
    assert torch.equal(latents.grad, torch.ones_like(latents))


def test_nothing_of_it_is_trained(vqgan):
    assert not any(parameter.requires_grad for parameter in vqgan.parameters())
    assert not vqgan.model.training


def test_a_model_that_overflows_in_float16_computes_in_float32(vqgan, pictures):
    before = vqgan.encode(normalized(pictures))
    vqgan.half()
    assert (vqgan.encode(normalized(pictures)) == before).float().mean() > 0.8  # the weights were rounded
    assert vqgan.model.dtype == torch.float32
    assert vqgan.decode(before).dtype == torch.float32


def test_bfloat16_weights_decode_to_float32_frames(vqgan, pictures):
    vqgan.to(torch.bfloat16)
    frames = vqgan.decode(vqgan.encode(normalized(pictures)))
    assert frames.dtype == torch.float32
    assert frames.abs().max() <= 1


def test_frames_and_tokens_of_other_shapes_are_refused(vqgan):
    with pytest.raises(ValueError, match=r"frames must be \(B, 3, 32, 64\), got \(1, 3, 64, 32\)"):
        vqgan.encode(torch.zeros(1, 3, 64, 32))
    with pytest.raises(ValueError, match=r"token ids must be \(B, 8\), got \(1, 9\)"):
        vqgan.decode(torch.zeros(1, 9, dtype=torch.int64))


@pytest.mark.parametrize(("height_px", "width_px"), [(40, 64), (32, 60), (0, 64)])
def test_sides_that_do_not_divide_are_refused(pipeline, height_px, width_px):
    with pytest.raises(InputError, match=f"{height_px}x{width_px} px .* multiples of 16"):
        PublicVQGAN.load(pipeline, height_px=height_px, width_px=width_px)


def test_missing_files_are_named_with_what_fetches_them(copied, tmp_path):
    with pytest.raises(InputError, match=r"nowhere is no folder of a VQGAN.*hf download"):
        PublicVQGAN.load(tmp_path / "nowhere", **SIZE)
    (copied / WEIGHTS_NAME).unlink()
    with pytest.raises(InputError, match=f"has no {WEIGHTS_NAME}; fetch one"):
        PublicVQGAN.load(copied, **SIZE)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"_class_name": "AutoencoderKL"}, "is of AutoencoderKL, but a VQModel is needed"),
        ({"_class_name": None}, "is of no named class"),
        ({"in_channels": 1}, "does not read and write RGB"),
        ({"down_block_types": ["NoSuchBlock"] * 5}, "cannot be loaded"),
        ({"num_vq_embeddings": 16}, "cannot be loaded"),
        ({"layers_per_block": 2}, "does not fit its config.json: .* tensors missing"),
    ],
)
def test_other_configurations_are_refused(copied, values, message):
    change_config(copied, **values)
    with pytest.raises(InputError, match=message):
        PublicVQGAN.load(copied, **SIZE)


@pytest.mark.parametrize("name", [CONFIG_NAME, WEIGHTS_NAME])
def test_damaged_files_are_refused(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"not readable|cannot be loaded"):
        PublicVQGAN.load(copied, **SIZE)


def test_loading_prints_nothing_and_asks_no_network(pipeline, monkeypatch, capfd):
    refuse_network(monkeypatch)
    PublicVQGAN.load(str(pipeline), **SIZE)
    assert capfd.readouterr() == ("", "")


def test_without_diffusers_the_extra_is_named(pipeline, monkeypatch):
    monkeypatch.setitem(sys.modules, "diffusers", None)
    with pytest.raises(InputError, match=r"pip install 'drivesim\[vqgan\]'"):
        PublicVQGAN.load(pipeline, **SIZE)
