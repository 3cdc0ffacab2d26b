"""The golden values of the guide's system, on the real shapes of Stable Diffusion 1.5."""

import resource

import pytest
import torch

from builders import character_lora
from charalora_trainer.learner import Learner
from charalora_trainer.loss import NoisyBatch
from charalora_trainer.model.load import DiffusionModels
from charalora_trainer.model.lora import add_lora, lora_parameters
from charalora_trainer.model.text import encode_ids
from charalora_trainer.words.prompt import PromptTokenizer
from sd15 import random_models, shapes

GUIDE = character_lora(dataset__width=512, dataset__height=704).spec
STEPS = 3
LATENT_WIDTH, LATENT_HEIGHT = 512 // 8, 704 // 8


@pytest.fixture(scope="module")
def adapted() -> DiffusionModels:
    models = shapes()
    add_lora(models, GUIDE.training.lora)
    return models


def test_exactly_160_unet_and_72_text_encoder_modules_are_adapted(adapted: DiffusionModels) -> None:
    """Two matrices a module, 3,655,680 parameters in all at ranks 8 and 4."""
    unet, text = lora_parameters(adapted.unet), lora_parameters(adapted.text_encoder)
    assert (len(unet), len(text)) == (2 * 160, 2 * 72)
    assert (sum(p.numel() for p in unet), sum(p.numel() for p in text)) == (2_992_128, 663_552)


def test_only_lora_is_trainable(adapted: DiffusionModels) -> None:
    """The base model is frozen, its VAE included."""
    modules = (adapted.unet, adapted.text_encoder, adapted.vae)
    trainable = sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)
    assert trainable == 2_992_128 + 663_552


def test_a_word_of_four_vectors_takes_four_ids_behind_clips_vocabulary() -> None:
    """The first is 49408; beginning and end are 49406 and 49407."""
    tokenizer = PromptTokenizer(shapes().tokenizer, {"surtr_arknights": 4})
    (ids,) = tokenizer.encode("1girl, surtr_arknights").ids
    assert ids[0] == 49406
    assert [token for token in ids if token >= 49408] == [49408, 49409, 49410, 49411]
    assert set(ids[-60:]) == {49407}


def test_three_steps_of_the_guide_in_bf16_at_512_by_704() -> None:
    """Real steps on real shapes: finite losses, every matrix moves, and the process stays below 8 GiB."""
    models = random_models(torch.bfloat16)
    spec = character_lora(training__batchSize=1, training__precision="bf16", training__learningRate__warmupSteps=0).spec
    learner = Learner.on(models, spec, torch.device("cpu"), processes=1)
    before = learner.flat.master.clone()
    ids = torch.tensor([learner.tokenizer.encode("a drawing of surtr_arknights, 1girl, solo").ids])
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, LATENT_HEIGHT, LATENT_WIDTH, generator=generator)

    losses = []
    for step in range(1, STEPS + 1):
        noise = torch.randn(latents.shape, generator=generator)
        loss = learner.loss(NoisyBatch(latents, noise, torch.tensor([500])), ids)
        learner.optimizer.backward(loss)
        learner.optimizer.step(step)
        losses.append(loss.item())

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"losses {losses}, peak {peak:.2f} GiB, gradient norm {learner.optimizer.gradient_norm.item():.4f}")
    assert learner.optimizer.nonfinite_steps.item() == 0
    assert all(0 < loss < 10 for loss in losses)
    moved = {name: bool((learner.flat.master[span] != before[span]).any()) for name, span in learner.flat.spans.items()}
    assert moved == {"unet": True, "text_encoder": True, "embedding": True}
    assert peak < 8
    assert encode_ids(models.text_encoder, ids, clip_skip=1).shape == (1, 77, 768)
