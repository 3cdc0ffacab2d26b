"""All that is learned in one flat buffer, and the optimizer step over it.

The modules' matrices are views of the buffer. So one all-reduce, one norm and one fused AdamW kernel a group serve hundreds of small
matrices, a checkpoint is four tensors, and half-precision modules have fp32 masters without casts in the forward pass.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from charalora_spec.spec import CharacterLoraSpec, Precision
from charalora_trainer.rates import Rates, effective_rates, schedule_factor

GROUPS = ("unet", "text_encoder", "embedding")
ALIGNMENT = 16  # elements: every view starts at a multiple of 64 bytes, so kernels take the same path in every run
FP16_SCALE = 2.0**16
FP16_GROWTH_STEPS = 2000
NAN_STEPS_IN_A_ROW = 20  # fp16 starts with a scale that may overflow a dozen times


class FlatParameters:
    """The trainable matrices of all groups as views of one buffer, with their gradients.

    Args:
        groups: Parameters by group name, on their device; each is re-pointed into the buffer.
        initial: Their values in fp32, in the same order.
        dtype: What the modules compute in. fp32 shares the masters; else the modules see a half-precision copy of them.
    """

    def __init__(self, groups: Mapping[str, Sequence[nn.Parameter]], initial: Mapping[str, Sequence[Tensor]], dtype: torch.dtype) -> None:
        device = next(parameter.device for parameters in groups.values() for parameter in parameters)
        self.spans: dict[str, slice] = {}
        self._places: dict[nn.Parameter, slice] = {}
        end = 0
        for name, parameters in groups.items():
            start = end
            for parameter in parameters:
                self._places[parameter] = slice(end, end + parameter.numel())
                end += math.ceil(parameter.numel() / ALIGNMENT) * ALIGNMENT
            self.spans[name] = slice(start, end)
        self.master = torch.zeros(end, dtype=torch.float32, device=device)
        self.working = self.master if dtype is torch.float32 else torch.zeros(end, dtype=dtype, device=device)
        self.working_gradient = torch.zeros_like(self.working)
        self.gradient = self.working_gradient if dtype is torch.float32 else torch.zeros_like(self.master)
        values = (value for group in initial.values() for value in group)
        for (parameter, place), value in zip(self._places.items(), values, strict=True):
            self.master[place].copy_(value.flatten())
            parameter.data = self.working[place].view(parameter.shape)
            parameter.grad = self.working_gradient[place].view(parameter.shape)
        self.publish()

    def value(self, parameter: nn.Parameter) -> Tensor:
        """A copy of one parameter's master, fp32 on the CPU, in its own shape."""
        return self.master[self._places[parameter]].view(parameter.shape).to("cpu", copy=True)

    def publish(self) -> None:
        """Let the modules see the masters."""
        if self.working is not self.master:
            self.working.copy_(self.master)

    def collect(self) -> None:
        """Add what a backward pass left in the modules' gradients to the fp32 gradient; nothing to do in fp32."""
        if self.working_gradient is not self.gradient:
            self.gradient.add_(self.working_gradient)
            self.working_gradient.zero_()

    def reduce(self) -> None:
        """Mean of the gradients of all processes, in one message."""
        if dist.is_initialized() and dist.get_world_size() > 1:
            dist.all_reduce(self.gradient)
            self.gradient.div_(dist.get_world_size())


