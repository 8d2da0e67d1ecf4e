"""Judges a saved model in a process that knows nothing of this package.

Run as a script it reads one question a line (JSON: folder, class) and answers on one line; a question's `reference`
lies beside the model, so that one process serves many models.
"""
import json
import sys
import torch
from safetensors.torch import load_file

NEW = 10  # tokens to generate
PROMPT = 24  # tokens before them: longer than every window of the tiny models

def outputs(model, batch):
    "Every floating-point tensor that the model returns."
    with torch.no_grad(): out = model(**batch, return_dict=True)
    return {name: value for name, value in out.items() if isinstance(value, torch.Tensor) and value.is_floating_point()}

def difference(found, reference):
    "Largest |difference| over largest |reference|, over all outputs; infinite where one is missing or not finite."
    if found.keys() != reference.keys(): return float("inf")
    errors = [((found[k] - reference[k]).abs().max() / reference[k].abs().max()).item() if found[k].shape == reference[k].shape
              else float("inf") for k in reference]
    return max(errors) if all(error == error for error in errors) else float("inf")

def sides(batch):
    "What the text is called, and all that is given beside it: an encoder–decoder model writes with its decoder."
    if "decoder_input_ids" not in batch: return "input_ids", {}
    return "decoder_input_ids", {name: value[:1] for name, value in batch.items() if not name.startswith("decoder_")}

def by_generate(model, batch):
    "Tokens and logits of greedy generation with the cache, by `generate`."
    read, rest = sides(batch)
    prompt = rest or {name: value[:1, :PROMPT] for name, value in batch.items()}
    made = model.generate(**prompt, max_new_tokens=NEW, min_new_tokens=NEW, do_sample=False, num_beams=1, use_cache=True,
                          return_dict_in_generate=True, output_logits=True, pad_token_id=0, eos_token_id=None)
    return made.sequences, torch.cat(made.logits)

def by_loop(model, batch):
    "The same by a plain loop over past_key_values; None where the model has another kind of cache."
    read, rest = sides(batch)
    ids, cache, logits = batch[read][:1, :PROMPT], None, []
    fresh = ids
    for _ in range(NEW):
        with torch.no_grad(): out = model(**rest, **{read: fresh}, past_key_values=cache, use_cache=True)
        if (cache := out.get("past_key_values")) is None: return None
        logits.append(out.logits[:, -1])
        fresh = logits[-1].argmax(-1, keepdim=True)
        ids = torch.cat([ids, fresh], 1)
    return ids, torch.cat(logits)

def cache_error(model, batch, way):
    "Relative difference between the logits of a way of generating and those of one pass over the result, without a cache."
    made = way(model, batch)
    if made is None: return None
    read, rest = sides(batch)
    with torch.no_grad(): whole = model(**rest, **{read: made[0]}, use_cache=False).logits[0, -NEW - 1:-1]
    return difference({"logits": made[1]}, {"logits": whole})

def attempt(call, *args):
    "What a call returns, or the exception in words."
    try: return call(*args)
    except Exception as error: return f"{type(error).__name__}: {error}"

def verdict(model, batch, reference):
    "The facts about a model: its distance from the reference, and what its cache changes in each way of generating."
    facts = {"error": attempt(lambda: difference(outputs(model, batch), reference))}
    ways = {"generate": by_generate, "loop": by_loop} if model.can_generate() else {}
    return facts | {name: attempt(cache_error, model, batch, way) for name, way in ways.items()}

def reloaded(folder, name):
    "The verdict about a saved model, and the keys that did not fit."
    import transformers
    model, info = getattr(transformers, name).from_pretrained(folder, output_loading_info=True)
    tensors = load_file(f"{folder}/reference.safetensors")
    parts = {kind: {k.removeprefix(kind): v for k, v in tensors.items() if k.startswith(kind)} for kind in ("batch.", "output.")}
    return verdict(model.eval(), parts["batch."], parts["output."]) | {"keys": sorted(k for k, v in info.items() if v)}

if __name__ == "__main__":
    import transformers
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for line in sys.stdin:
        answer = attempt(lambda: reloaded(**json.loads(line)))
        print(json.dumps({"answer": answer, "package": "avss_nb" in sys.modules}), flush=True)
