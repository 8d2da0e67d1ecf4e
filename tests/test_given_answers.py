"Right and wrong answers to five real question sets, read by a real English model: the whole way from a file to detectors."
import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from avss_nb import (
    AnswerProfiler, Answers, EAVSSScorer, Evaluator, detector_table, load_answer_pairs, silent
)
from conftest import shared

@pytest.fixture(scope="module")
def english():
    from transformers import AutoModelForCausalLM, AutoTokenizer
    folder = shared("models/wiki12")
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), AutoTokenizer.from_pretrained(folder)

@pytest.mark.parametrize("name", [
    "sciq", "truthfulqa", *(pytest.param(name, marks=pytest.mark.soak(only=True)) for name in ("nq_open", "triviaqa", "wikiqa"))
])
def test_given_answers_from_file_to_detectors(name, english):
    questions, texts, correct = load_answer_pairs(shared(f"data/{name}/correct_and_wrong_answers.csv"))
    some = np.random.default_rng(0).permutation(len(texts))[:48]
    questions, texts, correct = [questions[i] for i in some], [texts[i] for i in some], correct[some]
    evaluator = Evaluator(*english)
    answers = Answers.given(questions, texts, correct, evaluator.score(questions, texts), evaluator.prompt)
    assert (answers.correct == correct).all() and not answers.abstained.any()
    profile = AnswerProfiler(*english, position="answer", sites=["output"]).profile(answers, silent)
    scores = EAVSSScorer(draws=19, balance=()).score(profile)
    table = detector_table(profile, scores)
    assert np.isfinite(scores.to_frame().to_numpy(float)).all() and np.isfinite(table.to_numpy(float)).all()
    length = table.loc["long answer (tokens)"]  # stands beside every detector
    assert np.isclose(length["AUROC"], roc_auc_score(~correct, profile.answer_tokens)) and length["low"] <= length["AUROC"] <= length["high"]
    assert any("linear probe" in detector for detector in table.index) and "low confidence" in table.index
