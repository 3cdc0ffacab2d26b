"""A base model as a diffusers folder: a config and weights for each part, and what says how they belong together."""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from charalora_spec.outcome import Outcome, TrainingError
from charalora_trainer.basemodel import expected
from charalora_trainer.basemodel.configs import TextEncoderConfig, UnetConfig, VaeConfig, unusual
from charalora_trainer.basemodel.expected import plain
from charalora_trainer.basemodel.facts import BaseModelFacts, Source, invalid
from charalora_trainer.basemodel.header import FLOATS, TensorInfo, read_header
from charalora_trainer.basemodel.layout import INDEX, SCHEDULER, needed, weights_of
from charalora_trainer.basemodel.pickles import read_names
from charalora_trainer.finding import Finding
from charalora_trainer.storage import Entry

MAX_CONFIG = 1024 * 1024
_SECOND_PARTS = {"transformer", "text_encoder_2", "text_encoder_3", "controlnet"}
_WHOLE = "give a complete diffusers folder of a Stable Diffusion 1.x model"

_C = TypeVar("_C", bound=BaseModel)


def inspect_folder(source: Source) -> tuple[BaseModelFacts | None, list[Finding]]:
    """What the folder holds, and everything that is wrong with it.

    Raises:
        TrainingError: The store cannot be read.
    """
    entries = {entry.key: entry for entry in source.store.list()}
    if found := _no_folder(source, entries):
        return None, found
    folder = _Folder(source, entries)
    if kind := _other_kind(folder.json(INDEX)):
        return None, [invalid(f"{source.where} is {kind}; {_WHOLE}.")]
    facts = folder.facts()
    return (None if folder.found else facts), folder.found


class _Folder:
    """One look at a folder: reads what is asked for once and collects what is wrong in `found`."""

    def __init__(self, source: Source, entries: Mapping[str, Entry]) -> None:
        self._source, self._entries = source, entries
        self.found: list[Finding] = []

    def facts(self) -> BaseModelFacts | None:
        """All parts, each checked against its own config and then against the others."""
        unet, vae, text = (
            self._config("unet", UnetConfig),
            self._config("vae", VaeConfig),
            self._config("text_encoder", TextEncoderConfig),
        )
        dtype = self._part("unet", expected.unet(unet) if unet else None)
        self._part("vae", expected.vae(vae) if vae else None)
        self._part("text_encoder", expected.text_encoder(text) if text else None)
        prediction = self.json(SCHEDULER).get("prediction_type")
        if not ({"tokenizer/vocab.json", "tokenizer/merges.txt"} <= self._entries.keys() or "tokenizer/tokenizer.json" in self._entries):
            self._complain(f"has no tokenizer (vocab.json and merges.txt, or tokenizer.json); {_WHOLE}")
        if not (unet and vae and text):
            return None
        self._belong_together(unet, vae, text)
        return BaseModelFacts(
            uri=self._source.where,
            layout="diffusers",
            files=tuple(self._entries[key] for key in needed(self._entries)),
            weights={part: key for part in ("unet", "vae", "text_encoder") if (key := weights_of(part, self._entries))},
            text_width=text.hidden_size,
            vocabulary=text.vocab_size,
            latent_channels=vae.latent_channels,
            dtype=dtype,
            prediction=str(prediction) if prediction else None,
        )

    def json(self, key: str) -> dict[str, Any]:
        """A JSON object of the folder; an empty one, and a finding, where there is none."""
        entry = self._entries.get(key)
        if entry is None:
            self._complain(f"has no {key}; {_WHOLE}")
            return {}
        try:
            content = json.loads(self._source.store.read(key, 0, MAX_CONFIG))
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            self._complain(f"has a damaged {key}; upload it again")
            return {}
        return content

    def _config(self, part: str, form: type[_C]) -> _C | None:
        content = self.json(f"{part}/config.json")
        if not content:
            return None
        if part == "unet" and (odd := unusual(content)):
            self._complain(f"has a UNet that is no Stable Diffusion 1.x ({', '.join(odd[:3])}); {_WHOLE}")
            return None
        try:
            return form.model_validate(content)
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"]))
            self._complain(f"has a {part}/config.json that is no Stable Diffusion 1.x ({field}: {first['msg']}); {_WHOLE}")
            return None

    def _part(self, part: str, wanted: dict[str, tuple[int, ...]] | None) -> str | None:
        """Compare a part's tensors with its config. The data type of its first tensor, where the file tells."""
        key = weights_of(part, self._entries)
        if key is None:
            sharded = any(name.startswith(f"{part}/") and name.endswith(".index.json") for name in self._entries)
            self._complain(f"has its {part} in several files; save it in one" if sharded else f"has no weights of its {part}; {_WHOLE}")
            return None
        entry = self._entries[key]
        try:
            tensors = read_header(self._source.store, entry) if key.endswith(".safetensors") else read_names(self._source.store, entry)
        except TrainingError as error:
            if error.outcome is not Outcome.BASE_MODEL_INVALID:
                raise
            self.found.append(invalid(error.message))
            return None
        if wanted is None:
            return None
        tensors = {_today(part, name): info for name, info in tensors.items()}
        if problem := _difference(wanted, tensors):
            self._complain(f"has a {key} that does not fit its config.json ({problem}); {_WHOLE}")
            return None
        return tensors[next(iter(wanted))].dtype

    def _belong_together(self, unet: UnetConfig, vae: VaeConfig, text: TextEncoderConfig) -> None:
        if unet.cross_attention_dim == 1024:
            self._complain(f"is a Stable Diffusion 2; {_WHOLE}")
        elif unet.cross_attention_dim != text.hidden_size:
            self._complain(f"has a UNet for texts {unet.cross_attention_dim} wide and a text encoder {text.hidden_size} wide; {_WHOLE}")
        if unet.in_channels != vae.latent_channels or unet.out_channels != vae.latent_channels:
            what = {9: "an inpainting model", 8: "a model that edits pictures", 5: "a depth model"}.get(unet.in_channels, "of another kind")
            self._complain(f"has a UNet of {unet.in_channels} channels for latents of {vae.latent_channels}, so it is {what}; {_WHOLE}")
        if len(vae.block_out_channels) != 4:
            self._complain(f"has a VAE that makes pictures {2 ** (len(vae.block_out_channels) - 1)} times smaller, not 8 times; {_WHOLE}")
        if text.max_position_embeddings != 77:
            self._complain(f"has a text encoder of {text.max_position_embeddings} positions, not 77; {_WHOLE}")

    def _complain(self, what: str) -> None:
        self.found.append(invalid(f"The base model {self._source.where} {what}."))


