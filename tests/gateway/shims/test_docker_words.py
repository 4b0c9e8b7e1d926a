"""Docker's command line, read."""

import pytest

from gateway.shims.docker_template import filled
from gateway.shims.docker_words import EXEC, PS, RUN, STOP, Form, UsageFault, Words, read


def run(*words: str) -> Words:
    return read(RUN, "run", words)


def test_forms_of_options() -> None:
    found = run(
        "-dit", "--name=a", "--name", "b", "-eK=V", "-e=L=W", "-e", "M", "-w/x", "--rm", "image", "-c", "--x"
    )
    assert found.flags == {"detach", "interactive", "tty", "rm"}
    assert found.values == {"name": "b", "workdir": "/x"}
    assert found.list("env") == ["K=V", "L=W", "M"]
    assert found.operands == ["image", "-c", "--x"]


def test_flags_may_be_switched_off() -> None:
    assert run("--rm", "--rm=false", "--init=true", "image").flags == {"init"}


def test_operands_end_the_options_of_some_commands_only() -> None:
    assert read(EXEC, "exec", ["box", "-w", "/"]).operands == ["box", "-w", "/"]
    found = read(STOP, "stop", ["box", "-t", "1", "--", "-other"])
    assert (found.values, found.operands) == ({"time": "1"}, ["box", "-other"])


@pytest.mark.parametrize(
    ("form", "words", "said"),
    [
        (RUN, ["--gpus", "all"], "--gpus"),
        (RUN, ["-x"], "-x"),
        (RUN, ["--name"], "needs an argument: --name"),
        (RUN, ["-e"], "needs an argument: -e"),
        (RUN, ["--rm=maybe"], "true or false"),
        (PS, ["--latest"], "--latest"),
    ],
)
def test_what_is_not_known_is_an_error(form: Form, words: list[str], said: str) -> None:
    with pytest.raises(UsageFault, match=said):
        read(form, "run", words)


RECORD = {"State": {"Running": True, "Code": 0}, "Name": "box", "Tags": ["a"]}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.State.Running}}", "true"),
        ("{{ .Name }}\\t{{.State.Code}}", "box\t0"),
        ("{{json .Name}}", '"box"'),
        ("{{json .State}}", '{"Running": true, "Code": 0}'),
        ("{{.Tags}}", '["a"]'),
        ("plain", "plain"),
    ],
)
def test_templates(template: str, text: str) -> None:
    assert filled(template, RECORD) == text


@pytest.mark.parametrize("template", ["{{.Nothing}}", "{{.Name.More}}", "{{range .Tags}}", "{{.Name", "{{}}"])
def test_templates_that_are_not_known(template: str) -> None:
    with pytest.raises(UsageFault, match="--format"):
        filled(template, RECORD)
