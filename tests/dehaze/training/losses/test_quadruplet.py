import pytest
import torch
from torch import Tensor, nn

from dehaze.training.losses.quadruplet import Quadruplet, encoder

# Grey levels of the hazy image, J₁, J₂ and the clear one: a restoration that is half way.
LEVELS = {"hazy": 0.8, "first": 0.6, "second": 0.5, "clear": 0.2}


def brightness(form: str) -> Quadruplet:
    """Return the loss with encoders that all average and pass on: features are brightness."""
    loss = Quadruplet(nn.Identity(), form)
    for layer in loss.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
            nn.init.zeros_(layer.bias)
    return loss


def images(size: int = 32) -> dict[str, Tensor]:
    return {name: torch.full((1, 3, size, size), level) for name, level in LEVELS.items()}


def random_images() -> dict[str, Tensor]:
    draws = torch.rand(4, 2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    return dict(zip(LEVELS, draws, strict=True))


def gradient(form: str) -> Tensor:
    given = images()
    given["second"].requires_grad_()
    return torch.autograd.grad(brightness(form)(**given), given["second"])[0]


def test_published_pulls_to_the_hazy_image_and_intent_to_the_clear_one():
    """Descent brightens J₂ by the published form, towards the haze, and darkens it by intent."""
    published, intent = gradient("published"), gradient("intent")
    # Pooling passes the gradient to one pixel of each four: not every pixel has one, but none has the wrong sign.
    assert published.max() <= 0 <= intent.min()
    assert published.min() < 0 < intent.max()
    assert torch.cosine_similarity(published.flatten(), intent.flatten(), dim=0) < -0.9


def test_descent_moves_the_result_as_the_gradient_says():
    for form, towards, off in (("published", "hazy", "clear"), ("intent", "clear", "hazy")):
        given, loss = images(), brightness(form)
        moved = {target: given | {"second": given["second"].lerp(given[target], 0.05)} for target in (towards, off)}
        with torch.no_grad():
            assert loss(**moved[towards]) < loss(**given) < loss(**moved[off])


def test_published_is_the_authors_formula():
    torch.manual_seed(0)
    block, given = nn.Sequential(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()), random_images()
    loss = Quadruplet(block, "published")
    with torch.no_grad():
        features = [
            torch.max_pool2d(block(layers(image)), 2).double().numpy()
            for layers, image in zip(loss.encoders, given.values(), strict=True)
        ]
        i, j1, j2, c = features
        total = 0.0
        for at in range(i.size):
            pull = abs(j2.flat[at] - i.flat[at])
            push = sum(abs(a.flat[at] - b.flat[at]) for a, b in ((j2, c), (j1, c), (j1, j2)))
            total += 1 / 32 * pull / (push + 1e-7)
        assert loss(**given).item() == pytest.approx(total / i.size, rel=1e-3)


def test_intent_compares_means_of_each_sample_by_one_encoder():
    torch.manual_seed(0)
    given = random_images()
    loss = Quadruplet(nn.Identity(), "intent")
    with torch.no_grad():
        i, j1, j2, c = (torch.max_pool2d(loss.encoders[0](image), 2) for image in given.values())
        ratios = [
            (j2 - c)[b].abs().mean() / ((j2 - i)[b].abs().mean() + (j1 - i)[b].abs().mean() + (j1 - j2)[b].abs().mean())
            for b in range(2)
        ]
        torch.testing.assert_close(loss(**given), sum(ratios) / 2 / 32)


def test_a_perfect_result_costs_nothing_by_intent_alone():
    given = random_images()
    given["second"] = given["clear"]
    torch.manual_seed(0)
    assert Quadruplet(nn.Identity(), "intent")(**given) == 0
    assert Quadruplet(nn.Identity(), "published")(**given) > 0


def test_encoders_learn_and_the_block_does_not():
    block = nn.Conv2d(64, 64, 3, padding=1)
    for form, count in (("published", 4), ("intent", 1)):
        torch.manual_seed(0)
        loss = Quadruplet(block, form)
        assert len(loss.encoders) == count
        loss(**random_images()).backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in loss.encoders.parameters())
        assert all(parameter.grad is None for parameter in block.parameters())


def test_an_encoder_has_the_authors_size():
    assert encoder()(torch.rand(1, 3, 16, 24)).shape == (1, 64, 4, 6)
    assert sum(parameter.numel() for parameter in encoder().parameters()) == 896 + 9_248 + 2_112


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="known: intent, published"):
        Quadruplet(nn.Identity(), "printed")
