"""Rates, warm-up, clipping, skipped steps, and the flat buffer, each against torch's own AdamW."""

import math

import pytest
import torch
from torch import Tensor, nn

from builders import character_lora
from charalora_spec.spec import CharacterLoraSpec
from charalora_trainer.optimizer import FlatParameters, Optimizer
from charalora_trainer.rates import effective_rates, schedule_factor


def spec(**overrides: object) -> CharacterLoraSpec:
    return character_lora(**overrides).spec


def groups(seed: int = 0) -> dict[str, list[nn.Parameter]]:
    torch.manual_seed(seed)
    return {
        "unet": [nn.Parameter(torch.randn(3, 5)), nn.Parameter(torch.randn(7, 3))],
        "text_encoder": [nn.Parameter(torch.randn(2, 4))],
        "embedding": [nn.Parameter(torch.randn(4, 6))],
    }


def flat(parameters: dict[str, list[nn.Parameter]], dtype: torch.dtype = torch.float32) -> FlatParameters:
    return FlatParameters(parameters, {name: [p.detach().clone() for p in ps] for name, ps in parameters.items()}, dtype)


def loss_of(parameters: dict[str, list[nn.Parameter]]) -> Tensor:
    return torch.stack([(p.float() ** 3).sum() for ps in parameters.values() for p in ps]).sum()


def test_the_guides_rates_at_batch_4_on_one_gpu() -> None:
    """1e-4, 1e-5 and 3e-3 become 4e-4, 4e-5 and 1.2e-2."""
    assert effective_rates(spec().training, processes=1) == pytest.approx((4e-4, 4e-5, 1.2e-2))


def test_rates_grow_with_processes_and_accumulation() -> None:
    """The factor is batch × processes × accumulation."""
    training = spec(training__batchSize=2, training__gradientAccumulation=3).training
    assert effective_rates(training, processes=4) == pytest.approx((24e-4, 24e-5, 72e-3))


def test_rates_stay_as_written_without_scaling() -> None:
    """scaleWithBatch: false means what it says."""
    assert effective_rates(spec(training__learningRate__scaleWithBatch=False).training, processes=8) == pytest.approx((1e-4, 1e-5, 3e-3))


def test_warm_up_starts_at_zero_and_rises_by_a_fiftieth() -> None:
    """The factor of step s is (s - 1) / 50: the first step runs at rate 0, as in the guide's system."""
    training = spec().training
    assert [schedule_factor(training, step) for step in (1, 2, 26, 51, 1000)] == [0.0, 0.02, 0.5, 1.0, 1.0]


@pytest.mark.parametrize(("schedule", "half_way"), [("linear", 0.5), ("cosine", 0.5), ("constant", 1.0)])
def test_schedules_half_way_after_the_warm_up(schedule: str, half_way: float) -> None:
    """Linear and cosine are at a half in the middle."""
    training = spec(training__steps=150, training__learningRate__schedule=schedule).training
    assert schedule_factor(training, 101) == pytest.approx(half_way)


def test_parameters_become_views_of_one_buffer() -> None:
    """Values stay, and what changes in the buffer changes in the module."""
    parameters = groups()
    before = [p.detach().clone() for ps in parameters.values() for p in ps]
    buffer = flat(parameters)

    assert all(torch.equal(b, p) for b, p in zip(before, (p for ps in parameters.values() for p in ps), strict=True))
    buffer.master.zero_()
    assert all(p.abs().sum() == 0 for ps in parameters.values() for p in ps)


