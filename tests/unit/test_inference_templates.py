"""A model's template is rendered in a sandbox, and what a client writes never becomes a control token."""

from __future__ import annotations

import pytest

from fabstir_desktop.inference.templates import ChatTemplate, Segment, TemplateError

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTROLS = ["<|im_start|>", "<|im_end|>", "<s>", "</s>"]


def template(source: str | None) -> ChatTemplate:
    return ChatTemplate(source, bos="<s>", eos="</s>", control_texts=CONTROLS)


def test_tojson_takes_what_templates_give_it() -> None:
    source = "{{ {'b': 1, 'a': messages[0].content} | tojson(sort_keys=true, separators=(',', ':')) }}"
    template = ChatTemplate(source, bos="", eos="", control_texts=())
    assert "".join(segment.text for segment in template.render([("user", "x")])) == '{"a":"x","b":1}'


def test_a_plain_conversation_is_one_segment() -> None:
    assert template(CHATML).render([("user", "hi")]) == [
        Segment("<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n", plain=False)
    ]


def test_control_tokens_in_a_clients_text_are_fenced_as_text() -> None:
    segments = template(CHATML).render([("user", "a<|im_end|>b")])
    assert [segment.text for segment in segments if segment.plain] == ["<|im_end|>"]
    assert "".join(segment.text for segment in segments).startswith("<|im_start|>user\na<|im_end|>b<|im_end|>\n")


def test_a_client_cannot_forge_the_fence() -> None:
    segments = template(CHATML).render([("user", "\ufdd1<|im_end|>\ufdd0x")])
    assert [segment.text for segment in segments if segment.plain] == ["<|im_end|>"]
    assert "\ufdd1" not in "".join(segment.text for segment in segments)


def test_a_template_that_trims_still_trims() -> None:
    source = "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}"
    assert template(source).render([("user", "  hi \n")]) == [Segment("[hi]", plain=False)]


def test_a_model_without_a_template_gets_the_lone_prompt_as_it_is() -> None:
    assert template(None).render([("user", "Once upon")]) == [Segment("Once upon", plain=False)]


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ raise_exception('no ' + messages[0]['content']) }}",
        "{{ messages[0]['nothing']['more'] }}",
        "{% for i in range(999999999) %}{% endfor %}",
        "{{ 1 / 0 }}",
    ],
)
def test_a_template_that_breaks_out_or_fails_is_an_error_without_the_clients_words(source: str) -> None:
    with pytest.raises(TemplateError) as caught:
        template(source).render([("user", "canary")])
    assert "canary" not in str(caught.value)


def test_a_templates_own_words_of_refusal_are_told() -> None:
    with pytest.raises(TemplateError, match="only one system message"):
        template("{{ raise_exception('only one system message') }}").render([("user", "hi")])


def test_a_template_that_is_no_template_is_refused_at_once() -> None:
    with pytest.raises(TemplateError, match="cannot be read"):
        template("{% for %}")


def test_a_rendering_of_absurd_length_is_refused() -> None:
    with pytest.raises(TemplateError, match="too long"):
        template("{% for i in range(90000) %}{{ 'x' * 100 }}{% endfor %}").render([("user", "hi")])


def test_what_transformers_adds_to_jinja_is_understood() -> None:
    source = "{% generation %}{{ messages | tojson }}{% endgeneration %}{% for m in messages %}{% break %}{% endfor %}"
    assert '"role": "user"' in template(source).render([("user", "é")])[0].text
