"""Who calls a name at the door with the wrong thing reads one sentence: what was given, what is expected, what to do.

`WRITE_TABLE=1 pytest tests/test_mistakes.py` writes the table nbs/mistakes.md again.
"""
import os
import re
from dataclasses import asdict
from functools import cache
from pathlib import Path
import numpy as np
import pandas as pd
import pytest
import torch
import transformers as tf
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from traitlets import TraitError
import avss_nb as avss
from avss_nb import InputError, Question, silent
from tiny import VOCABULARY, tiny

pytestmark = pytest.mark.usefixtures("rules_as_shipped")  # the sentence on an unknown rule lists those that are known
TABLE = Path(__file__).parent.parent / "nbs/mistakes.md"
LONGEST = 200  # characters of a message

# --- what is given: everything once, tiny

def _tokenizer():
    "Words w0 to w599, offline."
    plain = Tokenizer(WordLevel({f"w{i}": i for i in range(VOCABULARY)}, "w0"))
    plain.pre_tokenizer = WhitespaceSplit()
    return tf.PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="w0", eos_token="w1")

def _texts():
    words = torch.randint(3, VOCABULARY, (8, 12), generator=torch.Generator().manual_seed(0)).tolist()
    return [" ".join(f"w{i}" for i in row) for row in words]

class Things:
    "Made when a row first asks for it."
    model = property(lambda self: _made("model"))
    def __getattr__(self, name): return _made(name)

it = Things()

@cache
def _made(name): return MAKERS[name]()

def _answers():
    questions = [Question(f"w{i} w{i + 1}", (f"w{i + 2}",), subject=f"w{i}") for i in range(3, 15)]
    return avss.Answers.given(questions, ["w9"] * 12, [i % 2 for i in range(12)], [[-0.5]] * 12, avss.Prompt())

MAKERS = {
    "model": lambda: tiny("llama"),
    "tokenizer": _tokenizer,
    "texts": _texts,
    "pipeline": lambda: tf.pipeline("text-generation", model=it.model, tokenizer=it.tokenizer),
    "extractor": tf.WhisperFeatureExtractor,
    "table": lambda: pd.DataFrame({"question": ["w3 w4", "w5 w6", "w7 w8"], "answer": ["w5", "w7", "w9"]}),
    "answers": _answers,
    "questions": lambda: list(it.answers.questions),
    "profiler": lambda: avss.LayerProfiler(it.model, it.tokenizer, ("output", "update", "relative_update")),
    "profile": lambda: it.profiler.profile(it.texts, silent),
    "scores": lambda: avss.LayerScorer(draws=0).score(it.profile),
    "evaluator": lambda: avss.Evaluator(it.model, it.tokenizer, max_new_tokens=2),
    "report": lambda: it.answers.report(draws=0),
    "analyzer": lambda: avss.HallucinationAnalyzer(it.model, it.tokenizer, scorer=it.eavss),
    "eavss": lambda: avss.EAVSSScorer(draws=19, probe=False, halves=0),
    "answer_profile": lambda: it.analyzer.profile(it.answers, silent),
    "suspects": lambda: it.eavss.score(it.answer_profile),
    "pruner": lambda: avss.LayerPruner(it.model, it.tokenizer),
    "plan": lambda: it.pruner.plan(it.scores, count=1),
    "pruned": lambda: it.plan.apply(verify=False),
    "recipe": lambda: avss.Recipe(steps=1, batch_size=4, every=1),
    "mitigator": lambda: avss.ContrastiveMitigator(it.model, it.tokenizer, [1], it.recipe),
    "mitigation": lambda: it.mitigator.train(it.answers, progress=silent),
    "callback": lambda: avss.AVSSCallback(it.texts, it.tokenizer),
    "history": lambda: it.callback.history,
    "ranking_panel": lambda: avss.LayerRankingPanel(profile=it.profile),
    "pruning_panel": lambda: avss.PruningPanel(it.model, it.tokenizer, it.scores, lambda: it.report),
    "healer": lambda: avss.LayerHealer(it.pruned),
    "figure": lambda: __import__("matplotlib.figure").figure.Figure(),
    "arms": lambda: [avss.Arm("some", (1,)), avss.Arm("others", (2,))],
}

# --- the mistakes: name at the door → what is given → the call

