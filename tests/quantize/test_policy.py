"""Which rule takes which module, and which rules are refused."""

import pytest
import torch

from espnet_lite.config import from_plain, to_plain
from espnet_lite.decode.families import TransformerDecoderConfig
from espnet_lite.encoders.families import ENCODERS
from espnet_lite.errors import InputError
from espnet_lite.models.asr import AsrConfig, AsrModel
from espnet_lite.quantize.config import QuantizeConfig
from espnet_lite.quantize.layers import QuantizedDotProduct, QuantizedLinear
from espnet_lite.quantize.policy import Rule, policy_table, quantize_modules
from espnet_lite.quantize.quantizers import AbsmaxActivation, BitActivation, LsqActivation


def recognizer(encoder="transformer", **more) -> AsrModel:
    sizes = {"dim": 16, "heads": 2, "feed_forward": 24, "layers": 2, **more}
    if encoder == "squeezeformer":
        sizes |= {"layers": 3, "reduce_after": 1, "recover_after": 2}
    decoder = TransformerDecoderConfig(layers=1, heads=2, feed_forward=16)
    config = AsrConfig(encoder=ENCODERS[encoder][0](**sizes), decoder=decoder)
    torch.manual_seed(0)
    return AsrModel(config, vocab=6)


def rule(*kinds, **more) -> Rule:
    return Rule(kinds=kinds, **more)


def test_a_rule_takes_the_kinds_it_names_and_nothing_else():
    model = recognizer()
    plain = model.state_dict()
    placements = quantize_modules(
        model, [rule("feed_forward", weight_bits=1, activation_bits=1)], where="x.yaml"
    )
    assert [p.name for p in placements] == [
        f"encoder.blocks.{i}.feed_forward.{name}" for i in (0, 1) for name in ("expand", "contract")
    ]
    assert isinstance(model.encoder.blocks[0].feed_forward.expand, QuantizedLinear)
    assert not isinstance(model.encoder.blocks[0].attention.query, QuantizedLinear)
    assert set(plain) < set(model.state_dict())  # under their old names
    assert all(model.state_dict()[name] is not None for name in plain)


def test_activations_behind_relu_are_zero_and_one_and_behind_swish_signed():
    for encoder, activation, signed in (
        ("transformer", "relu", False),
        ("transformer", "gelu", True),
        ("conformer", "swish", True),
        ("conformer", "relu", False),
    ):
        model = recognizer(encoder, activation=activation)
        quantize_modules(model, [rule("feed_forward", activation_bits=1)], where="x.yaml")
        block = model.encoder.blocks[0]
        module = block.feed_forward if encoder == "transformer" else block.first_feed_forward
        assert module.contract.input_quantizer.signed == signed
        assert module.expand.input_quantizer.signed


def test_attention_has_a_scale_for_each_head_of_values_and_probabilities_without_sign():
    for bits, cls in ((1, BitActivation), (4, LsqActivation), (8, AbsmaxActivation)):
        model = recognizer()
        quantize_modules(model, [rule("attention_matmul", activation_bits=bits)], where="x")
        attention = model.encoder.blocks[0].attention.dot_product
        assert isinstance(attention, QuantizedDotProduct)
        assert type(attention.query) is type(attention.probabilities) is cls
        assert attention.value.groups == 2 and not attention.value.IS_DYNAMIC
        assert not attention.probabilities.signed and attention.probabilities.sparse


def test_positions_are_a_table_and_get_eight_bits():
    model = recognizer("conformer")
    quantize_modules(model, [rule("attention_linear", weight_bits=1, activation_bits=1)], where="x")
    attention = model.encoder.blocks[0].attention
    assert attention.position.input_quantizer.bits == 8
    assert attention.position.weight_quantizer.bits == 1 == attention.query.input_quantizer.bits


def test_every_kind_of_every_encoder_can_be_quantized_and_the_table_counts_them():
    kinds = ("attention_linear", "attention_matmul", "feed_forward", "subsampling", "head")
    for encoder in ("transformer", "conformer", "squeezeformer", "sparseformer"):
        convolution = () if "sparse" in encoder or "trans" in encoder else ("conv_pointwise",)
        convolution += ("conv_depthwise",) if convolution else ()
        model = recognizer(encoder)
        rules = [rule(*kinds, *convolution, weight_bits=1, activation_bits=1)]
        placements = quantize_modules(model, rules, where="x.yaml")
        table = policy_table(model, placements)
        assert sum(p.kind == "head" for p in placements) == 1
        lines = [line.split() for line in table.splitlines()]
        assert lines[0] == ["rule", "kind", "modules", "weights", "activations"]
        assert ["0", "head", "1", "bit", "1", "by", "channel", "bit", "1"] in lines
        assert lines[-1][:2] == ["-", "decoder"]
        counted = sum(int(line[2]) for line in lines[1:] if line[0] == "0")
        assert counted == len(placements)


