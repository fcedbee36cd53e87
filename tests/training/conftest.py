"""What the tests of stored activations share."""

from __future__ import annotations

import pytest

from medtl.training.activations import CachePlan


@pytest.fixture
def counted(monkeypatch):
    """Images that went through the frozen layers, one number for each batch."""
    seen: list[int] = []
    run = CachePlan.run

    def counting(plan, images):
        seen.append(len(images))
        return run(plan, images)

    monkeypatch.setattr(CachePlan, "run", counting)
    return seen