MISTAKES = {
    "load_model": {
        "a loaded model": lambda: avss.load_model(it.model),
        "None": lambda: avss.load_model(None),
        "a list of names": lambda: avss.load_model(["gpt2", "gpt2-medium"]),
        "a folder that is not there": lambda: avss.load_model(Path("/nowhere/model")),
        "model and tokenizer": lambda: avss.load_model(it.model, it.tokenizer),
    },
    "load_texts": {
        "texts": lambda: avss.load_texts(it.texts),
        "a data frame": lambda: avss.load_texts(it.table),
        "None": lambda: avss.load_texts(None),
        "a file that is not there": lambda: avss.load_texts(Path("/nowhere/texts.csv")),
    },
    "load_questions": {
        "questions": lambda: avss.load_questions(it.questions),
        "a data frame": lambda: avss.load_questions(it.table),
        "a dictionary": lambda: avss.load_questions({"question": "w3", "answer": "w4"}),
        "the class Question": lambda: avss.load_questions(Question),
    },
    "load_answer_pairs": {"questions": lambda: avss.load_answer_pairs(it.questions)},
    "load_labelled": {"texts": lambda: avss.load_labelled(it.texts)},
    "load_data": {"a dictionary": lambda: avss.load_data({"texts": it.texts})},
    "windows": {
        "one string": lambda: avss.windows("w3 w4 w5", it.tokenizer),
        "texts as lists of token ids": lambda: avss.windows([[3, 4, 5]], it.tokenizer),
        "no tokenizer": lambda: avss.windows(it.texts, None),
        "the name of a tokenizer": lambda: avss.windows(it.texts, "gpt2"),
        "length as a string": lambda: avss.windows(it.texts, it.tokenizer, "4"),
    },
    "Labelled": {"the name of a class": lambda: avss.Labelled("w3 w4", "positive")},
    "Question": {
        "answers as numbers": lambda: Question("w3", [4]),
        "answers as a dictionary": lambda: Question("w3", {"text": ["w4"]}),
        "no answers": lambda: Question("w3", None),
        "a question as the text": lambda: Question(it.questions[0], ["w4"]),
        "a rule that was called already": lambda: Question("w3", ["w4"], rules=len(["w4"]) > 0),
    },
    "Question.of": {
        "a dictionary with other keys": lambda: Question.of({"instruction": "w3", "output": "w4"}),
        "a dictionary without answers": lambda: Question.of({"question": "w3"}),
        "a dictionary with a context": lambda: Question.of({"question": "w3", "answers": ["w4"], "context": "w5"}),
        "a dictionary with two texts": lambda: Question.of({"question": "w3", "text": "w5", "answer": "w4"}),
        "SQuAD's dictionary of answers": lambda: Question.of({"question": "w3", "answers": {"text": ["w4"], "answer_start": [0]}}),
        "a string": lambda: Question.of("w3 w4?"),
        "None": lambda: Question.of(None),
        "a set of two strings": lambda: Question.of({"w3", "w4"}),
        "a labelled text": lambda: Question.of(avss.Labelled("w3", 1)),
        "a question and its answer as a pair": lambda: Question.of((it.questions[0], "w4")),
        "a question and None": lambda: Question.of(("w3", None)),
    },
    "split_questions": {
        "a share instead of shares": lambda: avss.split_questions(it.questions, 0.8),
        "a data frame": lambda: avss.split_questions(it.table, {"train": 0.8, "test": 0.2}),
        "an attribute that questions lack": lambda: avss.split_questions(it.questions, {"a": .5, "b": .5}, "color"),
    },
    "with_shots": {
        "one string": lambda: avss.with_shots("w3 w4?"),
        "answers": lambda: avss.with_shots(it.answers, 1),
        "shots as a string": lambda: avss.with_shots(it.questions, "2"),
    },
    "one_per_subject": {"strings": lambda: avss.one_per_subject(it.texts)},
    "Prompt": {
        "a template as the style": lambda: avss.Prompt("Q: {question}"),
        "a template without a place": lambda: avss.Prompt(template="Q:"),
        "questions as examples": lambda: avss.Prompt(examples=it.questions),
        "one string as examples": lambda: avss.Prompt(examples="w3 w4"),
    },
    "with_examples": {"a template as the prompt": lambda: avss.with_examples("Q: {question}", it.questions)},
    "draw_examples": {"a dictionary of columns": lambda: avss.draw_examples({"question": ["w3"], "answer": ["w4"]})},
    "is_correct": {
        "None as the answer": lambda: avss.is_correct(None, ["w3"]),
        "a rule that was called already": lambda: avss.is_correct("w3", ["w3"], rules=len("w3") > 1),
        "numbers as accepted answers": lambda: avss.is_correct("4", [4]),
    },
    "is_abstention": {"a question": lambda: avss.is_abstention(it.questions[0])},
    "normalize_answer": {"a list": lambda: avss.normalize_answer(["w3"])},
    "LayerProfiler": {
        "the name of a model": lambda: avss.LayerProfiler("gpt2"),
        "a pipeline": lambda: avss.LayerProfiler(it.pipeline),
        "the class of a model": lambda: avss.LayerProfiler(tf.LlamaForCausalLM),
        "what load_model returns, in one": lambda: avss.LayerProfiler((it.model, it.tokenizer)),
        "the configuration of a model": lambda: avss.LayerProfiler(it.model.config),
        "tokenizer and model": lambda: avss.LayerProfiler(it.tokenizer, it.model),
        "the name of a tokenizer": lambda: avss.LayerProfiler(it.model, "gpt2"),
        "a pipeline as tokenizer": lambda: avss.LayerProfiler(it.model, it.pipeline),
        "the model as tokenizer": lambda: avss.LayerProfiler(it.model, it.model),
        "a feature extractor of sound as tokenizer": lambda: avss.LayerProfiler(it.model, it.extractor),
        "the class of a tokenizer": lambda: avss.LayerProfiler(it.model, tf.PreTrainedTokenizerFast),
        "texts as tokenizer": lambda: avss.LayerProfiler(it.model, it.texts),
        "texts that were tokenized already, as tokenizer": lambda: avss.LayerProfiler(it.model, it.tokenizer(it.texts)),
        "an unknown site": lambda: avss.LayerProfiler(it.model, it.tokenizer, "attn"),
        "a batch size as a string": lambda: avss.LayerProfiler(it.model, it.tokenizer, batch_size="16"),
    },
    "LayerProfiler.profile": {
        "one string": lambda: it.profiler.profile("w3 w4 w5"),
        "the path of a file": lambda: it.profiler.profile(Path("texts.txt")),
        "None": lambda: it.profiler.profile(None),
        "questions": lambda: it.profiler.profile(it.questions, silent),
        "answers": lambda: it.profiler.profile(it.answers, silent),
        "a data frame": lambda: it.profiler.profile(it.table),
        "a function that was not called": lambda: it.profiler.profile(avss.load_texts),
        "texts that were tokenized already": lambda: it.profiler.profile(it.tokenizer(it.texts)),
        "lists of words": lambda: it.profiler.profile([["w3", "w4"]], silent),
        "None among the texts": lambda: it.profiler.profile(["w3 w4", None], silent),
        "a name as progress": lambda: it.profiler.profile(it.texts, "bar"),
        "the class of a panel as progress": lambda: it.profiler.profile(it.texts, avss.LayerRankingPanel),
        "stable, not called": lambda: it.profiler.profile(it.texts, silent, until=avss.stable),
        "a number as share": lambda: it.profiler.profile(it.texts, silent, share=2),
    },
    "LayerProfile": {
        "an unknown site": lambda: it.profile.site("mlp"),
        "a site for the kind of plot": lambda: it.profile.plot(what="output"),
    },
    "LayerScorer": {
        "a profile": lambda: avss.LayerScorer(it.profile),
        "a model": lambda: avss.LayerScorer(it.model),
        "an unknown score": lambda: avss.LayerScorer("AVSS"),
        "a number for the site": lambda: avss.LayerScorer("avss", 3),
        "ε as a string": lambda: avss.LayerScorer(eps="0.01"),
        "draws as a string": lambda: avss.LayerScorer(draws="1000"),
    },
    "LayerScorer.score": {
        "a model": lambda: avss.LayerScorer().score(it.model),
        "texts": lambda: avss.LayerScorer().score(it.texts),
        "a profile of answers": lambda: avss.LayerScorer().score(it.answer_profile),
        "scores": lambda: avss.LayerScorer().score(it.scores),
        "the profiler": lambda: avss.LayerScorer().score(it.profiler),
        "the path of a file": lambda: avss.LayerScorer().score("profile.safetensors"),
    },
    "LayerScores": {
        "values before the name": lambda: avss.LayerScores.of([1, 2, 3, 4], "mine"),
        "a text as values": lambda: avss.LayerScores.of("mine", "1, 2, 3"),
        "a model as blocks": lambda: avss.LayerScores.of("mine", [1, 2, 3, 4], blocks=it.model),
    },
    "compare_profiles": {
        "scores": lambda: avss.compare_profiles(it.scores, it.scores),
        "one profile and a model": lambda: avss.compare_profiles(it.profile, it.model),
        "the name of a score that is not there": lambda: avss.compare_profiles(it.profile, it.profile, "AVSS"),
    },
    "plot_two_profiles": {"a profile": lambda: avss.plot_two_profiles(it.profile)},
    "stable": {"a profile": lambda: avss.stable(it.profile)},
    "Blocks": {
        "the name of a model": lambda: avss.Blocks("gpt2"),
        "a tokenizer": lambda: avss.Blocks(it.tokenizer),
        "an unknown stack": lambda: avss.Blocks(it.model, "head"),
    },
    "fingerprint_blocks": {"a model": lambda: avss.fingerprint_blocks(it.model)},
    "weight_magnitude": {"a pipeline": lambda: avss.weight_magnitude(it.pipeline)},
    "taylor_importance": {"texts as tokenizer": lambda: avss.taylor_importance(it.model, it.texts)},
    "angular_distances": {
        "questions as texts": lambda: avss.angular_distances(it.model, it.tokenizer, it.questions, progress=silent),
        "an unknown position": lambda: avss.angular_distances(it.model, it.tokenizer, it.texts, "first", progress=silent),
    },
    "LayerPruner": {
        "the name of a model": lambda: avss.LayerPruner("gpt2"),
        "scores as tokenizer": lambda: avss.LayerPruner(it.model, it.scores),
        "what load_model returns, in one": lambda: avss.LayerPruner((it.model, it.tokenizer)),
    },
    "LayerPruner.plan": {
        "a profile": lambda: it.pruner.plan(it.profile, count=1),
        "layers": lambda: it.pruner.plan([1, 2], count=2),
        "a fraction": lambda: it.pruner.plan(0.25),
        "a percentage": lambda: it.pruner.plan(it.scores, fraction=25),
        "a share as count": lambda: it.pruner.plan(it.scores, count=0.25),
        "True as count": lambda: it.pruner.plan(it.scores, count=True),
        "the class LayerScores": lambda: it.pruner.plan(avss.LayerScores, count=1),
        "a string of texts for a search": lambda: it.pruner.plan(search="iterative", texts="w3 w4 w5", count=1),
        "a profiler as scorer": lambda: it.pruner.plan(search="iterative", texts=it.texts, count=1, scorer=it.profiler),
    },
    "LayerPruner.remove": {
        "one layer": lambda: it.pruner.remove(3),
        "a mask": lambda: it.pruner.remove([True, False, True, False]),
        "a method that was not called": lambda: it.pruner.remove(it.scores.lowest),
        "scores": lambda: it.pruner.remove(it.scores),
        "numbers as text": lambda: it.pruner.remove("12"),
    },
    "PrunePlan": {
        "a folder for apply": lambda: it.plan.apply("smaller"),
        "one string for similarity": lambda: it.plan.similarity("w3 w4"),
    },
    "compare_rankings": {
        "one string of texts": lambda: avss.compare_rankings(it.model, it.tokenizer, "w3 w4 w5 w6", ["w7 w8"], progress=silent),
        "questions as held-out texts": lambda: avss.compare_rankings(it.model, it.tokenizer, it.texts, it.questions, progress=silent),
        "scores as rankings": lambda: avss.compare_rankings(it.model, it.tokenizer, it.texts[:4], it.texts[4:], rankings=it.scores, progress=silent),
        "a list of scores as rankings": lambda: avss.compare_rankings(it.model, it.tokenizer, it.texts[:4], it.texts[4:], rankings=[it.scores], progress=silent),
        "one count": lambda: avss.compare_rankings(it.model, it.tokenizer, it.texts[:4], it.texts[4:], counts=2, progress=silent),
        "a setting that is misspelled": lambda: avss.compare_rankings(it.model, it.tokenizer, it.texts[:4], it.texts[4:], batchsize=2),
    },
    "run_tasks": {
        "a list of models": lambda: avss.run_tasks([it.model], it.tokenizer, ["hellaswag"]),
        "the name of a model": lambda: avss.run_tasks("gpt2", it.tokenizer, ["hellaswag"]),
    },
    "LayerHealer": {
        "a plan that was not applied": lambda: avss.LayerHealer(it.plan),
        "a model without its original": lambda: avss.LayerHealer(it.model, it.tokenizer),
        "a recipe for mitigation": lambda: avss.LayerHealer(it.pruned, recipe=avss.Recipe()),
        "a recipe as a dictionary": lambda: avss.LayerHealer(it.pruned, recipe={"steps": 5}),
        "a setting that is misspelled": lambda: avss.LayerHealer(it.pruned, recipee=avss.HealingRecipe()),
    },
    "LayerHealer.heal": {
        "one string": lambda: it.healer.heal("w3 w4 w5"),
        "questions as held-out texts": lambda: it.healer.heal(it.texts, it.questions),
        "answers as questions": lambda: it.healer.heal(it.texts, questions=it.answers),
    },
    "Evaluator": {
        "the name of a model": lambda: avss.Evaluator("gpt2", it.tokenizer),
        "a pipeline": lambda: avss.Evaluator(it.pipeline),
        "tokenizer and model": lambda: avss.Evaluator(it.tokenizer, it.model),
        "an encoder": lambda: avss.Evaluator(tf.BertModel(tf.BertConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)), it.tokenizer),
        "a profiler as tokenizer": lambda: avss.Evaluator(it.model, it.profiler),
        "a template as prompt": lambda: avss.Evaluator(it.model, it.tokenizer, prompt="Q: {question}"),
        "a number of processes": lambda: avss.Evaluator(it.model, it.tokenizer, processes=2),
        "a number as stop": lambda: avss.Evaluator(it.model, it.tokenizer, stop=5),
        "questions as batch size": lambda: avss.Evaluator(it.model, it.tokenizer, it.questions),
    },
    "Evaluator.answer": {
        "one string": lambda: it.evaluator.answer("w3 w4?"),
        "strings": lambda: it.evaluator.answer(it.texts),
        "one question": lambda: it.evaluator.answer(it.questions[0]),
        "one pair": lambda: it.evaluator.answer(("w3", ["w4"])),
        "one dictionary": lambda: it.evaluator.answer({"question": "w3", "answer": "w4"}),
        "a data frame": lambda: it.evaluator.answer(it.table),
        "answers": lambda: it.evaluator.answer(it.answers),
        "None": lambda: it.evaluator.answer(None),
        "a function that was not called": lambda: it.evaluator.answer(avss.load_questions),
        "True as progress": lambda: it.evaluator.answer(it.questions, True),
    },
    "Evaluator.perplexity": {
        "questions": lambda: it.evaluator.perplexity(it.questions),
        "one string": lambda: it.evaluator.perplexity("w3 w4"),
        "a length as progress": lambda: it.evaluator.perplexity(it.texts, 256, 16),
    },
    "Evaluator.score": {
        "one string as texts": lambda: it.evaluator.score(it.questions[:2], "w3"),
        "questions without texts": lambda: it.evaluator.score(it.questions),
        "numbers as texts": lambda: it.evaluator.score(it.questions[:2], [3, 4]),
    },
    "Evaluator.evaluate": {
        "nothing": lambda: it.evaluator.evaluate(),
        "texts as questions": lambda: it.evaluator.evaluate(it.texts),
        "answers": lambda: it.evaluator.evaluate(it.answers),
    },
    "Evaluator.classify": {"texts, of a language model": lambda: it.evaluator.classify(it.texts)},
    "Evaluator.asking": {"a template": lambda: it.evaluator.asking("Q: {question}")},
    "Evaluator.as_asked": {"questions": lambda: it.evaluator.as_asked(it.questions)},
    "plan_asking": {"a model": lambda: avss.plan_asking(it.model, it.questions)},
    "length_baseline": {"questions without choices": lambda: avss.length_baseline(it.questions)},
    "Answers": {
        "one string as texts": lambda: avss.Answers.judge(it.questions[:2], "w3", [[-1], [-1]]),
        "strings as questions": lambda: avss.Answers.judge(["w3"], ["w4"], [[-1]]),
        "words as verdicts": lambda: avss.Answers.given(it.questions[:2], ["w3", "w4"], ["True", "False"], [[-1], [-1]]),
        "one number for each answer as log-probabilities": lambda: avss.Answers.given(it.questions[:2], ["w3", "w4"], [True, False], [-1., -1.]),
        "an unknown rule": lambda: it.answers.judged("fuzzy"),
        "a list of labels": lambda: it.answers.relabel([True, False]),
        "an attribute that questions lack": lambda: it.answers.by_group("color"),
        "a threshold as a string": lambda: it.answers.abstain_below("0.5"),
        "questions to add": lambda: it.answers + it.questions,
    },
    "TemperatureScaling": {
        "confidences and verdicts, without fit": lambda: avss.TemperatureScaling(it.answers.confidences, it.answers.correct),
        "answers as confidences": lambda: avss.TemperatureScaling.fit(it.answers, it.answers.correct),
        "answers as verdicts": lambda: avss.TemperatureScaling.fit(it.answers.confidences, it.answers.texts),
        "log-probabilities": lambda: avss.TemperatureScaling.fit([-0.5, -1.], [True, False]),
    },
    "PlattScaling": {"confidences and verdicts, without fit": lambda: avss.PlattScaling(it.answers.confidences, it.answers.correct)},
    "calibration_error": {
        "verdicts and confidences": lambda: avss.calibration_error([True, False], [0.5, 0.7]),
        "texts": lambda: avss.calibration_error(["w3", "w4"], [True, False]),
        "a report": lambda: avss.calibration_error(it.report, [True]),
    },
    "best_threshold": {"a question for the answerable": lambda: avss.best_threshold(it.answers.confidences, it.answers.correct, it.questions)},
    "AnswerProfiler": {
        "a pipeline": lambda: avss.AnswerProfiler(it.pipeline, it.tokenizer),
        "an evaluator as tokenizer": lambda: avss.AnswerProfiler(it.model, it.evaluator),
        "questions as position": lambda: avss.AnswerProfiler(it.model, it.tokenizer, it.questions),
        "a template as prompt": lambda: avss.AnswerProfiler(it.model, it.tokenizer, prompt="Q: {question}"),
        "no tokenizer": lambda: avss.AnswerProfiler(it.model, None),
    },
    "AnswerProfiler.profile": {
        "questions": lambda: avss.AnswerProfiler(it.model, it.tokenizer).profile(it.questions),
        "texts": lambda: avss.AnswerProfiler(it.model, it.tokenizer).profile(it.texts),
        "a report": lambda: avss.AnswerProfiler(it.model, it.tokenizer).profile(it.report),
    },
    "HallucinationAnalyzer": {
        "an evaluator": lambda: avss.HallucinationAnalyzer(it.evaluator, it.tokenizer),
        "a scorer of layers": lambda: avss.HallucinationAnalyzer(it.model, it.tokenizer, scorer=avss.LayerScorer()),
        "the class EAVSSScorer": lambda: avss.HallucinationAnalyzer(it.model, it.tokenizer, scorer=avss.EAVSSScorer),
    },
    "HallucinationAnalyzer.analyze": {
        "questions": lambda: it.analyzer.analyze(it.questions),
        "a profile of answers": lambda: it.analyzer.analyze(it.answer_profile),
    },
    "EAVSSScorer": {
        "a profile": lambda: avss.EAVSSScorer(it.answer_profile),
        "the name of a score": lambda: avss.EAVSSScorer(by="avss"),
        "ε as a string": lambda: avss.EAVSSScorer(eps="0.1"),
    },
    "EAVSSScorer.score": {
        "a profile of texts": lambda: it.eavss.score(it.profile),
        "answers": lambda: it.eavss.score(it.answers),
        "scores": lambda: it.eavss.score(it.suspects),
    },
    "detector_table": {"scores": lambda: avss.detector_table(it.suspects)},
    "probe_auroc": {"answers": lambda: avss.probe_auroc(it.answers)},
    "intrinsic_dimension": {"a profile": lambda: avss.intrinsic_dimension(it.answer_profile)},
    "ContrastiveMitigator": {
        "scores as layers": lambda: avss.ContrastiveMitigator(it.model, it.tokenizer, it.suspects),
        "a method that was not called": lambda: avss.ContrastiveMitigator(it.model, it.tokenizer, it.suspects.layers),
        "one layer": lambda: avss.ContrastiveMitigator(it.model, it.tokenizer, 1),
        "a recipe for healing": lambda: avss.ContrastiveMitigator(it.model, it.tokenizer, [1], avss.HealingRecipe()),
        "a number of steps as recipe": lambda: avss.ContrastiveMitigator(it.model, it.tokenizer, [1], 600),
        "a setting that is misspelled": lambda: avss.ContrastiveMitigator(it.model, it.tokenizer, [1], batchsize=8),
    },
    "ContrastiveMitigator.train": {
        "questions": lambda: it.mitigator.train(it.questions),
        "questions as texts": lambda: it.mitigator.train(it.answers, it.questions, progress=silent),
        "answers as development": lambda: it.mitigator.train(it.answers, development=it.answers, progress=silent),
        "a profile": lambda: it.mitigator.train(it.answer_profile),
    },
    "Recipe": {
        "steps as a string": lambda: avss.Recipe(steps="600"),
        "a weight as a string": lambda: avss.Recipe(answer="1"),
    },
    "HealingRecipe": {"steps as a string": lambda: avss.HealingRecipe(steps="500")},
    "Arm": {"one layer": lambda: avss.Arm("mine", 3)},
    "standard_arms": {
        "scores of layers": lambda: avss.standard_arms(it.scores),
        "layers": lambda: avss.standard_arms([1, 2]),
    },
    "score_rivals": {"questions": lambda: avss.score_rivals(it.questions, it.questions)},
    "compare_arms": {
        "one arm": lambda: avss.compare_arms(it.model, it.tokenizer, it.arms[0], it.answers, [], []),
        "layers as arms": lambda: avss.compare_arms(it.model, it.tokenizer, [1, 2], it.answers, [], []),
        "questions as train": lambda: avss.compare_arms(it.model, it.tokenizer, it.arms, it.questions, [], []),
        "answers as test": lambda: avss.compare_arms(it.model, it.tokenizer, it.arms, it.answers, [], it.answers),
        "a recipe as a dictionary": lambda: avss.compare_arms(it.model, it.tokenizer, it.arms, it.answers, [], it.questions, recipe={"steps": 1}),
    },
    "AVSSCallback": {
        "a model": lambda: avss.AVSSCallback(it.model),
        "tokenizer and texts": lambda: avss.AVSSCallback(it.tokenizer, it.texts),
        "texts without a tokenizer": lambda: avss.AVSSCallback(it.texts),
        "the name of a score": lambda: avss.AVSSCallback(it.texts, it.tokenizer, scorer="avss"),
        "every as a string": lambda: avss.AVSSCallback(it.texts, it.tokenizer, "50"),
        "a model to attach to": lambda: it.callback.attach(it.model),
    },
    "TrainingHistory": {"an unknown statistic": lambda: it.history.values("loss")},
    "LayerRankingPanel": {
        "a profile": lambda: avss.LayerRankingPanel(it.profile),
        "a model": lambda: avss.LayerRankingPanel(it.model),
        "scores as profile": lambda: avss.LayerRankingPanel(profile=it.scores),
        "a scorer of answers": lambda: avss.LayerRankingPanel(scorer=avss.EAVSSScorer()),
        "the name of a score": lambda: avss.LayerRankingPanel(scorer="avss"),
        "scores as other": lambda: avss.LayerRankingPanel(profile=it.profile, other=it.scores),
        "a second profile alone": lambda: avss.LayerRankingPanel(other=it.profile),
        "to compare: a model": lambda: it.ranking_panel.compare(it.model),
        "to compare: one name": lambda: it.ranking_panel.compare(it.profile, "fine-tuned"),
        "to prune: no model": lambda: avss.LayerRankingPanel(profile=it.profile).prune(),
        "to prune: no texts": lambda: it.ranking_panel.prune(it.model, it.tokenizer),
        "to prune: a pipeline": lambda: it.ranking_panel.prune(it.pipeline, it.tokenizer, it.texts),
        "to prune: one text": lambda: it.ranking_panel.prune(it.model, it.tokenizer, it.texts[0]),
        "to run: a model": lambda: it.ranking_panel.run(it.model, it.texts),
        "to run: the class of a profiler": lambda: it.ranking_panel.run(avss.LayerProfiler, it.texts),
        "to load: scores": lambda: it.ranking_panel.load(it.scores),
        "a layer that is not there": lambda: setattr(it.ranking_panel, "layer", 99),
    },
    "PruningPanel": {
        "a profile as scores": lambda: avss.PruningPanel(it.model, it.tokenizer, it.profile, lambda: it.report),
        "an evaluator as the function": lambda: avss.PruningPanel(it.model, it.tokenizer, it.scores, it.evaluator),
        "a report, of a function that was called": lambda: avss.PruningPanel(it.model, it.tokenizer, it.scores, it.report),
        "a pipeline": lambda: avss.PruningPanel(it.pipeline, it.tokenizer, it.scores, lambda: it.report),
        "too many layers": lambda: avss.PruningPanel(it.model, it.tokenizer, it.scores, lambda: it.report, 4),
        "a share of the layers": lambda: avss.PruningPanel(it.model, it.tokenizer, it.scores, lambda: it.report, 0.25),
        "a layer as a string": lambda: setattr(it.pruning_panel, "layer", "3"),
        "a profile as new scores": lambda: setattr(it.pruning_panel, "scores", it.profile),
    },
    "HallucinationPanel": {
        "a model": lambda: avss.HallucinationPanel(it.model),
        "an evaluator": lambda: avss.HallucinationPanel(it.evaluator, it.questions),
        "answers as questions": lambda: avss.HallucinationPanel(it.analyzer, it.answers),
        "questions as answers": lambda: avss.HallucinationPanel(it.analyzer, answers=it.questions),
        "a profile of texts": lambda: avss.HallucinationPanel(profile=it.profile),
        "a scorer of layers": lambda: avss.HallucinationPanel(scorer=avss.LayerScorer()),
        "to load: scores": lambda: avss.HallucinationPanel(it.analyzer).load(it.suspects),
        "to run: without a model": lambda: avss.HallucinationPanel().run(it.questions),
        "to overrule: an answer that is not there": lambda: avss.HallucinationPanel(answers=it.answers).overrule(99, True),
        "to overrule: a word": lambda: avss.HallucinationPanel(answers=it.answers).overrule(0, "maybe"),
        "to overrule: before there are answers": lambda: avss.HallucinationPanel().overrule(0, True),
        "to score again: no layer was measured": lambda: avss.HallucinationPanel(answers=it.answers).score_again(),
        "a setting that is misspelled": lambda: avss.HallucinationPanel(it.analyzer, it.questions, max_tokens=5),
    },
    "MitigationPanel": {
        "a model": lambda: avss.MitigationPanel(it.model),
        "a mitigation": lambda: avss.MitigationPanel(it.mitigation),
        "one string as test": lambda: avss.MitigationPanel(it.mitigator, "w3 w4?"),
        "texts as test": lambda: avss.MitigationPanel(it.mitigator, it.texts),
        "to run: questions": lambda: avss.MitigationPanel(it.mitigator).run(it.questions),
        "to load: answers": lambda: avss.MitigationPanel(it.mitigator).load(it.answers),
    },
    "TrainingPanel": {
        "a history as callback": lambda: avss.TrainingPanel(it.history),
        "the class AVSSCallback": lambda: avss.TrainingPanel(avss.AVSSCallback),
        "a callback as history": lambda: avss.TrainingPanel(history=it.callback),
        "texts": lambda: avss.TrainingPanel(it.texts),
        "to run: a model": lambda: avss.TrainingPanel(it.callback).run(it.model),
    },
    "LayerLab": {
        "a pipeline": lambda: avss.LayerLab(it.pipeline, it.tokenizer, it.texts),
        "questions as texts": lambda: avss.LayerLab(it.model, it.tokenizer, it.questions),
        "one string": lambda: avss.LayerLab(it.model, it.tokenizer, "w3 w4"),
        "answers as questions": lambda: avss.LayerLab(it.model, it.tokenizer, it.texts, it.answers),
        "one string as questions": lambda: avss.LayerLab(it.model, it.tokenizer, it.texts, "w3 w4?"),
        "a scorer as profiler": lambda: avss.LayerLab(it.model, it.tokenizer, it.texts, profiler=avss.LayerScorer()),
        "the scorers exchanged": lambda: avss.LayerLab(it.model, it.tokenizer, it.texts, scorer=avss.EAVSSScorer()),
        "a scorer of layers for answers": lambda: avss.LayerLab(it.model, it.tokenizer, it.texts, it.questions, eavss=avss.LayerScorer()),
        "a setting that is misspelled": lambda: avss.LayerLab(it.model, it.tokenizer, it.texts, question=it.questions),
        "no folder": lambda: avss.LayerLab(it.model, it.tokenizer, it.texts, folder=None),
    },
    "before_after": {"reports": lambda: avss.before_after(it.report, it.report)},
    "compare_measures": {"reports": lambda: avss.compare_measures(it.report, it.report)},
    "plot_ranking": {
        "a profile": lambda: avss.plot_ranking(it.profile),
        "a list of values": lambda: avss.plot_ranking([1, 2, 3]),
        "a figure as axes": lambda: avss.plot_ranking(it.scores, it.figure),
        "figure and axes": lambda: avss.plot_ranking(it.scores, (it.figure, it.figure.add_subplot())),
    },
    "plot_variance_sparsity": {"a profile": lambda: avss.plot_variance_sparsity(it.profile)},
    "plot_histogram": {"scores": lambda: avss.plot_histogram(it.scores)},
    "plot_layer_statistics": {"a profile": lambda: avss.plot_layer_statistics(it.profile)},
    "plot_eavss": {"scores of layers": lambda: avss.plot_eavss(it.scores)},
    "plot_shifts": {"scores of layers": lambda: avss.plot_shifts(it.scores)},
    "plot_probe": {"a profile of answers": lambda: avss.plot_probe(it.answer_profile)},
    "plot_arms": {"a data frame": lambda: avss.plot_arms(it.table)},
    "plot_retention": {"scores": lambda: avss.plot_retention(it.scores)},
    "plot_reliability": {
        "a report": lambda: avss.plot_reliability(it.report),
        "questions": lambda: avss.plot_reliability(it.questions),
    },
}
ROWS = {(name, given): call for name, calls in MISTAKES.items() for given, call in calls.items()}

