"""How real imagined pictures look: a discriminator that sees them on their road, and spoiled pictures to be mended.

Letters: see ``drivesim/world_model/__init__.py``; here `H W` also count the cells of a road view.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from drivesim.tokenizer.losses import PatchDiscriminator, hinge
from drivesim.tokenizer.vqgan import normalized, to_uint8

BLUR_FACTORS = (1, 2, 4, 8)
MOST_FOG = 0.8


def spoiled(frames_BTHWC: Tensor, share: float) -> Tensor:
    """Return uint8 frames of which a share of the rows is blurred and fogged, as pictures imagined for long are."""
    spoiled_BTHWC = frames_BTHWC.clone()
    for row, frames_THWC in enumerate(frames_BTHWC):
        is_spoiled, fog = bool(torch.rand(()) < share), MOST_FOG * float(torch.rand(()) ** 2)
        factor = BLUR_FACTORS[int(torch.randint(len(BLUR_FACTORS), ()))]
        if is_spoiled:
            x_TCHW = normalized(frames_THWC)
            size, mean = x_TCHW.shape[-2:], x_TCHW.mean(dim=(0, 2, 3)).view(1, 3, 1, 1)
            x_TCHW = functional.interpolate(functional.avg_pool2d(x_TCHW, factor), size=size, mode="bilinear")
            spoiled_BTHWC[row] = to_uint8(torch.lerp(x_TCHW, mean, fog))
    return spoiled_BTHWC


def discriminator_on_roads(channels: int) -> PatchDiscriminator:
    """Return a discriminator of pictures with the view of the map as further channels."""
    return PatchDiscriminator(channels, in_channels=5)


def adversarial_terms(
    discriminator: PatchDiscriminator,
    true_BCHW: Tensor,
    drawn_BCHW: Tensor,
    road_B2HW: Tensor,
    gradient_norm: Tensor,
) -> tuple[Tensor, Tensor]:
    """Return the loss that trains the discriminator, and the one by which it trains what drew the pictures.

    The gradient of the second with respect to the pictures has a norm of ``gradient_norm``, less while the
    discriminator cannot tell; it reaches no weight of the discriminator.
    """
    pictures_BCHW = drawn_BCHW.clamp(-1, 1)
    judged = [_on_road(pictures, road_B2HW) for pictures in (true_BCHW, pictures_BCHW.detach())]
    own = hinge(discriminator, *judged)
    seen_BCHW = pictures_BCHW.detach().requires_grad_()
    frozen = {name: value.detach() for name, value in discriminator.named_parameters()}
    scores = functional_call(discriminator, frozen, (_on_road(seen_BCHW, road_B2HW),))
    (gradient_BCHW,) = torch.autograd.grad(-scores.mean(), seen_BCHW)
    sure = (1 - own.detach()).clamp(0, 1)
    scale = sure * gradient_norm / gradient_BCHW.norm().clamp_min(1e-12)
    return own, (pictures_BCHW * (scale * gradient_BCHW)).sum()


def _on_road(pictures_BCHW: Tensor, road_B2HW: Tensor) -> Tensor:
    road = functional.interpolate(road_B2HW, size=pictures_BCHW.shape[-2:], mode="nearest")
    return torch.cat([pictures_BCHW, road], dim=1)
