"Generation on the device: every way of reading writes the same, and the compiled way replays CUDA graphs."

import pytest
import torch
from on_device import CPU, DEVICE, GPU, decoder, only_gpu

from llmlab import decoding as module
from llmlab.generation import Beams, Sampling, beam_search, generate, speculative_generate
from llmlab.transformer import EncoderDecoder

PROMPTS, NEW = [[1, 2, 3, 4, 5], [6]], 40
SHAPES = {
    "GPT-2's": {},
    "Llama's": dict(position="rope", kv_heads=2, norm="rms", feed_forward="swiglu", bias=False),
}
GREEDY, SAMPLED = Sampling(0), Sampling(0.9, top_p=0.9, repetition_penalty=1.1)


@pytest.fixture(autouse=True)
def fixed_shapes(monkeypatch):
    "The compiled step, on a CPU the same step uncompiled: there its fixed shapes are what is tested."
    if GPU:
        torch.compiler.reset()
    else:
        monkeypatch.setattr(module, "compiled_step", lambda: module.hidden_step)


def margin(model, prompts, written) -> float:
    "The least distance between the best and the second-best logit on the way: rounding must not decide."
    with torch.no_grad():
        logits = [
            model(torch.tensor([p + w]))[0, len(p) - 1 : -1] for p, w in zip(prompts, written, strict=True)
        ]
    return float(min((best - second).min() for best, second in (x.topk(2).values.T for x in logits)))


@pytest.mark.parametrize("shape", SHAPES)
def test_all_ways_of_reading_write_the_same(shape):
    here = decoder(**SHAPES[shape])
    wanted = generate(here, PROMPTS, NEW, GREEDY)
    assert margin(here, PROMPTS, wanted) > 1e-3, "the premise"
    model = decoder(**SHAPES[shape]).to(DEVICE)
    for cache in (False, True, "compiled"):
        assert generate(model, PROMPTS, NEW, GREEDY, cache=cache) == wanted, cache
        assert generate(model, PROMPTS, NEW, SAMPLED, cache=cache) == generate(here, PROMPTS, NEW, SAMPLED), (
            cache
        )


def test_compiled_again_and_again():
    "New caches, other batches, then the first once more: no graph may read what another one left."
    here, model = decoder(), decoder().to(DEVICE)
    for prompts in ([[1, 2]], [[3]], [[4, 5], [6, 7]], [[1, 2]]):
        assert generate(model, prompts, NEW, GREEDY, cache="compiled") == generate(here, prompts, NEW, GREEDY)


def test_compiled_past_the_context():
    here, model = decoder(context=24), decoder(context=24).to(DEVICE)
    assert generate(model, PROMPTS, NEW, GREEDY, cache="compiled") == generate(here, PROMPTS, NEW, GREEDY)


def test_an_encoder_decoder_writes_the_same():
    source = [[3, 4, 5, 6], [7]]
    here, model = decoder(EncoderDecoder), decoder(EncoderDecoder).to(DEVICE)
    wanted = generate(here, [[1], [2]], NEW, GREEDY, source=source)
    for cache in (True, "compiled"):
        assert generate(model, [[1], [2]], NEW, GREEDY, source=source, cache=cache) == wanted


def test_beams_and_drafts_write_the_same():
    here, model = decoder(), decoder().to(DEVICE)
    (ours,), (theirs,) = (beam_search(m, [[1, 2, 3]], 12, Beams(3)) for m in (model, here))
    assert [ids for ids, _ in ours] == [ids for ids, _ in theirs]
    assert [score for _, score in ours] == pytest.approx([score for _, score in theirs], abs=1e-4)
    draft, sampling = decoder(seed=1, layers=1), Sampling(0.9)
    pairs = (model, DEVICE), (here, CPU)
    ours, theirs = (
        speculative_generate(m, draft.to(device), [1, 2], 20, sampling, seed=3) for m, device in pairs
    )
    assert ours == theirs


def test_bf16_writes_what_it_reads_anew():
    """In bf16, too, the cache changes nothing: logits of the cached and the compiled way, one step after
    another."""
    model = decoder().to(DEVICE, torch.bfloat16)
    plain, *others = (
        module.start_decoding(model, [[1, 2, 3]], 20, cache=cache)[0] for cache in (False, True, "compiled")
    )
    for new in ([1, 2, 3], [4], [5], [6], [7]):
        ids = torch.tensor([new], device=DEVICE)
        wanted = plain.read(ids).float()
        for state in others:
            torch.testing.assert_close(
                state.read(ids).float(), wanted, atol=0.05 * float(wanted.std()), rtol=0.05
            )


@only_gpu
def test_the_compiled_way_replays_cuda_graphs():
    from torch.profiler import ProfilerActivity, profile

    model = decoder().to(DEVICE)
    generate(model, [[1, 2]], 20, GREEDY, cache="compiled")  # compiles, and records the graph
    found = {}
    for cache in (True, "compiled"):
        generate(model, [[1, 2]], 20, GREEDY, cache=cache)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            generate(model, [[1, 2]], 20, GREEDY, cache=cache)
        found[cache] = sum(event.count for event in seen.key_averages() if "GraphLaunch" in event.key)
    assert found[True] == 0 and found["compiled"] >= 10, found


@only_gpu
def test_the_gpu_waits_for_python_at_every_16th_token_only():
    import itertools

    from llmlab.generation import next_tokens

    tokens = next_tokens(decoder().to(DEVICE), PROMPTS, 20, SAMPLED)
    torch.cuda.set_sync_debug_mode("error")
    try:
        assert len(list(itertools.islice(tokens, 15))) == 15
    finally:
        torch.cuda.set_sync_debug_mode("default")