# --- what looks like a mistake, and is read as it is meant

PAIR = Question("w3", ("w4",))
READ = {
    ("Question.of", "a dictionary of question and answer"): lambda: Question.of({"question": "w3", "answer": "w4"}) == PAIR,
    ("Question.of", "a dictionary of text and answers"): lambda: Question.of({"text": "w3", "answers": ["w4"]}) == PAIR,
    ("Question.of", "a dictionary with an id, targets and choices"):
        lambda: Question.of({"id": 7, "question": "w3", "targets": ["w4"], "choices": ["w4", "w5"]}) == Question("w3", ("w4",), choices=("w4", "w5")),
    ("Question.of", "a dictionary with a prompt to continue"):
        lambda: Question.of({"prompt": "w3", "answer": "w4"}) == Question("w3", ("w4",), prompt="w3", rules="starts"),
    ("Question.of", "a question as a dictionary"): lambda: Question.of(asdict(it.questions[0])) == it.questions[0],
    ("Question.of", "a row of a data frame"): lambda: Question.of(it.table.iloc[0]) == Question("w3 w4", ("w5",)),
    ("Question", "one answer as a string"): lambda: Question("w3", "w4") == PAIR and not Question("w3", "w4").accepts("w"),
    ("Question", "answers as a list"): lambda: Question("w3", ["w4"]) == PAIR and {Question("w3", ["w4"])} == {PAIR},
    ("is_correct", "one accepted answer as a string"): lambda: avss.is_correct("w4", "w4") and not avss.is_correct("w", "w4"),
    ("Evaluator.answer", "the rows of a data frame"): lambda: len(it.evaluator.answer(it.table.to_dict("records"), silent)) == 3,
    ("load_model", "a dtype of torch"): lambda: avss.load_model("teaching", torch.bfloat16)[0].dtype == torch.bfloat16,
    ("LayerPruner.remove", "layers as an array"): lambda: it.pruner.remove(np.array([1, 2])).removed == (1, 2),
}

