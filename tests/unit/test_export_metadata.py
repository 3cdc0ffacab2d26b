"""What webui, Forge and civitai find in a LoRA file's header."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import safe_open

from adapters import small_adapter, training_facts
from charalora_trainer.export import tensorfile, webui
from charalora_trainer.export.metadata import TrainedBase, TrainingFacts, file_hashes
from charalora_trainer.weights import Adapter, LoraModule


def metadata(folder: Path, facts: TrainingFacts | None) -> dict[str, str]:
    """As the safetensors library reads it."""
    with safe_open(webui.write(small_adapter(), folder / "lora.safetensors", facts), framework="pt") as file:
        return dict(file.metadata())


def test_a_file_without_facts_is_still_recognised(tmp_path: Path) -> None:
    """What kohya keeps in every file, Forge's key, and the hashes."""
    found = metadata(tmp_path, None)

    assert {"False", "sd_v1", "networks.lora"} == {found[f"ss_{key}"] for key in ("v2", "base_model_version", "network_module")}
    assert "stable-diffusion-v1/lora" == found["modelspec.architecture"]
    assert {"ss_network_dim", "ss_network_alpha", "ss_network_args", "sshs_model_hash", "sshs_legacy_hash"} <= found.keys()


def test_every_value_is_text_and_dictionaries_are_json(tmp_path: Path) -> None:
    """Webui parses only what begins with a brace."""
    found = metadata(tmp_path, training_facts())

    for key in ("ss_bucket_info", "ss_dataset_dirs", "ss_tag_frequency", "ss_network_args"):
        assert isinstance(json.loads(found[key]), dict)
        assert found[key].startswith("{")


def test_webuis_card_shows_the_training(tmp_path: Path) -> None:
    """The fields of its metadata editor."""
    found = metadata(tmp_path, training_facts())

    assert "surtr_arknights" == found["ss_output_name"]
    assert "animefull-latest" == found["ss_sd_model_name"]
    assert "2" == found["ss_clip_skip"]
    assert 1795377600.0 == float(found["ss_training_started_at"])
    assert {"0": {"resolution": [512, 704], "count": 24}, "1": {"resolution": [704, 512], "count": 6}} == json.loads(
        found["ss_bucket_info"]
    )["buckets"]
    assert {"surtr_dataset": {"n_repeats": 1, "img_count": 30}} == json.loads(found["ss_dataset_dirs"])
    assert [("1girl", 30), ("horns", 30), ("solo", 28)] == list(json.loads(found["ss_tag_frequency"])["surtr_dataset"].items())
    assert ("30", "(512, 704)") == (found["ss_num_train_images"], found["ss_resolution"])


def test_rates_are_the_effective_ones(tmp_path: Path) -> None:
    """After scaling with the batch: 4e-4 and 4e-5 for the guide's recipe."""
    found = metadata(tmp_path, training_facts())

    assert ("0.0004", "4e-05") == (found["ss_unet_lr"], found["ss_text_encoder_lr"])


def test_epochs_are_counted_in_whole_passes(tmp_path: Path) -> None:
    """30 pictures in batches of 4 are 8 steps; step 1000 is in pass 125."""
    found = metadata(tmp_path, training_facts())

    assert ("8", "125", "1000") == (found["ss_num_batches_per_epoch"], found["ss_epoch"], found["ss_steps"])


def test_the_model_specification_tells_how_to_use_it(tmp_path: Path) -> None:
    """Stability's modelspec 1.0.1."""
    found = metadata(tmp_path, training_facts(base_model=TrainedBase("nai", prediction="v_prediction")))

    assert "2026-11-22T20:30:00+00:00" == found["modelspec.date"]
    assert "surtr_arknights" == found["modelspec.trigger_phrase"]
    assert "<lora:surtr_arknights:0.85>" in found["modelspec.usage_hint"]
    assert ("512x704", "v", "2") == tuple(found[f"modelspec.{key}"] for key in ("resolution", "prediction_type", "encoder_layer"))


def test_ranks_that_differ_inside_a_model_are_dynamic(tmp_path: Path) -> None:
    """Kohya's word for it; one common rank is a number."""
    module = LoraModule(torch.ones(8, 3), torch.ones(5, 8), 1.0)
    file = webui.write(Adapter(unet={"conv_in": module}, text_encoder={}), tmp_path / "lora.safetensors")

    assert "Dynamic" == metadata(tmp_path, None)["ss_network_dim"]
    file = webui.write(Adapter(unet={"conv_in": module}, text_encoder={}), tmp_path / "lora.safetensors")
    assert ("8", "1") == tuple(tensorfile.read(file).metadata[key] for key in ("ss_network_dim", "ss_network_alpha"))


def test_the_base_models_hash_is_left_out_where_there_is_none(tmp_path: Path) -> None:
    """A folder of several files has no checkpoint hash."""
    sha256 = "ab" * 32

    assert "ss_new_sd_model_hash" not in metadata(tmp_path, training_facts())
    assert sha256 == metadata(tmp_path, training_facts(base_model=TrainedBase("nai", sha256)))["ss_new_sd_model_hash"]


def test_hashes_are_those_that_webui_and_civitai_compute(tmp_path: Path) -> None:
    """Model hash: what follows the header. Legacy: 64 KiB at 1 MiB of the file with the `ss_*` keys alone. AutoV2: the whole file."""
    big = Adapter(unet={"conv_in": LoraModule(torch.randn(64, 4000), torch.randn(4000, 64), 1.0)}, text_encoder={})
    file = webui.write(big, tmp_path / "lora.safetensors", training_facts())
    found, data = tensorfile.read(file).metadata, file.read_bytes()
    kohya = {key: value for key, value in found.items() if key.startswith("ss_")}
    plain = tensorfile.encode(tensorfile.read(file).tensors, kohya)
    behind_header = hashlib.sha256(data[8 + int.from_bytes(data[:8], "little") :]).hexdigest()

    assert behind_header == found["sshs_model_hash"] == found["modelspec.hash_sha256"].removeprefix("0x")
    assert hashlib.sha256(plain[0x100000:0x110000]).hexdigest()[:8] == found["sshs_legacy_hash"]
    assert (hashlib.sha256(data).hexdigest()[:10].upper(), behind_header[:12].upper()) == (
        file_hashes(file).auto_v2,
        file_hashes(file).auto_v3,
    )


def test_the_same_facts_give_the_same_bytes_and_another_time_other_ones(tmp_path: Path) -> None:
    """No clock is read: times are part of the facts."""
    facts = training_facts()
    later = replace(facts, saved=facts.started)
    files = [
        webui.write(small_adapter(), tmp_path / name, given).read_bytes()
        for name, given in (("1", facts), ("2", training_facts()), ("3", later))
    ]

    assert files[0] == files[1]
    assert files[0] != files[2]


def test_all_files_of_one_training_share_a_session(tmp_path: Path) -> None:
    """Steps do not count, another seed does."""
    sessions = [metadata(tmp_path, training_facts(**change))["ss_session_id"] for change in ({}, {"step": 100}, {"seed": 1})]

    assert sessions[0] == sessions[1]
    assert sessions[0] != sessions[2]
