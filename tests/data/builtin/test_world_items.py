"""Held-out items: not leaked, and answerable from what the training text states."""

import re
from collections import Counter

import pytest
from world_reading import ASKED, LANGUAGES, TASKS, WORD, choices_of, only_word_of, question_of


def forms_and_relations(world, task, truth):
    """For each form of question in the known items, the one relation that it asks for."""
    values = {value for stated in truth.values() for value in stated.values()}
    relations = {}
    for item in world.known(task):
        subject = only_word_of(question_of(item), truth)
        choices, right = choices_of(item)
        answer = only_word_of(choices[right], values)
        fits = {name for name, value in truth[subject].items() if value == answer}
        form = question_of(item).replace(subject, "_")
        relations[form] = relations.get(form, fits) & fits
    assert all(len(fits) == 1 for fits in relations.values())
    return {form: fits.pop() for form, fits in relations.items()}


@pytest.mark.parametrize("task", TASKS)
def test_no_scored_question_occurs_in_any_training_or_validation_text(world, task):
    corpus = "\n\n".join(world.texts() + world.texts("validation"))
    for item in world.scored(task):
        choices, right = choices_of(item)
        question = question_of(item)
        assert f"Question: {question}\nAnswer: {choices[right]}" not in corpus
        assert question not in corpus


@pytest.mark.parametrize("task", TASKS)
def test_no_training_question_joins_subject_and_answer_of_a_scored_item(world, task):
    """A leak in other words or another language would bring the same two names together."""
    truth = world.stated_in_code()
    values = {value for stated in truth.values() for value in stated.values()}
    asked = [ASKED.findall(text) for text in world.texts()]
    joined = {
        (only_word_of(question, truth), only_word_of(answer, values)) for pairs in asked for question, answer in pairs
    }
    assert joined
    clashes = 0
    for item in world.scored(task):
        choices, right = choices_of(item)
        subject, answer = only_word_of(question_of(item), truth), only_word_of(choices[right], values)
        # A subject may rightly have one value twice: the same tool both mends and cleans some things.
        twice = list(truth[subject].values()).count(answer) > 1
        clashes += (subject, answer) in joined and not twice
    assert clashes == 0


@pytest.mark.parametrize("task", TASKS)
def test_scored_questions_have_forms_that_training_text_asks_of_other_subjects(world, task):
    truth = world.stated_in_code()
    taught = set()
    for text in world.texts():
        for question, _ in ASKED.findall(text):
            taught.add(question.replace(only_word_of(question, truth), "_"))
    forms = {question_of(item).replace(only_word_of(question_of(item), truth), "_") for item in world.scored(task)}
    assert forms <= taught
    assert len(forms) == 6  # two relations in three languages


@pytest.mark.parametrize("task", TASKS)
def test_the_right_choice_is_what_the_training_text_states_and_no_other_is(world, task):
    truth = world.stated_in_code()
    relations = forms_and_relations(world, task, truth)
    for item in world.scored(task):
        subject = only_word_of(question_of(item), truth)
        value = truth[subject][relations[question_of(item).replace(subject, "_")]]
        choices, right = choices_of(item)
        assert [value in WORD.findall(choice) for choice in choices] == [
            place == right for place in range(len(choices))
        ]


@pytest.mark.parametrize("task", TASKS)
def test_each_language_states_what_the_scored_items_ask(world, task):
    """Subject and answer meet in a sentence of a document of each language, outside of questions."""
    truth = world.stated_in_code()
    values = {value for stated in truth.values() for value in stated.values()}
    met = Counter()
    for row in world.rows("train.jsonl"):
        if row["meta"]["label"] in LANGUAGES:
            for sentence in re.sub(ASKED, "", row["text"]).split("."):
                words = WORD.findall(sentence)
                met.update((row["meta"]["label"], a, b) for a in words for b in words if b in values)
    for item in world.scored(task):
        choices, right = choices_of(item)
        subject, answer = only_word_of(question_of(item), truth), only_word_of(choices[right], values)
        assert all(met[language, subject, answer] for language in LANGUAGES)


@pytest.mark.parametrize("task", TASKS)
def test_no_two_scored_items_ask_the_same_and_none_is_a_few_shot_example(world, task):
    scored = [question_of(item) for item in world.scored(task)]
    assert len(set(scored)) == len(scored) == 120
    splits = ("train", "validation") if task == "sciq" else ("train",)
    for split in splits:
        others = world.rows(f"eval/world_{task}/{split}.jsonl")
        assert others
        assert not {question_of(item) for item in others} & set(scored)


def test_sciq_validation_questions_are_held_out_too(world):
    corpus = "\n\n".join(world.texts())
    assert not any(question_of(item) in corpus for item in world.rows("eval/world_sciq/validation.jsonl"))


@pytest.mark.parametrize("task", TASKS)
def test_few_shot_questions_are_known_from_training_text(world, task):
    corpus = "\n\n".join(world.texts())
    share = sum(question_of(item) in corpus for item in world.known(task)) / len(world.known(task))
    assert share > 0.9