# --- the tests

@pytest.fixture(scope="module", autouse=True)
def _quiet():
    level = tf.logging.get_verbosity()
    tf.logging.set_verbosity_error(); tf.logging.disable_progress_bar()
    yield
    tf.logging.set_verbosity(level); tf.logging.enable_progress_bar()

@cache
def answer_to(name, given) -> str:
    "The message with which a mistake is answered; any other outcome is an error of the package."
    with pytest.raises((InputError, TraitError)) as caught: ROWS[name, given]()
    return str(caught.value)

@pytest.mark.parametrize("name, given", ROWS)
def test_a_mistake_is_answered_with_one_sentence(name, given):
    message = answer_to(name, given)
    assert len(message) <= LONGEST and "\n" not in message, message
    assert not re.search(r"[.!?] [A-Z]", message) and "object at 0x" not in message, message
    assert re.search(r"expected|must be|(is|are) not (one of|among)|[;:,] (write|give|choose)|; | has ", message), message

@pytest.mark.parametrize("name, given", READ)
def test_what_is_meant_is_read(name, given): assert READ[name, given]()

def test_every_name_is_at_the_door_and_most_that_take_something_have_a_row():
    names = {name.partition(".")[0] for name in (*MISTAKES, *(name for name, _ in READ))}
    assert names <= {*avss.__all__}
    assert len(ROWS) >= 80 and len(names) >= 60

