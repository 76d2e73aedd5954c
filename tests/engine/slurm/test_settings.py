"""`--slurm KEY=VALUE` as sbatch's options; what cannot be meant is refused in one line."""

import pytest
from submitit import AutoExecutor, SlurmExecutor

from aligncli.engine.slurm.settings import OF_SBATCH, SlurmSettings, parse_settings
from aligncli.errors import UserError


def test_each_key_has_its_type_and_the_others_keep_their_defaults():
    settings = parse_settings(["partition=gpu", "cpus_per_task=4", "mem_gb=30.5", "constraint=a=b", "partition=long"])
    assert settings == SlurmSettings(partition="long", cpus_per_task=4, mem_gb=30.5, constraint="a=b")
    assert parse_settings([]) == SlurmSettings()


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("partitoin=gpu", r"--slurm knows no key 'partitoin': did you mean 'partition'\?"),
        ("zzz=1", "--slurm knows no key 'zzz': keys are gpus_per_node, cpus_per_task, mem_gb"),
        ("partition", "cannot read --slurm 'partition': expected KEY=VALUE, as in --slurm partition=gpu"),
        ("partition=", "cannot read --slurm 'partition=': expected KEY=VALUE"),
        ("=gpu", "cannot read --slurm '=gpu': expected KEY=VALUE"),
        ("timeout_min=2-00:00", "--slurm timeout_min=2-00:00: expected a whole number from 1 up"),
        ("gpus_per_node=-1", "--slurm gpus_per_node=-1: expected a whole number from 0 up"),
        ("mem_gb=64GB", "--slurm mem_gb=64GB: expected a number from 1 up"),
        ("mem_gb=nan", "--slurm mem_gb=nan: expected a number from 1 up"),
        ("mem_gb=inf", "--slurm mem_gb=inf: expected a number from 1 up"),
    ],
)
def test_a_wrong_setting_is_named_with_what_was_expected(assignment, message):
    with pytest.raises(UserError, match=message):
        parse_settings([assignment])


def test_a_gpu_is_asked_for_and_trained_on_unless_none_is_wanted():
    assert SlurmSettings().parameters()["gpus_per_node"] == 1
    assert SlurmSettings().device == "cuda"
    without = parse_settings(["gpus_per_node=0", "gres=lscratch:100"])
    assert "gpus_per_node" not in without.parameters()
    assert without.device == "cpu"


def test_a_kind_of_gpu_replaces_the_number_of_gpus():
    settings = parse_settings(["gres=gpu:a100:1"])
    assert settings.device == "cuda"
    assert "gpus_per_node" not in settings.parameters()
    assert settings.parameters()["slurm_gres"] == "gpu:a100:1"
    assert parse_settings(["gres=lscratch:100"]).parameters()["gpus_per_node"] == 1


def test_what_is_not_said_is_for_each_process_of_a_machine():
    settings = parse_settings(["cpus_per_task=10"], processes=4)
    assert settings == SlurmSettings(gpus_per_node=4, cpus_per_task=10, mem_gb=256)
    parameters = settings.parameters(machines=2, requeue=True)
    assert (parameters["nodes"], parameters["tasks_per_node"]) == (2, 1)
    assert parameters["slurm_additional_parameters"] == {"requeue": True}


def test_every_setting_reaches_the_batch_script(tmp_path, monkeypatch):
    monkeypatch.setattr(SlurmExecutor, "affinity", lambda self: 1)  # whether this machine has Slurm's commands
    text = dict.fromkeys((*OF_SBATCH, "reservation"), "some")
    numbers = {"gpus_per_node": 2, "cpus_per_task": 3, "mem_gb": 5, "timeout_min": 70, "signal_delay_s": 11}
    asked = [f"{key}={value}" for key, value in (text | numbers).items()]
    executor = AutoExecutor(folder=tmp_path, cluster="slurm")
    executor.update_parameters(**parse_settings([*asked, "setup=module load cuda"]).parameters())
    script = executor._executor._make_submission_file_text("COMMAND", "")
    for key in text:
        assert f"#SBATCH --{key.replace('_', '-')}=some\n" in script
    for option in ("gpus-per-node=2", "cpus-per-task=3", "mem=5GB", "time=70", "signal=USR2@11", "no-requeue"):
        assert f"#SBATCH --{option}\n" in script
    assert "\nmodule load cuda\n" in script
    assert "--cpus-per-task=3 COMMAND" in script
