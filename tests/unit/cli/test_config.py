"""cowest.toml and the environment: what is read, what is refused, and in which words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cowest_graph.masking import masked
from cowest_graph.testing import ScriptedModel
from cowest_graph.traces import Call, Trace, TraceStore
from trainer.cli.advice import Endpoint
from trainer.cli.config import Config
from trainer.cli.models import Named
from trainer.cli.schema import environment_name, fields
from trainer.course import Course
from trainer.gate import Gate, SequentialGate

ROOT = Path(__file__).parents[3]
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


def test_the_loop_s_gate_and_course_are_the_section_s(tmp_path: Path) -> None:
    config = load(tmp_path, '[loop]\ngate = "sequential"\nbatch = 5\nmin_pairs = 8\nreplay = 0.5\n')
    assert config.gate(0.9, 0.1) == SequentialGate(0.9, 0.1, batch=5)
    assert config.gate(0.9, 0.1, "fixed") == Gate(0.9, 0.1)
    assert config.course() == Course(min_pairs=8, replay=0.5)
    assert load(tmp_path).gate(0.95, 0.0) == Gate()
    with pytest.raises(ValueError, match="no gate 'sequentail'; the nearest known one is 'sequent"):
        config.gate(0.9, 0.1, "sequentail")


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


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("openai:gpt-4o", "openai", "gpt-4o"),
        ("vllm:http://a:8000/v1,http://b:8000/v1", "vllm", "http://a:8000/v1,http://b:8000/v1"),
        ("huggingface:./folder", "huggingface", "./folder"),
        ("anthropic:claude", "anthropic", "claude"),
        ("my_models:tutor", "attribute", "my_models:tutor"),
        ("gpt-4o", None, "gpt-4o"),
        ("ft:gpt-4o:org::id", None, "ft:gpt-4o:org::id"),
        ("openai:", None, "openai:"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", None, "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ],
)
def test_kinds_of_models_are_told_apart(text: str, kind: str | None, name: str) -> None:
    assert Named.read(text) == (kind, name)


def test_an_openai_model_in_one_line(tmp_path: Path) -> None:
    key = f'api_key = "{SECRET}"\n'
    text = f'[weak]\nmodel = "openai:small"\n{key}[strong]\nmodel = "openai:gpt-4o"\n{key}'
    config = load(tmp_path, text + '[evaluator]\nmodel = "openai:judge"\n')
    made = [config.weak_model(), config.strong_model(), config.judge_model()]
    assert [model.model_name for model in made] == ["small", "gpt-4o", "judge"]
    assert [model.openai_api_key.get_secret_value() for model in made] == [SECRET] * 3
    assert made[0].temperature == made[1].temperature == 1.0
    assert not config.weak_is_local
    with pytest.raises(ValueError, match=r"weights of 'openai:small' are not here"):
        config.weak_folder()


def test_a_name_behind_a_url_is_the_endpoint_s_own(tmp_path: Path) -> None:
    url = 'base_url = "http://127.0.0.1:1/v1"\n'
    for given, there in (("vllm:x", "vllm:x"), ("ollama:8b", "ollama:8b"), ("openai:m", "m")):
        text = f'[weak]\nmodel = "{given}"\n{url}[strong]\nmodel = "{given}"\n{url}'
        config = load(tmp_path, text)
        assert config.weak_model().model_name == config.strong_model().model_name == there


def test_a_local_model_in_one_line_is_as_without(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    made = [load(tmp_path, f'[weak]\nmodel = "{kind}{folder}"\n') for kind in ("local:", "")]
    assert made[0] == made[1]
    assert made[0].weak_is_local
    assert made[0].weak_model().model == str(folder)
    pipeline = load(tmp_path, f'[weak]\nmodel = "huggingface:{folder}"\n')
    assert not pipeline.weak_is_local
    assert pipeline.weak_folder() == str(folder), "it can be trained"


def test_vllm_servers_in_one_line_follow_the_registry(tmp_path: Path) -> None:
    text = '[weak]\nmodel = "vllm:http://127.0.0.1:1/v1,http://127.0.0.1:2/v1"\nmax_tokens = 7\n'
    config = load(tmp_path, text + f'[adapters]\nfolder = "{tmp_path}/versions"\n')
    weak = config.weak_model(temperature=0.0)
    assert weak.urls == ["http://127.0.0.1:1/v1", "http://127.0.0.1:2/v1"]
    assert weak.adapters.folder == tmp_path / "versions"
    assert (weak.temperature, weak.max_tokens) == (0.0, 7)
    assert [each.base_url for each in config.endpoints()][:2] == weak.urls


def test_a_forced_answer_is_one_of_the_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """
        [strong]
        model = "openai:gpt-x"
        api_key = "sk-none"
        response_format = "json_schema"
    """
    forced = load(tmp_path, text).strong_model(["Safe", "Unsafe"]).kwargs["response_format"]
    assert forced["json_schema"]["schema"]["properties"]["answer"]["enum"] == ["Safe", "Unsafe"]
    free = load(tmp_path, text).strong_model().kwargs["response_format"]
    assert "enum" not in free["json_schema"]["schema"]["properties"]["answer"]
    bare = load(tmp_path, text).strong_model(explained=False).kwargs["response_format"]
    assert bare["json_schema"]["schema"]["required"] == ["answer"]
    given: dict[str, object] = {}
    monkeypatch.setattr("cowest_graph.embedded.strong_model", lambda **said: given.update(said))
    load(tmp_path).strong_model(["Safe", "Unsafe"])
    assert str(given["grammar"]).endswith('("Safe" | "Unsafe")')


def test_a_provider_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    pytest.importorskip("langchain")
    config = load(tmp_path, '[strong]\nmodel = "deepseek:deepseek-chat"\n')
    with pytest.raises(ImportError, match="langchain-deepseek"):
        config.strong_model()


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
    assert masked(f"key {SECRET}") == "key ***"


@pytest.mark.parametrize("password", ["hunter2hunter2", "hunter4@hunter4", "hunter5/hunter5"])
def test_a_database_s_password_is_a_secret(tmp_path: Path, password: str) -> None:
    load(tmp_path, f'[traces]\nurl = "postgresql+psycopg://me:{password}@h/d"\n')
    assert masked(f"no {password} here") == "no *** here"


@pytest.mark.parametrize("named", [False, True])
def test_a_key_that_an_endpoint_repeats_is_not_stored(tmp_path: Path, named: bool) -> None:
    url = f"sqlite:///{tmp_path}/t.db"
    text = f'[strong]\napi_key = "{SECRET}"\n[traces]\nurl = "{"sqlite:///x" if named else url}"\n'
    with load(tmp_path, text).store(url if named else None) as store:
        failed = Call(role="solo", failure="server_error", error=f"bad key {SECRET}")
        in_attempt = {"index": 0, "draft": SECRET, "calls": [failed]}
        shadow = {"weak_version": "v2", "calls": [failed]}
        store.record(Trace(query="q", calls=[failed], attempts=[in_attempt], shadow=shadow))
        store.record(Trace(query="only the shadow's", shadow=shadow))
    with TraceStore(tmp_path / "t.db") as store:
        trace, shadowed = store
    assert [call.error for call in trace.failures] == ["bad key ***"] * 2
    for each in (trace, shadowed):
        assert each.shadow is not None
        assert [call.error for call in each.shadow.calls] == ["bad key ***"]
    assert trace.attempts[0].draft == "***"  # an endpoint may repeat it in a reply, too


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


def test_the_stand_in_is_waited_for_longer_than_an_endpoint(tmp_path: Path) -> None:
    waits = {
        model: load(tmp_path, f'[strong]\nmodel = "{model}"\n{more}')._patience()["timeout"]
        for model, more in (("embedded", ""), ("m", ""), ("n", "timeout = 9"))
    }
    assert waits == {"embedded": 600, "m": 60, "n": 9}