def test_names_narrow_a_rule():
    model = recognizer()
    rules = [
        rule("feed_forward", weight_bits=8, modules=("encoder.blocks.0.*",)),
        rule("feed_forward", weight_bits=1, modules=("encoder.blocks.1.*",)),
    ]
    placements = quantize_modules(model, rules, where="x.yaml")
    assert [(p.name.split(".")[2], p.weight_bits) for p in placements] == [
        ("0", 8), ("0", 8), ("1", 1), ("1", 1)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [rule("conv_depthwise", weight_bits=1)],
            r"x\.yaml: rules\[0\]: takes nothing: .*conv_depthwise.*; the model has .*subsampling",
        ),
        (
            [rule("head", weight_bits=1, modules=("encoder.*",))],
            r"takes nothing: .* kinds head whose name fits encoder\.\*",
        ),
        (
            [rule("feed_forward", weight_bits=1), rule("head", "feed_forward", weight_bits=2)],
            r"x\.yaml: 'encoder\.blocks\.0\.feed_forward\.expand' is taken by rules\[0\] and by "
            r"rules\[1\]",
        ),
        (
            [rule("head", weight_bits=8), rule("attention_matmul", weight_bits=1)],
            r"rules\[1\]: quantizes nothing of attention_matmul: weight_bits 1, activation_bits 32, "
            "and attention_matmul has no weights; give it bits below 16",
        ),
        (
            [rule("attention_matmul", "conv_pointwise", weight_bits=1, activation_bits=16)],
            "quantizes nothing of attention_matmul: weight_bits 1, activation_bits 16",
        ),
        (
            [rule("head", "feed_forward", weight_bits=16)],
            "quantizes nothing of feed_forward, head: weight_bits 16, activation_bits 32; give",
        ),
        (
            [rule("head", "feed_forward", weight_bits=8, modules=("encoder.*", "typo.*"))],
            r"rules\[0\]: modules 'typo\.\*' fits no module of kinds head, feed_forward; mend it",
        ),
    ],
)
def test_rules_that_take_nothing_or_the_same_are_refused(rules, message):
    with pytest.raises(InputError, match=message):
        quantize_modules(recognizer(), rules, where="x.yaml")


def test_kinds_that_a_model_has_not_may_be_named_and_a_step_may_have_a_rule_that_waits():
    rules = [rule("attention_matmul", "conv_depthwise", weight_bits=1, activation_bits=8)]
    assert len(quantize_modules(recognizer(), rules, where="x.yaml")) == 2
    waiting = rule("feed_forward", weight_bits=1).at_least(weight_bits=32, activation_bits=8)
    placements = quantize_modules(recognizer(), [waiting], where="x.yaml", strict=False)
    assert {placement.weight_bits for placement in placements} == {32}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        ({"kinds": ["feedforward"]}, "unknown kind of module 'feedforward' .did you mean 'feed_forward'"),
        ({"kinds": ["decoder"]}, "kind 'decoder' cannot be quantized"),
        ({"kinds": []}, "kinds .* are none"),
        ({"kinds": ["head", "head"]}, "stands twice"),
        ({"kinds": ["head"], "weight_bits": 9}, "weight_bits 9 is not one of 1, 1.58, 2"),
        ({"kinds": ["head"], "activation_bits": 1.58}, "activation_bits: expected int"),
        ({"kinds": ["head"], "weight_bits": 2, "weight_quantizer": "bit"}, "bit has 1 bits, not weight_bits 2"),
        ({"kinds": ["head"], "weight_quantizer": "lqs"}, "unknown weight quantizer 'lqs' .did you mean 'lsq'"),
        ({"kinds": ["head"], "granularity": "row"}, "granularity 'row' is not channel or tensor"),
        ({"kind": ["head"]}, r"unknown key 'rules\[0\].kind' .did you mean 'kinds'"),
    ],
)  # fmt: skip
def test_rules_that_say_what_is_not_are_refused(plain, message):
    with pytest.raises(InputError, match=message) as error:
        from_plain(QuantizeConfig, {"rules": [plain]}, where="x.yaml")
    assert "rules[0]" in str(error.value)


def test_a_config_comes_back_from_its_plain_form():
    plain = {
        "rules": [{"kinds": ["head"], "weight_bits": 1.58, "activation_bits": 8}],
        "training": {"steps": [{"activation_bits": 8, "updates": 5}, {"updates": 6}]},
    }
    config = from_plain(QuantizeConfig, plain)
    assert from_plain(QuantizeConfig, to_plain(config)) == config
    assert config.rules[0].weight_bits == 1.58
    for steps, message in (
        ([{"updates": 0}], "updates 0 is not at least 1"),
        ([{"activation_bits": 8, "updates": 5}], "last of steps has activation_bits"),
    ):
        with pytest.raises(InputError, match=message):
            from_plain(QuantizeConfig, {**plain, "training": {"steps": steps}})
    with pytest.raises(InputError, match="rules: expected a list"):
        from_plain(QuantizeConfig, {"rules": {"kinds": ["head"]}})
    with pytest.raises(InputError, match="training without rules"):
        from_plain(QuantizeConfig, {"training": {}})


def test_a_step_raises_bits_and_takes_the_quantizer_of_so_many():
    low = rule(
        "head", weight_bits=1, activation_bits=1, weight_quantizer="bit", activation_quantizer="bit"
    )
    step = low.at_least(weight_bits=1, activation_bits=8)
    assert (step.weight_bits, step.weight_quantizer) == (1, "bit")
    assert (step.activation_bits, step.activation_quantizer) == (8, None)
    assert rule("head", activation_bits=16).at_least(weight_bits=1, activation_bits=8) == rule(
        "head", activation_bits=16
    )
