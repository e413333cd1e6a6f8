from pathlib import Path

import pytest

from benchmarks.job import Job, Model, Target


@pytest.mark.parametrize("model", [None, Model("resnet18", "IMAGENET1K_V1")])
def test_job_is_the_same_after_it_travelled_as_text(model):
    target = Target("http://127.0.0.1/a.pth", "a.pth", "0" * 64, 7)
    job = Job((target,), Path("/into"), Path("/local"), repeats=2, ca_file=Path("/ca.pem"), model=model)

    assert Job.parse(str(job)) == job
