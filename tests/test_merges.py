"""Every merge method of mergekit as an action: what it takes, what it makes, and when two merges are the same."""

import itertools
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from safetensors.torch import load_file

from lamdagent import pico
from lamdagent.actions.action import Action, ActionType, inputs_of
from lamdagent.actions.context import Context
from lamdagent.actions.interpolation import nearswap, nuslerp
from lamdagent.actions.merge_methods import METHODS
from lamdagent.actions.merging import Merging, stored_dtype
from lamdagent.actions.task_vectors import breadcrumbs, model_stock
from lamdagent.config import read
from lamdagent.enumeration.space import ActionSpace
from lamdagent.errors import ActionFailed
from lamdagent.export.folder import RecordingContext
from lamdagent.export.part import place
from lamdagent.export.steps import merging
from lamdagent.libraries import known_warnings_ignored
from lamdagent.objects.model import Model
from lamdagent.planning.plan import make_outline

OLD = {
    "linear": "5bb51c1dead11c159d52242d05528afe",
    "slerp": "857a876e9e3d68485a5fdc34a29d8594",
    "ties": "354294d27cb65bee8f24996086ad31aa",
    "dare_ties": "19af05733716d94bfbfd07b1d03406e5",
}
CONF = Path(__file__).parents[1] / "conf"
WITH_BASE = [name for name, method in METHODS.items() if method.base == "ancestor"]
ORDERED = ("nearswap", "arcee_fusion")


@pytest.fixture(scope="module")
def types() -> dict[str, ActionType]:
    """The action types of conf/action, by method."""
    with initialize_config_dir(str(CONF), version_base=None):
        actions = ",".join(f"merge_{name}" for name in METHODS)
        config = read(compose("config", [f"+action=[{actions}]"]))
    return {t.name.removeprefix("merge_"): t for t in make_outline(config).types}


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> list[Model]:
    """A base and three models that descend from it, in the places that exported merges name."""
    folder = tmp_path_factory.mktemp("pool")
    models = []
    for number in range(4):
        name = f"{number:08x}" * 4
        model = Model(name, "", f"run{number}", "0" * 32, min(number, 1), "LlamaForCausalLM", 512)
        pico.build(folder / place(model), seed=number)
        models.append(Model(**{**vars(model), "location": str(folder)}))
    return models


def space(types: dict[str, ActionType], pool: list[Model]) -> ActionSpace:
    return ActionSpace(list(types.values()), pool, (), seed=3)


def first(types: dict[str, ActionType], pool: list[Model], method: str) -> Action:
    return next(space(types, pool).actions(types[method]))


def run(kind: ActionType, action: Action, context: Context) -> Any:
    module, _, name = kind.function.partition(":")
    return getattr(import_module(module), name)(context, **inputs_of(action, kind, place))


def plain_mergekit(part: Any, folder: Path) -> None:
    """The exported command, told to mergekit's own program."""
    from mergekit.scripts.run_yaml import main

    ((name, text),) = part.files.items()
    (folder / name).write_text(text)
    program, settings, _, *options = part.commands[0].split()
    assert program == "mergekit-yaml"
    main.main([str(folder / settings), str(folder / "plain"), *options], standalone_mode=False)


@pytest.mark.parametrize("method", METHODS)
def test_the_weights_are_those_of_plain_mergekit(
    method: str, types: dict[str, ActionType], pool: list[Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pool[0].location)
    action = first(types, pool, method)
    made, tokenizer = run(types[method], action, Context(tmp_path / "made", action.seed))
    assert made.dtype == torch.bfloat16 and tokenizer.chat_template == pico.CHAT_TEMPLATE
    step, _ = run(types[method], action, RecordingContext(Path()))
    assert isinstance(step, Merging)
    part = merging(step, action, pool[0], "01", stored_dtype(step.folders[0]))
    with known_warnings_ignored():
        plain_mergekit(part, tmp_path)
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("made", "plain"))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert all(torch.isfinite(tensor).all() for tensor in ours.values())
    for folder in step.folders:
        before = load_file(Path(folder) / "model.safetensors")
        assert any(not torch.equal(ours[name], before[name]) for name in ours), "no input came out unchanged"


