"""A sampling command that is killed while it draws."""

from contextlib import contextmanager

import pytest

from psld.samplers import Sampler


@contextmanager
def killed_at_the_second_batch(monkeypatch):
    """What runs inside is interrupted, as by Ctrl-C, when it draws its second batch, and has to be."""
    draw, calls = Sampler.sample, []

    def killed(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return draw(*arguments, **options)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Sampler, "sample", killed)
        yield
