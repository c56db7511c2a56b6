"""cowest.toml and the environment: what is read, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Call, Trace, TraceStore
from trainer.advice import Endpoint
from trainer.config import Config, environment_name, fields

ROOT = Path(__file__).parents[2]
SECRET = "sk-secret-0123456789"

a_model = ScriptedModel(["Answer: 4"])


def make_model() -> ScriptedModel:
    return ScriptedModel(["Answer: 5"])


def load(folder: Path, text: str = "", **environment: str) -> Config:
    file = folder / "cowest.toml"
    file.write_text(text, encoding="utf-8")
    return Config.load(file, environment)


def refused(folder: Path, text: str = "", **environment: str) -> str:
    with pytest.raises(ValueError) as raised:
        load(folder, text, **environment)
    return str(raised.value)


def test_an_empty_file_is_the_defaults(tmp_path: Path) -> None:
    assert load(tmp_path) == Config()


def test_the_environment_is_over_the_file(tmp_path: Path) -> None:
    text = '[strong]\nmodel = "m"\ntimeout = 9\n[collect]\nnum_drafts = 2\n'
    config = load(
        tmp_path,
        text,
        COWEST_STRONG_TIMEOUT="2.5",
        COWEST_COLLECT_MAX_CONCURRENCY="3",
        COWEST_STRONG_MAX_TOKENS="64",
        COWEST_TRAIN_LORA='{"r": 8, "target_modules": ["q_proj"]}',
        COWEST_TRAIN_SFT='{"packing": true}',
        COWEST_WEAK_MODEL="[odd]/name",
        COWEST_ADAPTERS_FOLDER="elsewhere",
    )
    assert (config.strong.model, config.strong.timeout, config.strong.max_tokens) == ("m", 2.5, 64)
    assert (config.collect.num_drafts, config.collect.max_concurrency) == (2, 3)
    assert config.train.lora == {"r": 8, "target_modules": ["q_proj"]}
    assert config.train.sft == {"packing": True}
    assert config.weak.model == "[odd]/name"
    assert config.adapters.folder == Path("elsewhere")


def test_an_empty_variable_is_none_and_the_library_s_own_are_passed_over(tmp_path: Path) -> None:
    others = {"COWEST_CACHE": "/c", "COWEST_DEBUG": "1", "PATH": "/bin"}
    assert load(tmp_path, COWEST_STRONG_API_KEY="", **others) == Config()


@pytest.mark.parametrize(
    ("text", "environment", "words"),
    [
        ("[strnog]\n", {}, ["cowest.toml", "[strnog]", "'strong'"]),
        ("[strong]\nbase_ur = 'x'\n", {}, ["cowest.toml", "'base_ur'", "[strong]", "'base_url'"]),
        ("model = 'x'\n", {}, ["unknown key 'model'"]),
        ("strong = 'x'\n", {}, ["[strong] must be a section"]),
        ("[strong\n", {}, ["cowest.toml is not valid TOML", "line 1"]),
        ("[collect]\nnum_drafts = 0\n", {}, ["[collect] num_drafts", "greater than or equal to 1"]),
        ("[collect]\nstyle = 'poem'\n", {}, ["[collect] style", "'chain_of_thought'"]),
        ("[train]\npreset = 'big'\n", {}, ["[train] preset", "'tiny'"]),
        ("[weak]\ntop_p = 1.5\n", {}, ["[weak] top_p"]),
        ("", {"COWEST_STRONG_BASE_ULR": "x"}, ["COWEST_STRONG_BASE_ULR", "COWEST_STRONG_BASE_URL"]),
        ("", {"COWEST_COLLECT_NUM_DRAFTS": "many"}, ["COWEST_COLLECT_NUM_DRAFTS", "integer"]),
        ("", {"COWEST_TRAIN_LORA": "{r: 8}"}, ["COWEST_TRAIN_LORA must be JSON"]),
        ("", {"COWEST_TRAIN_LORA": "[8]"}, ["COWEST_TRAIN_LORA", "dictionary"]),
    ],
)
def test_what_is_wrong_is_named_with_what_is_near(
    tmp_path: Path, text: str, environment: dict[str, str], words: list[str]
) -> None:
    said = refused(tmp_path, text, **environment)
    assert [word for word in words if word not in said] == []
    assert "\n" not in said


def test_bytes_that_are_no_text_are_no_toml(tmp_path: Path) -> None:
    (tmp_path / "cowest.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not valid TOML"):
        Config.load(tmp_path / "cowest.toml", {})


def test_a_file_that_was_named_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no configuration file"):
        Config.load(tmp_path / "none.toml", {})


def test_every_key_stands_in_the_documentation_with_its_default_and_variable() -> None:
    rows = {}
    section = ""
    for line in (ROOT / "docs/configuration.md").read_text(encoding="utf-8").splitlines():
        if found := re.fullmatch(r"## \[(\w+)\].*", line):
            section = found[1]
        elif found := re.match(r"\| `(\w+)` \| (.*?) \| `(\w+)` \| (.+) \|$", line):
            rows[section, found[1]] = (found[2], found[3], found[4])
    expected = {(section, key): field for section, key, field in fields()}
    assert rows.keys() == expected.keys()
    for (section, key), field in expected.items():
        default = field.get_default(call_default_factory=True)
        said = "–" if default in (None, {}) else f"`{default}`"
        assert rows[section, key][:2] == (said, environment_name(section, key))
        assert rows[section, key][2] == field.description


def test_a_model_may_be_a_python_name(tmp_path: Path) -> None:
    text = f'[weak]\nmodel = "{__name__}:a_model"\n[strong]\nmodel = "{__name__}:make_model"\n'
    config = load(tmp_path, text)
    assert config.weak_model(temperature=0.0).invoke("x").content == "Answer: 4"
    assert config.strong_model().invoke("x").content == "Answer: 5"
    with pytest.raises(ValueError, match=r"the weights .* are not here; set model in \[train\]"):
        config.job("sft")


@pytest.mark.parametrize("name", ["no_such_module:x", f"{__name__}:nothing", f"{__name__}:ROOT"])
def test_a_python_name_that_is_no_model_is_refused(tmp_path: Path, name: str) -> None:
    config = load(tmp_path, f'[weak]\nmodel = "{name}"\n')
    with pytest.raises(ValueError, match=name):
        config.weak_model()


def test_both_models_may_be_endpoints_and_neither_is_sent_the_other_s_key(tmp_path: Path) -> None:
    text = f"""
        [weak]
        model = "small:8b"
        base_url = "http://127.0.0.1:1/v1"
        max_tokens = 9
        [strong]
        model = "large"
        base_url = "http://127.0.0.1:2/v1"
        api_key = "{SECRET}"
        [evaluator]
        model = "judge"
        base_url = "http://127.0.0.1:3/v1"
    """
    config = load(tmp_path, text)
    weak, strong, judge = config.weak_model(), config.strong_model(), config.judge_model()
    assert (weak.model_name, weak.openai_api_base, weak.max_tokens) == (
        "small:8b",
        "http://127.0.0.1:1/v1",
        9,
    )
    assert strong.openai_api_key.get_secret_value() == SECRET
    assert SECRET not in weak.openai_api_key.get_secret_value()
    assert SECRET not in judge.openai_api_key.get_secret_value()
    assert config.endpoints() == [
        Endpoint("weak", "http://127.0.0.1:1/v1", "small:8b"),
        Endpoint("strong", "http://127.0.0.1:2/v1", "large"),
        Endpoint("evaluator", "http://127.0.0.1:3/v1", "judge"),
    ]
    assert config.evaluator_kind == "judge"


def test_a_judge_at_the_strong_model_s_endpoint_uses_its_key(tmp_path: Path) -> None:
    text = f'[strong]\nmodel = "l"\nbase_url = "http://h/v1"\napi_key = "{SECRET}"\n'
    judge = load(tmp_path, text + '[evaluator]\nmodel = "j"\n').judge_model()
    assert (judge.model_name, judge.openai_api_base) == ("j", "http://h/v1")
    assert judge.openai_api_key.get_secret_value() == SECRET


def test_keys_show_up_neither_printed_nor_dumped(tmp_path: Path) -> None:
    config = load(tmp_path, f'[strong]\napi_key = "{SECRET}"\n', COWEST_WEAK_API_KEY=SECRET)
    assert SECRET not in f"{config!r}{config}{config.model_dump_json()}"
    assert SECRET in config.secrets()


def test_a_database_s_password_is_a_secret(tmp_path: Path) -> None:
    config = load(tmp_path, '[traces]\nurl = "postgresql+psycopg://me:hunter2hunter2@h/d"\n')
    assert "hunter2hunter2" in config.secrets()


def test_a_key_that_an_endpoint_repeats_is_not_stored(tmp_path: Path) -> None:
    text = f'[strong]\napi_key = "{SECRET}"\n[traces]\nurl = "sqlite:///{tmp_path}/t.db"\n'
    with load(tmp_path, text).store() as store:
        failed = Call(role="solo", failure="server_error", error=f"bad key {SECRET}")
        in_attempt = {"index": 0, "draft": SECRET, "calls": [failed]}
        store.record(Trace(query="q", calls=[failed], attempts=[in_attempt]))
    with TraceStore(tmp_path / "t.db") as store:
        (trace,) = store
    assert [call.error for call in trace.failures] == ["bad key ***"] * 2
    assert trace.attempts[0].draft == SECRET  # what a model wrote is kept as it is


def test_a_folder_that_is_no_model_is_told_before_anything_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no model folder"):
        load(tmp_path, f'[weak]\nmodel = "{tmp_path}/none"\n').weak_folder()
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        load(tmp_path, f'[weak]\nmodel = "{tmp_path}/empty"\n').weak_folder()


def test_an_unknown_evaluator_names_the_nearest(tmp_path: Path) -> None:
    config = load(tmp_path, '[evaluator]\nkind = "exact_mach"\n')
    with pytest.raises(ValueError, match="the nearest known one is 'exact_match'"):
        config.evaluator_named()
