"""A small real trainer: dropout, Adam, two schedulers, and a little of every global random generator."""

import math
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pipeline.errors import Interrupted
from pipeline.training import ranks
from pipeline.training.loop import fit
from pipeline.training.training_run import TrainingRun

STEPS = 4
CONFIG = {"lr": 0.01, "sizes": (5, 8, 1), "optimiser": {"name": "adam", "betas": [0.9, 0.999]}}
DATA = {"faces": {"digest": "abc", "count": 7}}


class ToyTrainer:
    """Regression on noise. `on_step(epoch, index)` is called within each step and may return a loss to report."""

    monitor = "valid/score"

    def __init__(self, seed=0, steps=STEPS, scores=None, on_step=None, on_validate=None):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        self.network = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.ReLU(), nn.Linear(8, 1))
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=0.01)
        self.decay = torch.optim.lr_scheduler.StepLR(self.optimiser, 2, 0.8)
        self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(self.optimiser, mode="max", patience=0)
        self.parts: tuple[Any, ...] = (self.network, self.optimiser, self.decay, self.plateau)
        self.scores, self.on_step, self.on_validate = scores, on_step, on_validate
        self.count = steps
        self.steps_made = 0
        ranks.broadcast_weights(self.network)
        if ranks.world_size() > 1:
            torch.manual_seed(100 + ranks.rank())  # every process drops out its own

    def steps(self, epoch):
        return self.count

    def step(self, epoch, index):
        generator = torch.Generator().manual_seed(1000 * epoch + 10 * index + ranks.rank())
        features = torch.randn(6, 5, generator=generator)
        features += np.random.normal() * 0.1 + random.random() * 0.1  # noqa: NPY002
        self.network.train()
        loss = (self.network(features) - features.sum(1, keepdim=True)).square().mean()
        self.optimiser.zero_grad()
        loss.backward()
        ranks.average_gradients(self.network.parameters())
        self.optimiser.step()
        self.steps_made += 1
        reported = self.on_step(epoch, index) if self.on_step else None
        return {"loss": float(loss.detach()) if reported is None else reported, "noise": np.random.uniform()}  # noqa: NPY002

    @torch.no_grad()
    def validate(self, epoch):
        if self.on_validate:
            self.on_validate(epoch)
        features = torch.randn(20, 5, generator=torch.Generator().manual_seed(7))
        self.network.eval()
        error = (self.network(features) - features.sum(1, keepdim=True)).square().mean()
        score = -float(error) if self.scores is None else self.scores[epoch - 1]
        score = ranks.from_first_rank(score)
        self.decay.step()
        self.plateau.step(np.float64(score))  # a NumPy number in a scheduler's state is easily had
        return {"valid/score": score, "valid/error": float(error), "valid/none": math.nan}

    def state(self):
        return {str(number): part.state_dict() for number, part in enumerate(self.parts)}

    def restore(self, state):
        for number, part in enumerate(self.parts):
            part.load_state_dict(state[str(number)])

    def weights(self):
        return dict(self.network.state_dict())

    def warning(self, epoch, metrics):
        return None


def train(out, trainer, *, epochs=3, config=CONFIG, data=DATA, notify=lambda sentence: None, **options):
    run = TrainingRun.create_or_resume(out, config, data, notify=notify)
    return fit(trainer, run, epochs=epochs, quiet=options.pop("quiet", True), notify=notify, **options)


def kill_at(epoch, index, number=signal.SIGTERM):
    """Have a trainer send its own process a signal in the middle of a step."""

    def on_step(*where):
        if where == (epoch, index):
            os.kill(os.getpid(), number)

    return on_step


def snapshot(out, trainer):
    """Everything that two equal runs must have equal."""
    files = ("metrics.jsonl", "metrics.parquet", "best.safetensors", "best.json")
    drawn = (torch.rand(3).tolist(), np.random.uniform(), random.random())  # noqa: NPY002
    return {name: (out / name).read_bytes() for name in files if (out / name).exists()}, trainer.state(), drawn


def equal(left, right):
    """Equal to the bit, through all levels; NaN equals NaN."""
    if isinstance(left, torch.Tensor):
        return torch.equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right or (isinstance(left, float) and math.isnan(left) and math.isnan(right))


if __name__ == "__main__":  # a process that dies while training: OUT EPOCH INDEX
    epoch, index = int(sys.argv[2]), int(sys.argv[3])
    try:
        train(Path(sys.argv[1]), ToyTrainer(on_step=kill_at(epoch, index, signal.SIGKILL)))
    except Interrupted:
        sys.exit("a SIGKILL was survived")
