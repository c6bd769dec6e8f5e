"""Names, folders and models that load, and one line for those that do not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers

from probe import ProbeError, testbed
from probe.models.loading import load, resolve
from probe.models.video_model import VideoModel
from tests.tiny import example


@pytest.fixture(scope="module")
def folder(tiny: VideoModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoints") / "tiny"
    tiny.hf.save_pretrained(path)
    tiny.processor.save_pretrained(path)
    return path


def refused(name: object, words: str, **more) -> None:
    with pytest.raises(ProbeError, match=words) as error:
        load(name, **more)
    assert "\n" not in str(error.value)


def test_a_folder_gives_the_model_that_was_saved(folder: Path, tiny: VideoModel) -> None:
    for name in (folder, str(folder)):
        loaded = load(name, device_map="cpu")
        assert loaded.hf.dtype == torch.float32 and not loaded.hf.training
        state = loaded.hf.state_dict()
        assert all(torch.equal(state[key], value) for key, value in tiny.hf.state_dict().items())
    x, y = example(tiny), example(loaded)
    assert (x.inputs["input_ids"] == y.inputs["input_ids"]).all()
    assert (tiny.run(x).logits == loaded.run(y).logits).all()


def test_model_and_processor(tiny: VideoModel) -> None:
    for loaded in (load((tiny.hf, tiny.processor)), load(tiny.hf, tiny.processor)):
        assert loaded.hf is tiny.hf and loaded.processor is tiny.processor
        assert (loaded.n_layers, loaded.n_heads, loaded.n_kv_heads) == (4, 4, 2)
        assert (loaded.head_dim, loaded.width) == (8, 32)
    assert repr(loaded) == (
        "VideoModel(LlavaOnevisionForConditionalGeneration: LLaVA-OneVision, 4 layers, 4 heads, "
        "width 32)"
    )


def test_parts_of_the_model(tiny: VideoModel) -> None:
    assert tiny.layers is tiny.hf.model.language_model.layers
    assert tiny.vision is tiny.hf.model.vision_tower and tiny.head is tiny.hf.lm_head
    assert tiny.tokenizer is tiny.processor.tokenizer


def test_a_model_without_its_processor(tiny: VideoModel) -> None:
    refused(tiny.hf, "a model needs its processor")
    refused((tiny.hf, None), "a model needs its processor")
    refused(3, "int: not a transformers model")
    refused((torch.nn.Linear(1, 1), None), "Linear: not a transformers model")


@pytest.mark.parametrize(
    "name", ["nonsense", "a/b/c", "./nowhere", "/nowhere/at/all", "~/nowhere", ""]
)
def test_unknown_names(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    refused(name, "not a folder, a built-in checkpoint or a Hugging Face id")


def test_unknown_built_in_name() -> None:
    refused("testbed/nonsense", "testbed/nonsense: no such built-in checkpoint; there is")


def test_hub_ids_without_the_hub(monkeypatch) -> None:
    def offline(*_, **__):
        raise OSError("We couldn't connect to the hub\nand so on\n")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", offline)
    refused("nobody/nothing", "^nobody/nothing: cannot be loaded: We couldn't connect to the hub$")
    refused("hf:testbed/onevision", "^hf:testbed/onevision: cannot be loaded")


def test_built_in_names_win_and_prefixes_force(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(testbed, "names", lambda: ["onevision"])
    monkeypatch.setattr(testbed, "checkpoint", lambda name: Path("/built-in") / name)
    (tmp_path / "testbed" / "onevision").mkdir(parents=True)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert resolve("hf:testbed/clips") == "testbed/clips"
    assert resolve("testbed/onevision") == Path("/built-in/onevision")
    assert resolve("./testbed/onevision") == Path("testbed/onevision")
    assert resolve(str(tmp_path / "testbed/onevision")) == tmp_path / "testbed/onevision"
    assert resolve("owner/name") == Path("owner/name")
    assert resolve("hf:owner/other") == "owner/other"
    assert resolve("some/other") == "some/other"


def test_hf_forces_the_hub_even_where_a_folder_has_the_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    refused("owner/name", "the folder has no config.json")
    refused("hf:owner/name", "owner/name is a folder here")


def test_folder_without_a_checkpoint(tmp_path: Path) -> None:
    refused(tmp_path, "the folder has no config.json")
    (tmp_path / "config.json").write_text("{not json")
    refused(tmp_path, "config.json is not JSON")
    (tmp_path / "config.json").write_text("[1]")
    refused(tmp_path, "config.json is not JSON")
    (tmp_path / "config.json").write_bytes(b"\xff\xfe\x00")
    refused(tmp_path, "config.json is not JSON")


@pytest.mark.parametrize("model_type", ["qwen2", "gemma3", "made_up", None])
def test_families_without_a_layout(tmp_path: Path, model_type: str | None) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "model.safetensors").touch()
    refused(tmp_path, f"no token layout for the family '{model_type}'.*with one: glm4v")


def test_a_model_of_a_family_without_a_layout(tiny: VideoModel) -> None:
    config = transformers.Qwen2Config(
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        intermediate_size=8,
        vocab_size=8,
    )
    hf = transformers.Qwen2ForCausalLM(config)
    refused((hf, tiny.processor), "no token layout for the family 'qwen2'")


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ("pytorch_model.bin", r"only pickle weights \(pytorch_model.bin\); convert them"),
        ("weights.pt", r"only pickle weights \(weights.pt\)"),
        (None, "the folder has no weights"),
    ],
)
def test_pickles_are_never_run(folder: Path, tmp_path: Path, weights, words: str) -> None:
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    if weights:
        (tmp_path / weights).write_bytes(b"cos\nsystem\n(S'touch ran'\ntR.")
    refused(tmp_path, words)
    assert not Path("ran").exists()


def test_broken_safetensors(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"\x08" + bytes(20))
    refused(tmp_path, "cannot be loaded", device_map="cpu")


def test_a_checkpoint_with_weights_missing(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights.pop(next(key for key in sorted(weights) if "q_proj" in key))
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, "1 weights are missing from the checkpoint, for example .*q_proj")
    weights = {key: value[:1] for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    refused(tmp_path, "cannot be loaded|missing from the checkpoint")


def test_folder_without_a_processor(folder: Path, tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    refused(tmp_path, "cannot be loaded", device_map="cpu")