ALONE = """
import json, pathlib, sys
from lamdagent.worker.make import make
values, output = json.loads(sys.argv[1]), sys.argv[2]
make(print, run_id="r", function="lamdagent.actions.merging:merge", inputs=values, seed=0, data_fraction=1.0,
     tasks=[], batch_size=1, output=output)
from mergekit.io.tasks import LoaderCache
kept = [name for name in values["models"] if name in pathlib.Path("/proc/self/maps").read_text()]
found = [*{"datasets", "pandas", "omegaconf"} & set(sys.modules), *kept, *LoaderCache().loaders]
sys.exit(f"{found}" if found else 0)
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="says what is mapped into memory; Linux alone has it")
def test_a_merge_takes_no_memory_for_what_it_does_not_need(pool: list[Model], tmp_path: Path) -> None:
    """No imports that mergekit's own program does without, and afterwards its inputs are no longer mapped."""
    models = [str(Path(model.location) / place(model)) for model in pool[1:3]]
    values = json.dumps({"method": "linear", "models": models})
    done = subprocess.run([sys.executable, "-c", ALONE, values, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_table_is_mergekits_own() -> None:
    """A method that a new version adds or changes is found here."""
    with known_warnings_ignored():
        from mergekit.merge_methods.base import BasePolicy, ParameterScope
        from mergekit.merge_methods.registry import registered_methods
    bases = {"none": BasePolicy.IGNORED, "any": BasePolicy.OPTIONAL}
    specs = {method.spec.name: method.spec for method in registered_methods()}
    assert set(METHODS) == set(specs) - {"passthrough"}
    for name, method in METHODS.items():
        contract, parameters = specs[name].contract, specs[name].parameters
        assert contract.base == bases.get(method.base, BasePolicy.REQUIRED), name
        assert (contract.max_non_base or contract.max_inputs) == method.most, name
        for count in (2, method.most or 5):
            ids = [*range(count), *(["base"] if method.base == "ancestor" else [])]
            base = {"ancestor": "base", "first": 0}.get(method.base)
            contract.validate_ids(ids, base)
        weights = {p.name for p in parameters if p.scope != ParameterScope.SHARED and p.name == "weight"}
        assert bool(weights) == method.weighed, name


def test_every_parameter_is_one_that_mergekit_knows(types: dict[str, ActionType], pool: list[Model]) -> None:
    """Mergekit passes over unknown ones in silence."""
    with known_warnings_ignored():
        from mergekit.merge_methods import get
    for method, kind in types.items():
        step, _ = run(kind, first(types, pool, method), RecordingContext(Path()))
        assert step.method == method
        assert set(step.parameters) <= {p.name for p in get(method).spec.parameters}, method


@pytest.mark.parametrize("method", METHODS)
def test_order_counts_only_where_it_makes_another_model(
    method: str, types: dict[str, ActionType], pool: list[Model]
) -> None:
    some, kind = space(types, pool), types[method]
    base = {"base": [pool[0]]} if method in WITH_BASE else {}
    same = {"weight": 0.5} if "weight" in kind.choices else {}
    there, back = (some.make(kind.name, {"models": pair, **base}, same) for pair in (pool[1:3], pool[2:0:-1]))
    assert (there.fingerprint != back.fingerprint) == (method in ORDERED)
    if method in ORDERED:
        assert [m.name for m in there.models] == [m.name for m in back.models][::-1]
    fingerprints = [a.fingerprint for a in some.actions(kind)]
    assert some.size(kind) == len(fingerprints) == len(set(fingerprints))


def test_old_merges_keep_their_fingerprints(types: dict[str, ActionType], pool: list[Model]) -> None:
    """What finished runs in stores say; another value here would do every merge of old searches again."""
    assert {method: first(types, pool, method).fingerprint for method in OLD} == OLD


def test_a_model_changes_towards_the_second(pool: list[Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(pool[0].location)
    folders = [place(model) for model in pool[:2]]
    made, other = (
        load_file(nearswap(Context(tmp_path / name), models=pair, t=0.001) and tmp_path / name / "model.safetensors")
        for name, pair in (("made", folders), ("other", folders[::-1]))
    )
    for result, start in ((made, folders[0]), (other, folders[1])):
        near = load_file(f"{start}/model.safetensors")
        assert all((result[name].float() - near[name].float()).abs().max() <= 0.0015 for name in result)


def test_a_base_that_a_method_may_have_is_used(
    pool: list[Model], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pool[0].location)
    base, *models = (place(model) for model in pool[:3])
    alone, since = (
        nuslerp(Context(tmp_path / str(i)), models=models, base=given)[0].state_dict()
        for i, given in enumerate(("", base))
    )
    assert any(not torch.equal(alone[name], since[name]) for name in alone)


def test_calls_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    context = Context(tmp_path / "out")
    with pytest.raises(ActionFailed, match="nuslerp takes exactly 2 models, got 3"):
        nuslerp(context, models=["a", "b", "c"])
    with pytest.raises(ActionFailed, match="model_stock needs a base"):
        model_stock(context, models=["a", "b"], base="")
    with pytest.raises(ActionFailed, match="there are breadcrumbs, breadcrumbs_ties"):
        breadcrumbs(context, models=["a", "b"], base="c", method="della")


def test_descriptions_are_one_sentence_and_differ(types: dict[str, ActionType]) -> None:
    for kind in types.values():
        assert (
            kind.description.endswith(".") and kind.description.count(". ") == 0 and kind.paper.startswith("https://")
        )
    assert all(a.description != b.description for a, b in itertools.combinations(types.values(), 2))
