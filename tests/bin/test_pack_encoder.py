"""The packed encoder holds what the experiment holds, matrices rounded to bf16."""

import torch
from safetensors.torch import save_file

from espnet_lite.bin import pack_encoder
from espnet_lite.models.pretrained import read_pretrained


def test_weights_come_back_and_a_missing_experiment_is_one_line(tmp_path, capsys):
    weights = {
        "front_end.a": torch.randn(3),
        "encoder.b": torch.randn(4, 5),
        "mask_embedding": torch.randn(2),
    }
    expdir = tmp_path / "exp"
    expdir.mkdir()
    save_file(weights, expdir / "model.safetensors")
    (expdir / "config.yaml").write_text("model: {front_end: {name: x}, encoder: {name: y}}\n")
    for options, names in (([], {"front_end.a", "encoder.b"}), (["--keep_heads"], set(weights))):
        output = tmp_path / "encoder.safetensors"
        assert pack_encoder.main(["--expdir", str(expdir), "--output", str(output), *options]) == 0
        read, config = read_pretrained(output)
        assert set(read) == names and config["encoder"] == {"name": "y"}
        assert torch.equal(read["front_end.a"], weights["front_end.a"])
        assert torch.equal(read["encoder.b"], weights["encoder.b"].bfloat16().float())
    capsys.readouterr()
    absent = ["--expdir", str(tmp_path / "absent"), "--output", str(tmp_path / "no")]
    assert pack_encoder.main(absent) == 2
    assert capsys.readouterr().err.count("\n") == 1 and not (tmp_path / "no").exists()
