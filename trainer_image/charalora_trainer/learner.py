"""A base model with what is learned on it: the word's rows, the LoRA of both models, and the optimizer over them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from charalora_spec.spec import CharacterLoraSpec, Precision
from charalora_trainer.loss import NoiseSchedule, NoisyBatch, diffusion_losses
from charalora_trainer.model.load import DiffusionModels
from charalora_trainer.model.lora import adapter_of, add_lora, lora_parameters
from charalora_trainer.model.text import encode_ids, splice
from charalora_trainer.optimizer import FlatParameters, Optimizer
from charalora_trainer.weights import Adapter, Word
from charalora_trainer.words import embedding
from charalora_trainer.words.prompt import PromptTokenizer

DTYPES = {Precision.BF16: torch.bfloat16, Precision.FP16: torch.float16, Precision.FP32: torch.float32}


@dataclass(frozen=True)
class Learner:
    """Everything that one process trains with.

    Attributes:
        spec: What was asked for.
        models: The base model on its device, with untrained or trained LoRA modules in it.
        rows: `[vectors, dim]` what the trigger word is replaced with after the token lookup; a view of `flat`.
        flat: All that is learned, in one buffer.
        optimizer: The update of that buffer.
        tokenizer: Knows the trigger word.
        schedule: Noise levels on the device.
    """

    spec: CharacterLoraSpec
    models: DiffusionModels
    rows: nn.Parameter
    flat: FlatParameters
    optimizer: Optimizer
    tokenizer: PromptTokenizer
    schedule: NoiseSchedule

    @classmethod
    def on(cls, models: DiffusionModels, spec: CharacterLoraSpec, device: torch.device, processes: int) -> "Learner":
        """Put untrained LoRA modules and a new word into a base model; the seed decides both, so every process gets the same.

        Raises:
            TrainingError: `WordTaken` when the trigger word means something to the tokenizer already.
        """
        character = spec.character
        table = models.text_encoder.get_input_embeddings().weight.detach()
        word = embedding.create(character.name, character.vectors, character.init_text, spec.training.seed, table, models.tokenizer)
        torch.manual_seed(spec.training.seed)
        add_lora(models, spec.training.lora)
        rows = nn.Parameter(word.vectors.clone())
        splice(models.text_encoder, rows)
        groups = {"unet": lora_parameters(models.unet), "text_encoder": lora_parameters(models.text_encoder), "embedding": [rows]}
        initial = {name: [parameter.detach().clone() for parameter in parameters] for name, parameters in groups.items()}
        dtype = DTYPES[spec.training.precision]
        models.to(device, dtype)
        flat = FlatParameters(groups, initial, dtype)
        optimizer = Optimizer(flat, spec, processes)
        tokenizer = PromptTokenizer(models.tokenizer, {character.name: character.vectors})
        return cls(spec, models, rows, flat, optimizer, tokenizer, NoiseSchedule.of(models.scheduler, spec.base_model.prediction, device))

    def loss(self, batch: NoisyBatch, ids: Tensor) -> Tensor:
        """The training objective of one micro batch; `ids` are `[B, N, 77]` token ids."""
        return self.losses(batch, ids).mean()

    def losses(self, batch: NoisyBatch, ids: Tensor) -> Tensor:
        """The same for each sample, `[B]`."""
        conditioning = encode_ids(self.models.text_encoder, ids, self.spec.training.clip_skip)
        return diffusion_losses(self.models.unet, batch, conditioning, self.schedule, self.spec.training.loss)

    def training(self, *, active: bool) -> None:
        """Switch LoRA dropout on or off."""
        self.models.unet.train(active)
        self.models.text_encoder.train(active)

    def word(self) -> Word:
        """A copy of the trigger word's rows as they are now, in fp32 on the CPU."""
        return Word(self.spec.character.name, self.flat.value(self.rows))

    def adapter(self) -> Adapter:
        """A copy of the LoRA as it is now, in fp32 on the CPU."""
        return adapter_of(self.models, self.flat.value)