class Optimizer:
    """AdamW over the flat groups, with warm-up, clipping of the joint norm, loss scaling in fp16, and non-finite steps skipped.

    Nothing here waits for the device: whether a step was skipped is decided by the fused kernel from a flag on the device.
    """

    def __init__(self, flat: FlatParameters, spec: CharacterLoraSpec, processes: int) -> None:
        self._flat = flat
        self._training = spec.training
        self.rates = effective_rates(spec.training, processes)
        decays = spec.training.optimizer
        self._masters = {name: nn.Parameter(flat.master[span]) for name, span in flat.spans.items()}
        for name, span in flat.spans.items():
            self._masters[name].grad = flat.gradient[span]
        self._adamw = torch.optim.AdamW(
            [
                {"params": [master], "weight_decay": decays.embedding_weight_decay if name == "embedding" else decays.weight_decay}
                for name, master in self._masters.items()
            ],
            lr=0.0,
            fused=True,
        )
        device = flat.master.device
        self.scale = torch.tensor(FP16_SCALE if spec.training.precision is Precision.FP16 else 1.0, device=device)
        self._dynamic_scale = spec.training.precision is Precision.FP16
        self._finite_in_a_row = torch.zeros((), device=device)
        self.nonfinite_steps = torch.zeros((), device=device)
        self.nonfinite_in_a_row = torch.zeros((), device=device)
        self.gradient_norm = torch.zeros((), device=device)

    def rates_at(self, step: int) -> Rates:
        """The rates that optimizer step `step` (from 1) uses."""
        factor = schedule_factor(self._training, step)
        return Rates(*(rate * factor for rate in self.rates))

    def backward(self, loss: Tensor) -> None:
        """Accumulate the gradients of one micro batch."""
        torch.autograd.backward(loss * self.scale if self._dynamic_scale else loss)
        self._flat.collect()

    def step(self, step: int) -> None:
        """One optimizer step (`step` counts from 1): reduce, clip, update, publish, clear."""
        self._flat.reduce()
        gradient = self._flat.gradient
        if self._dynamic_scale:
            gradient.div_(self.scale)
        self.gradient_norm = torch.linalg.vector_norm(gradient)
        finite = torch.isfinite(self.gradient_norm)
        limit = self._training.optimizer.max_grad_norm
        gradient.mul_((limit / (self.gradient_norm + 1e-6)).clamp(max=1.0))
        self._count(finite)
        for group, rate in zip(self._adamw.param_groups, self.rates_at(step), strict=True):
            group["lr"] = rate
        # The protocol of torch.amp.GradScaler with fused optimizers: a step with found_inf = 1 changes nothing.
        self._adamw.found_inf = 1.0 - finite.float()  # type: ignore[attr-defined]
        self._adamw.step()
        self._flat.publish()
        gradient.zero_()

    def state(self) -> dict[str, Tensor]:
        """What has to be saved so that training goes on bit by bit: copies on the CPU."""
        tensors = {
            "master": self._flat.master,
            "scale": self.scale,
            "finite_in_a_row": self._finite_in_a_row,
            "nonfinite_steps": self.nonfinite_steps,
        }
        tensors["nonfinite_in_a_row"] = self.nonfinite_in_a_row
        for name, master in self._masters.items():
            for key, value in self._adamw.state[master].items():
                tensors[f"{name}.{key}"] = value
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Continue from what `state` returned.

        Raises:
            KeyError: When a tensor is missing.
            RuntimeError: When a shape differs.
        """
        self._flat.master.copy_(tensors["master"])
        self.scale.copy_(tensors["scale"])
        self._finite_in_a_row.copy_(tensors["finite_in_a_row"])
        self.nonfinite_steps.copy_(tensors["nonfinite_steps"])
        self.nonfinite_in_a_row.copy_(tensors["nonfinite_in_a_row"])
        for name, master in self._masters.items():
            device = self._flat.master.device
            self._adamw.state[master] = {key: tensors[f"{name}.{key}"].to(device, copy=True) for key in ("step", "exp_avg", "exp_avg_sq")}
        self._flat.publish()

    def _count(self, finite: Tensor) -> None:
        skipped = 1.0 - finite.float()
        self.nonfinite_steps.add_(skipped)
        self.nonfinite_in_a_row.add_(skipped).mul_(skipped)
        if self._dynamic_scale:
            self._finite_in_a_row.add_(1).mul_(finite)
            grow = self._finite_in_a_row >= FP16_GROWTH_STEPS
            self.scale.mul_(torch.where(grow, 2.0, 1.0)).mul_(torch.where(finite, 1.0, 0.5))
            self._finite_in_a_row.mul_(~grow)
