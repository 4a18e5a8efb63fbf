"""Weights under the original SAM 2 names become transformers' own, all of them, bit for bit; what is not understood is refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Sam2Config, Sam2Model

from ruac.families.official import SIZES, Converted, convert, is_official, sam2_config

HEAD = "sam_mask_decoder.pixel_bndl."
# the first two names are those of BNDL's own code, on which the authors built
PIXEL_MEAN, PIXEL_CONCENTRATION = f"{HEAD}linear_add.0", f"{HEAD}linear_k.0"
WEIGHT_MEAN, WEIGHT_CONCENTRATION = f"{HEAD}linear_add_w", f"{HEAD}linear_kw.0"


def original(sam: dict[str, Tensor], blocks: int) -> dict[str, Tensor]:
    """The tensors of a Sam2Model under the names that the original code gives them, spelled out part by part."""
    out: dict[str, Tensor] = {}

    def layer(old: str, new: str) -> None:
        for kind in ("weight", "bias"):
            out[f"{old}.{kind}"] = sam[f"{new}.{kind}"]

    def token(old: str, new: str) -> None:
        out[f"{old}.weight"] = sam[f"{new}.weight"]

    def perceptron(old: str, new: str) -> None:
        layer(f"{old}.layers.0", f"{new}.proj_in")
        layer(f"{old}.layers.1", f"{new}.layers.0")
        layer(f"{old}.layers.2", f"{new}.proj_out")

    def attention(old: str, new: str) -> None:
        for old_part, new_part in (("q_proj", "q_proj"), ("k_proj", "k_proj"), ("v_proj", "v_proj"), ("out_proj", "o_proj")):
            layer(f"{old}.{old_part}", f"{new}.{new_part}")

    trunk, backbone = "image_encoder.trunk", "vision_encoder.backbone"
    out[f"{trunk}.pos_embed"] = sam[f"{backbone}.pos_embed"]
    out[f"{trunk}.pos_embed_window"] = sam[f"{backbone}.pos_embed_window"]
    layer(f"{trunk}.patch_embed.proj", f"{backbone}.patch_embed.projection")
    for i in range(blocks):
        old, new = f"{trunk}.blocks.{i}", f"{backbone}.blocks.{i}"
        layer(f"{old}.norm1", f"{new}.layer_norm1")
        layer(f"{old}.attn.qkv", f"{new}.attn.qkv")
        layer(f"{old}.attn.proj", f"{new}.attn.proj")
        layer(f"{old}.norm2", f"{new}.layer_norm2")
        layer(f"{old}.mlp.layers.0", f"{new}.mlp.proj_in")
        layer(f"{old}.mlp.layers.1", f"{new}.mlp.proj_out")
        if f"{new}.proj.weight" in sam:  # where the width changes
            layer(f"{old}.proj", f"{new}.proj")
    for i in range(4):
        layer(f"image_encoder.neck.convs.{i}.conv", f"vision_encoder.neck.convs.{i}")
    out["no_mem_embed"] = sam["no_memory_embedding"]

    old, new = "sam_prompt_encoder", "prompt_encoder"
    out[f"{old}.pe_layer.positional_encoding_gaussian_matrix"] = sam["shared_image_embedding.positional_embedding"]
    for i in range(4):
        out[f"{old}.point_embeddings.{i}.weight"] = sam[f"{new}.point_embed.weight"][i : i + 1].clone()
    token(f"{old}.not_a_point_embed", f"{new}.not_a_point_embed")
    token(f"{old}.no_mask_embed", f"{new}.no_mask_embed")
    layer(f"{old}.mask_downscaling.0", f"{new}.mask_embed.conv1")
    layer(f"{old}.mask_downscaling.1", f"{new}.mask_embed.layer_norm1")
    layer(f"{old}.mask_downscaling.3", f"{new}.mask_embed.conv2")
    layer(f"{old}.mask_downscaling.4", f"{new}.mask_embed.layer_norm2")
    layer(f"{old}.mask_downscaling.6", f"{new}.mask_embed.conv3")

    old, new = "sam_mask_decoder", "mask_decoder"
    for i in range(2):
        before, after = f"{old}.transformer.layers.{i}", f"{new}.transformer.layers.{i}"
        for name in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            attention(f"{before}.{name}", f"{after}.{name}")
        for n in (1, 2, 3, 4):
            layer(f"{before}.norm{n}", f"{after}.layer_norm{n}")
        layer(f"{before}.mlp.layers.0", f"{after}.mlp.proj_in")
        layer(f"{before}.mlp.layers.1", f"{after}.mlp.proj_out")
    attention(f"{old}.transformer.final_attn_token_to_image", f"{new}.transformer.final_attn_token_to_image")
    layer(f"{old}.transformer.norm_final_attn", f"{new}.transformer.layer_norm_final_attn")
    for name in ("iou_token", "mask_tokens", "obj_score_token"):
        token(f"{old}.{name}", f"{new}.{name}")
    layer(f"{old}.output_upscaling.0", f"{new}.upscale_conv1")
    layer(f"{old}.output_upscaling.1", f"{new}.upscale_layer_norm")
    layer(f"{old}.output_upscaling.3", f"{new}.upscale_conv2")
    layer(f"{old}.conv_s0", f"{new}.conv_s0")
    layer(f"{old}.conv_s1", f"{new}.conv_s1")
    for i in range(4):
        perceptron(f"{old}.output_hypernetworks_mlps.{i}", f"{new}.output_hypernetworks_mlps.{i}")
    perceptron(f"{old}.iou_prediction_head", f"{new}.iou_prediction_head")
    perceptron(f"{old}.pred_obj_score_head", f"{new}.pred_obj_score_head")
    return out


def paper_head() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = {PIXEL_MEAN: (32, 32), PIXEL_CONCENTRATION: (1, 32), WEIGHT_MEAN: (64, 256), WEIGHT_CONCENTRATION: (32, 256)}
    out = {}
    for name, shape in shapes.items():
        out[f"{name}.weight"] = torch.randn(shape, generator=generator)
        out[f"{name}.bias"] = torch.randn(shape[:1], generator=generator)
    return out


def shapes_of(size: str) -> dict[str, Tensor]:
    """An original checkpoint without numbers."""
    with torch.device("meta"):
        return original(Sam2Model(sam2_config(size)).state_dict(), sum(SIZES[size].blocks))


def small(config: Sam2Config) -> Sam2Config:
    """The same tensors for images of 256 px: sixteen times as fast."""
    values = config.to_dict()
    values["vision_config"]["backbone_feature_sizes"] = [[64, 64], [32, 32], [16, 16]]
    values["prompt_encoder_config"]["image_size"] = 256
    return Sam2Config(**values)


@pytest.fixture
def plain() -> dict[str, Tensor]:
    return shapes_of("base-plus")


@pytest.fixture(scope="module")
def tiny() -> Sam2Model:
    torch.manual_seed(0)
    sam = Sam2Model(small(sam2_config("tiny"))).eval().requires_grad_(False)
    for (
        value
    ) in sam.state_dict().values():  # transformers starts whole families of tensors at zero, where a mix-up would not show
        value.normal_(std=0.05)
    shared = sam.shared_image_embedding.positional_embedding
    sam.prompt_encoder.shared_embedding.positional_embedding.copy_(shared)
    return sam


@pytest.fixture(scope="module")
def converted(tiny: Sam2Model, tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """From a file such as the authors': SAM 2 with its video parts, the paper's head, the attackers."""
    file: Path = tmp_path_factory.mktemp("official") / "model.safetensors"
    extra = {
        "memory_attention.norm.weight": torch.ones(256),
        "memory_encoder.out_proj.weight": torch.ones(64, 256, 1, 1),
        "no_obj_embed_spatial": torch.ones(1, 64),
        "style_gcn.residual_scale": torch.tensor(0.1),
        "style_attacker.impl.style_net.object_mlp.0.weight": torch.ones(128, 256),
        "deform_attacker.impl.img_feat_proj.bias": torch.ones(256),
        f"{HEAD}prior_shape": torch.tensor(1.0),
    }
    save_file(original(tiny.state_dict(), 12) | paper_head() | extra, file)
    tensors = load_file(file)
    assert is_official(tensors)
    return convert(tensors)


def test_every_tensor_arrives_unchanged(tiny, converted):
    assert converted.sam.keys() == tiny.state_dict().keys()
    assert all(torch.equal(converted.sam[name], value) for name, value in tiny.state_dict().items())


@torch.inference_mode()
def test_converted_model_answers_a_click_like_the_model_it_came_from(tiny, converted):
    with torch.device("meta"):
        again = Sam2Model(small(converted.config))
    again.load_state_dict(converted.sam, strict=True, assign=True)
    again.eval()
    pixels = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    click = torch.tensor([[[[70.0, 130.0]]]])
    expected = tiny(pixel_values=pixels, input_points=click)
    answer = again(pixel_values=pixels, input_points=click)
    assert expected.pred_masks.std() > 0
    assert torch.equal(answer.pred_masks, expected.pred_masks)
    assert torch.equal(answer.iou_scores, expected.iou_scores)
    assert torch.equal(answer.object_score_logits, expected.object_score_logits)


def test_head_gets_our_names(converted):
    head, given = converted.head, paper_head()
    assert head is not None
    assert {name: tuple(value.shape) for name, value in head.items()} == {
        "pixel_mean.weight": (32, 32, 1, 1),
        "pixel_mean.bias": (32,),
        "pixel_concentration.weight": (1, 32, 1, 1),
        "pixel_concentration.bias": (1,),
        "weight_mean.weight": (64, 256),
        "weight_mean.bias": (64,),
        "weight_concentration.weight": (32, 256),
        "weight_concentration.bias": (32,),
    }
    assert torch.equal(head["pixel_mean.weight"][..., 0, 0], given[f"{PIXEL_MEAN}.weight"])
    assert torch.equal(head["pixel_concentration.bias"], given[f"{PIXEL_CONCENTRATION}.bias"])
    assert torch.equal(head["weight_mean.weight"], given[f"{WEIGHT_MEAN}.weight"])
    assert torch.equal(head["weight_concentration.bias"], given[f"{WEIGHT_CONCENTRATION}.bias"])


@pytest.mark.parametrize("size", SIZES)
def test_size_is_read_from_the_shapes_and_every_tensor_of_it_is_there(size):
    result = convert(shapes_of(size))
    assert result.head is None
    assert result.config.to_dict() == sam2_config(size).to_dict()
    with torch.device("meta"):
        wanted = Sam2Model(sam2_config(size)).state_dict()
    assert {name: value.shape for name, value in result.sam.items()} == {name: value.shape for name, value in wanted.items()}


def test_tiny_is_what_transformers_calls_the_default():
    assert sam2_config("tiny").to_dict() == Sam2Config().to_dict()


def test_each_original_tensor_has_its_own_place(plain):
    """455 tensors of SAM 2.1 base-plus that images need; transformers joins four of them and has one of them twice."""
    result = convert(plain)
    assert len(plain) == 455
    assert len(result.sam) == 455 - 3 + 1
    numbers = sum(value.numel() for value in plain.values())
    assert sum(value.numel() for value in result.sam.values()) == numbers + 2 * 128


def test_head_of_convolutions_is_the_same_head(plain):
    as_convolutions = {name: value[..., None, None] if value.ndim == 2 else value for name, value in paper_head().items()}
    expected, head = convert(plain | paper_head()).head, convert(plain | as_convolutions).head
    assert expected is not None
    assert head is not None
    assert all(torch.equal(head[name], expected[name]) for name in expected)


def test_names_tell_an_original_file_from_one_of_transformers(plain):
    assert is_official(plain)
    assert not is_official(convert(plain).sam)
    assert not is_official(f"sam.{name}" for name in convert(plain).sam)


def test_missing_tensors_are_named_and_many_are_counted(plain):
    del plain["sam_mask_decoder.conv_s1.bias"], plain["sam_prompt_encoder.point_embeddings.2.weight"]
    with pytest.raises(ValueError, match=r"missing \(2\): .*point_embeddings\.2\.weight, .*conv_s1\.bias"):
        convert(plain)
    without_norms = {name: value for name, value in plain.items() if ".norm2." not in name}
    with pytest.raises(ValueError, match=r"missing \(54\): .* and 44 more"):
        convert(without_norms)


def test_unknown_tensors_are_named(plain):
    plain["image_encoder.trunk.blocks.3.lora.weight"] = torch.empty(4, 112, device="meta")
    with pytest.raises(ValueError, match=r"not known \(1\): image_encoder\.trunk\.blocks\.3\.lora\.weight \[4, 112\]"):
        convert(plain)


def test_tensor_of_another_shape_is_named_with_both_shapes(plain):
    plain["sam_mask_decoder.mask_tokens.weight"] = torch.empty(5, 256, device="meta")
    with pytest.raises(ValueError, match=r"of another shape \(1\): .*mask_tokens\.weight \[5, 256\] instead of \[4, 256\]"):
        convert(plain)


def test_all_that_is_wrong_is_said_at_once(plain):
    del plain["no_mem_embed"]
    head = paper_head()
    del head[f"{PIXEL_MEAN}.bias"]
    with pytest.raises(ValueError, match=rf"(?s)missing \(1\): no_mem_embed\n.*not known \(1\): surprise.*{PIXEL_MEAN}\.bias"):
        convert(plain | head | {"surprise": torch.zeros(2)})


def test_image_encoder_that_is_none_of_the_public_ones_is_refused(plain):
    shallow = {name: value for name, value in plain.items() if ".blocks.23." not in name}
    with pytest.raises(ValueError, match=r"width 112 with 23 blocks .* base-plus 112 x 24"):
        convert(shallow)
    with pytest.raises(ValueError, match=r"patch_embed\.proj\.weight is missing"):
        convert(paper_head())


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (
            "second.weight",
            (32, 256),
            rf"exactly one weight \[32, 256\] .* found {WEIGHT_CONCENTRATION}\.weight, {HEAD}second\.weight",
        ),
        ("linear.weight", (2, 32), r"linear\.weight \[2, 32\] has no place"),
        ("norm.weight", (256,), r"norm\.weight \[256\] has no place"),
        ("logit_scale", (), r"logit_scale \[\] has no place"),
        ("linear_add_w.weight", (64, 128), r"exactly one weight \[64, 256\] .* found none"),
        ("linear_add_w.bias", (32,), r"linear_add_w\.bias \[32\] .* instead of \[64\]"),
    ],
)
def test_head_that_is_not_the_papers_is_refused_by_name(plain, name, shape, said):
    with pytest.raises(ValueError, match=said):
        convert(plain | paper_head() | {HEAD + name: torch.zeros(shape)})


def test_head_without_a_bias_is_refused_and_shown_whole(plain):
    head = paper_head()
    del head[f"{WEIGHT_MEAN}.bias"]
    with pytest.raises(
        ValueError, match=rf"{WEIGHT_MEAN}\.bias \[64\] .* is missing\nhead: all it has is {PIXEL_MEAN}\.weight \[32, 32\]"
    ):
        convert(plain | head)
