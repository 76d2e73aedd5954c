"""Rates and times left are those of steps."""

import math

from aligncli.engine.speed import Speed


def test_what_passes_between_steps_does_not_count():
    now = 0.0
    speed = Speed(lambda: now)
    for seconds, between in ((3.0, 100.0), (1.0, 50.0)):
        with speed.step():
            now += seconds
        now += between
    assert speed.told(batch_size=8, left=10) == {"images_per_second": 4.0, "eta_seconds": 20.0}


def test_before_the_first_step_nothing_is_known():
    assert all(math.isnan(value) for value in Speed().told(batch_size=8, left=10).values())