def test_a_wrong_setting_changes_nothing():
    "The class was once taken for a callback, and kept the panel for ever."
    with pytest.raises(InputError): avss.TrainingPanel(avss.AVSSCallback)
    assert "progress" not in vars(avss.AVSSCallback)

# --- the table

HEADER = """# Mistakes

Made by the tests: every row is a call with the wrong thing, and the sentence that answers it: what was given, what is expected, what to do.
`WRITE_TABLE=1 pytest tests/test_mistakes.py` writes this page; a new row is a line in that file.

**{rows} mistakes at {names} names: each answered with one sentence, none silently misread.**
"""

def table() -> str:
    lines = []
    for name, calls in MISTAKES.items():
        lines += [f"\n## {name}\n\n| given | answer |\n| --- | --- |\n"]
        for given in calls:
            message = re.sub(r"(?=[<>|*_$])", r"\\", answer_to(name, given))
            lines.append(f"| {given} | {message} |\n")
    read = "".join(f"| `{name}` | {given} |\n" for name, given in READ)
    lines.append(f"\n## Read as it is meant\n\n| call | given |\n| --- | --- |\n{read}")
    return HEADER.format(rows=len(ROWS), names=len(MISTAKES)) + "".join(lines)

def test_the_table_is_up_to_date():
    if os.environ.get("WRITE_TABLE"): TABLE.write_text(table(), encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table(), "run WRITE_TABLE=1 pytest tests/test_mistakes.py"
