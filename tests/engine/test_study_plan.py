"""Which trainings a study needs, and which of them exist already."""

import json

import pytest

from aligncli.catalog import load_recipe, load_study, study_names
from aligncli.engine.study_plan import fingerprint, make_plan, seeded
from aligncli.errors import RecipeError


def plan(*names, seeds=1, folder, **options):
    studies = [load_study(name) for name in names]
    return make_plan(studies, scale="small", seeds=seeds, folder=folder, changes={}, **options)


def finish(job):
    """Leave what a finished training leaves and a study reads."""
    job.run_dir.mkdir(parents=True, exist_ok=True)
    (job.run_dir / "recipe.json").write_text(job.recipe.model_dump_json())
    last = {"iteration": job.recipe.schedule.iterations, "evaluation": {"AP": 1.0}}
    (job.run_dir / "metrics.jsonl").write_text(json.dumps(last) + "\n")


def test_a_row_that_two_tables_share_is_trained_once(tmp_path):
    both = plan("alignment", "kernel", folder=tmp_path)
    assert both.runs["alignment", "roi_conv", 0] is both.runs["kernel", "head4", 0]
    assert len(both.trainings) == 4 + 6 - 1


def test_no_two_trainings_share_a_file(tmp_path):
    jobs = plan("assignment", "aligndet", "pilot", seeds=2, folder=tmp_path).jobs
    assert len({job.beside(".json") for job in jobs}) == len(jobs)
    assert {job.beside(".json").parent for job in jobs} == {tmp_path / "runs", tmp_path / "pretrain"}


def test_a_folder_that_another_study_made_is_found_again(tmp_path):
    first = plan("alignment", folder=tmp_path).runs["alignment", "roi_conv", 0]
    first.run_dir.mkdir(parents=True)
    assert plan("kernel", folder=tmp_path).runs["kernel", "head4", 0].run_dir == first.run_dir


def test_seeds_change_weights_order_data_and_pretraining_and_share_nothing(tmp_path):
    made = plan("alignment", seeds=3, folder=tmp_path)
    jobs = [made.runs["alignment", "conv", seed] for seed in range(3)]
    assert len({job.run_dir for job in jobs}) == 3
    assert [job.recipe.seed for job in jobs] == [0, 1, 2]
    assert [job.recipe.data.train_seed for job in jobs] == [200, 201, 202]
    assert [job.recipe.data.val_seed for job in jobs] == [400, 401, 402]
    assert jobs[0].recipe.weights == "shapes"
    assert [job.seed for job in made.pretraining] == [1, 2]
    assert [job.recipe.weights for job in jobs[1:]] == [str(job.features.resolve()) for job in made.pretraining]
    assert [job.recipe.data.train_seed for job in made.pretraining] == [101, 102]


def test_pre_trainings_that_only_finished_trainings_started_from_are_not_repeated(tmp_path):
    made = plan("alignment", seeds=3, folder=tmp_path)
    for job in made.trainings:
        if job.seed == 1:
            finish(job)
    assert [job.seed for job in plan("alignment", seeds=3, folder=tmp_path).pretraining] == [2]
    assert plan("alignment", seeds=2, folder=tmp_path).pretraining == ()
    assert [job.seed for job in plan("alignment", "kernel", seeds=2, folder=tmp_path).pretraining] == [1]


def test_what_others_start_from_comes_first(tmp_path):
    made = plan("alignment", seeds=2, folder=tmp_path)
    assert [job.seed for job in made.jobs] == [1, 0, 0, 0, 0, 1, 1, 1, 1]
    assert [job.is_ready for job in made.jobs] == [True] * 5 + [False] * 4
    made.pretraining[0].features.parent.mkdir()
    made.pretraining[0].features.touch()
    assert all(job.is_ready for job in made.jobs)


def test_seed_0_is_the_recipe_itself():
    recipe = load_recipe("aligndet_small")
    assert seeded(recipe, 0) == recipe


def test_names_and_where_weights_lie_do_not_make_another_training():
    recipe = load_recipe("aligndet_small")
    renamed = recipe.changed({"name": "other", "summary": "other", "paper": "other"})
    assert fingerprint(renamed) == fingerprint(recipe)
    assert fingerprint(recipe.changed({"weights": "/a/x.safetensors"})) == fingerprint(
        recipe.changed({"weights": "/b/x.safetensors"})
    )
    assert fingerprint(recipe.changed({"optimizer.lr": 1e-3})) != fingerprint(recipe)


def test_a_training_is_finished_when_it_was_evaluated_after_its_last_iteration(tmp_path):
    job = plan("alignment", folder=tmp_path).trainings[0]
    assert not job.is_finished()
    finish(job)
    assert job.is_finished()
    (job.run_dir / "metrics.jsonl").write_text('{"iteration": 1500, "loss": 1.0}\n')
    assert not job.is_finished()
    finish(job)
    other = job.recipe.changed({"optimizer.lr": 1.0})
    (job.run_dir / "recipe.json").write_text(other.model_dump_json())
    assert not job.is_finished()


def test_errors_are_one_line(tmp_path):
    with pytest.raises(RecipeError, match="--seeds is 0"):
        plan("alignment", seeds=0, folder=tmp_path)
    with pytest.raises(RecipeError, match="has no row at scale 'photo'"):
        make_plan([load_study("testdev")], scale="photo", seeds=1, folder=tmp_path, changes={})
    with pytest.raises(RecipeError, match="did you mean 'alignment'"):
        load_study("alignmet")


@pytest.mark.parametrize("name", study_names())
def test_every_study_can_be_planned_at_the_paper_s_scale(name, tmp_path):
    made = make_plan([load_study(name)], scale="coco", seeds=1, folder=tmp_path, data=tmp_path, changes={})
    assert all(job.recipe.schedule.iterations >= 90_000 for job in made.trainings)
    assert all(str(tmp_path) in job.recipe.data.root for job in made.trainings)