def _no_folder(source: Source, entries: Mapping[str, Entry]) -> list[Finding]:
    """The one finding that makes all others pointless."""
    if not entries:
        return [invalid(f"There is no base model at {source.where}; correct baseModel.uri.")]
    if INDEX in entries:
        return []
    files = [key for key in entries if "/" not in key and key.endswith((".safetensors", ".ckpt"))]
    if files:
        return [invalid(f"{source.where} is no diffusers folder, but it holds model files; name one, such as {source.where}{files[0]}.")]
    return [invalid(f"{source.where} is no diffusers folder, for it has no {INDEX}; {_WHOLE}.")]


def _other_kind(index: Mapping[str, Any]) -> str | None:
    """What model_index.json says the model is, if not Stable Diffusion 1.x."""
    kind = str(index.get("_class_name", ""))
    if "XL" in kind:
        return "a Stable Diffusion XL"
    if not kind.startswith("StableDiffusion") or _SECOND_PARTS & index.keys():
        return f"a {kind or 'model without a name'}, which is not Stable Diffusion 1.x"
    return None


def _difference(wanted: Mapping[str, tuple[int, ...]], tensors: Mapping[str, TensorInfo]) -> str | None:
    """The first way in which the tensors are not what the config says."""
    missing = [name for name in wanted if name not in tensors]
    if missing:
        return f"{len(missing)} of {len(wanted)} tensors are missing, such as {missing[0]}"
    for name, shape in wanted.items():
        info = tensors[name]
        if info.shape is not None and plain(info.shape) != plain(shape):
            return f"{name} is {info.shape}, not {shape}"
        if info.dtype is not None and info.dtype not in FLOATS:
            return f"{name} has the type {info.dtype}; only F32, F16 and BF16 can be trained on"
    return None


def _today(part: str, name: str) -> str:
    """Names as they are written today: older VAEs call the matrices of their attention otherwise, newer text encoders drop a prefix."""
    if part == "text_encoder":
        return name if name.startswith("text_model.") else f"text_model.{name}"
    if part == "vae" and ".attentions." in name:
        for old, new in ((".query.", ".to_q."), (".key.", ".to_k."), (".value.", ".to_v."), (".proj_attn.", ".to_out.0.")):
            name = name.replace(old, new)
    return name