def test_ten_steps_equal_torchs_adamw_with_clipping() -> None:
    """The flat step is torch's clip_grad_norm_ over all groups and AdamW with each group's rate and decay."""
    ours, theirs = groups(), groups()
    asked = spec(training__learningRate__warmupSteps=0, training__optimizer__weightDecay=0.1, training__optimizer__embeddingWeightDecay=0.2)
    optimizer = Optimizer(flat(ours), asked, processes=1)
    rates = effective_rates(asked.training, 1)
    decays = {"unet": 0.1, "text_encoder": 0.1, "embedding": 0.2}
    reference = torch.optim.AdamW([{"params": ps, "lr": getattr(rates, name), "weight_decay": decays[name]} for name, ps in theirs.items()])

    for step in range(1, 11):
        optimizer.backward(loss_of(ours))
        optimizer.step(step)
        reference.zero_grad()
        torch.autograd.backward(loss_of(theirs))
        torch.nn.utils.clip_grad_norm_([p for ps in theirs.values() for p in ps], 1.0)
        reference.step()

    for name, parameters in ours.items():
        for p, q in zip(parameters, theirs[name], strict=True):
            torch.testing.assert_close(q, p, rtol=1e-5, atol=1e-6)


def test_accumulated_micro_batches_add_up() -> None:
    """Two backward passes of half the loss are one of the whole."""
    once, twice = groups(), groups()
    one, two = Optimizer(flat(once), spec(), 1), Optimizer(flat(twice), spec(), 1)
    one.backward(loss_of(once))
    for _ in range(2):
        two.backward(loss_of(twice) / 2)
    one.step(1)
    two.step(1)

    torch.testing.assert_close(one.gradient_norm, two.gradient_norm)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_step_that_is_not_finite_changes_nothing_and_is_counted(bad: float) -> None:
    """Weights, moments and their step count stay as they were, bit by bit; the next good step goes on."""
    parameters = groups()
    buffer = flat(parameters)
    optimizer = Optimizer(buffer, spec(), 1)
    optimizer.backward(loss_of(parameters))
    optimizer.step(60)
    before = optimizer.state()

    optimizer.backward(loss_of(parameters) * bad)
    optimizer.step(61)

    after = optimizer.state()
    counters = {"nonfinite_steps", "nonfinite_in_a_row"}
    assert {name for name in before if not torch.equal(before[name], after[name])} == counters
    assert after["nonfinite_in_a_row"].item() == 1
    optimizer.backward(loss_of(parameters))
    optimizer.step(62)
    assert (optimizer.nonfinite_steps.item(), optimizer.nonfinite_in_a_row.item()) == (1, 0)
    assert torch.isfinite(buffer.master).all()


def test_a_resumed_optimizer_goes_on_bit_by_bit() -> None:
    """Three steps are one step, a saved state, and two steps of a new optimizer."""
    whole, parts = groups(), groups()
    straight = Optimizer(flat(whole), spec(), 1)
    for step in (60, 61, 62):
        straight.backward(loss_of(whole))
        straight.step(step)
    first = Optimizer(flat(parts), spec(), 1)
    first.backward(loss_of(parts))
    first.step(60)
    saved = first.state()

    fresh = groups(seed=9)
    second = Optimizer(flat(fresh), spec(), 1)
    second.load_state(saved)
    for step in (61, 62):
        second.backward(loss_of(fresh))
        second.step(step)

    assert all(torch.equal(a, b) for a, b in zip(straight.state().values(), second.state().values(), strict=True))


def test_half_precision_modules_have_fp32_masters() -> None:
    """A change too small for bf16 is kept in the master until it shows."""
    parameters = {name: [nn.Parameter(p.detach().bfloat16()) for p in ps] for name, ps in groups().items()}
    buffer = FlatParameters(parameters, {name: [p.detach().float() for p in ps] for name, ps in parameters.items()}, torch.bfloat16)
    seen = parameters["unet"][0].detach().clone()
    buffer.master.mul_(1 + 1e-4)
    buffer.publish()

    assert torch.equal(seen, parameters["unet"][0])
    assert not torch.equal(seen.float(), buffer.value(parameters["unet"][0]))


def test_fp16_scale_halves_on_overflow_and_doubles_after_2000_good_steps() -> None:
    """The loss scale follows torch.amp.GradScaler's rule."""
    parameters = groups()
    optimizer = Optimizer(flat(parameters), spec(training__precision="fp16"), 1)
    start = optimizer.scale.item()
    optimizer.backward(loss_of(parameters) * math.inf)
    optimizer.step(1)
    assert optimizer.scale.item() == start / 2

    for _ in range(2000):
        optimizer.step(2)
    assert optimizer.scale.item() == start
