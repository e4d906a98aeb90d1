"""The front door of llmlab: `from llmlab import Config, Decoder, fit, generate`.

A name is imported when it is first asked for.
Whatever is not listed here is the inside of the library, and may change with any version.
"""

from importlib import import_module

__version__ = "0.1.0"

GROUPS = {  # what the names are for: {name: the module that defines it}; the reference has a page for each
    "Text and tokens": {
        "Corpus": "text",
        "load_corpus": "text",
        "generate_stories": "corpora",
        "split_graphemes": "segmentation",
        "split_sentences": "segmentation",
        "Tokenizer": "tokens",
        "as_tokenizer": "adapters",
        "apply_chat_template": "chat",
        "NGram": "ngram_tables",
    },
    "Models": {
        "attention_map": "attention_pooling",
        "causal_mask": "attention",
        "dot_product_attention": "attention",
        "record_attention": "recording",
        "Config": "transformer",
        "Decoder": "transformer",
        "Encoder": "transformer",
        "EncoderDecoder": "transformer",
        "count_parameters": "transformer",
        "KVCache": "cache",
        "make_cache": "cache",
        "RecurrentLM": "recurrent",
        "keras_lm": "recurrent",
        "with_experts": "horizons",
        "Captioner": "horizons",
    },
    "Training": {
        "Recipe": "training",
        "Batches": "training",
        "Windows": "training",
        "fit": "training",
        "causal_loss": "causal",
        "MaskTokenizer": "masked",
        "Masking": "masked",
        "padded_rows": "masked",
        "MaskCollator": "masked",
        "MaskedLM": "masked",
        "masked_loss": "masked",
        "fill_mask": "masked",
        "save_checkpoint": "checkpoints",
        "load_checkpoint": "checkpoints",
        "load_shipped": "checkpoints",
        "shipped_path": "checkpoints",
        "write_tokens": "devices",
    },
    "Generation": {
        "Sampling": "generation",
        "generate": "generation",
        "stream_tokens": "streaming",
        "generate_text": "streaming",
        "Beams": "generation",
        "beam_search": "generation",
        "speculative_generate": "generation",
    },
    "Pretrained models": {
        "sentence_embeddings": "embeddings",
        "hub_attentions": "pretrained",
        "load_pretrained": "loading",
        "save_pretrained": "exporting",
    },
    "Scores": {
        "Score": "metrics",
        "cross_entropy": "metrics",
        "perplexity": "metrics",
        "bits_per_byte": "metrics",
        "accuracy": "metrics",
        "token_logprobs": "metrics",
        "bootstrap_interval": "metrics",
        "paired_test": "metrics",
        "bleu": "translation_scores",
        "token_bleu": "translation_scores",
        "chrf": "translation_scores",
        "rouge": "overlap",
        "exact_match": "overlap",
        "token_f1": "overlap",
        "pass_at_k": "overlap",
    },
    "Tasks": {
        "TranslationTokenizer": "tasks.phrases",
        "Translator": "tasks.translation",
        "translate": "tasks.translation",
        "SpanReader": "tasks.answering",
        "answer_question": "tasks.answering",
        "summarize": "tasks.summarization",
        "textrank": "tasks.summarization",
        "copied_phrases": "tasks.summary_scores",
        "run_program": "tasks.sandbox",
        "InfillTokenizer": "tasks.gaps",
        "complete_lines": "tasks.completion",
        "TextGap": "tasks.gaps",
        "fill_in_middle": "tasks.completion",
    },
    "Cost and choice": {
        "parameters_by_part": "cost",
        "forward_flops": "cost",
        "training_flops": "cost",
        "training_memory": "cost",
        "inference_memory": "cost",
        "fit_scaling_law": "cost",
        "decision_matrix": "choosing",
    },
    "Inside a model": {
        "trace_activations": "activations",
        "edit_activation": "activations",
        "logit_lens": "interpretability",
        "head_scores": "interpretability",
        "ablate_heads": "interpretability",
        "patch_activations": "interpretability",
        "integrated_gradients": "interpretability",
        "attention_rollout": "figures.attention_maps",
        "weat": "ethics",
    },
    "Figures": {
        "attention_view": "figures.attention_figures",
        "formula_view": "figures.attention_figures",
        "neuron_view": "figures.attention_figures",
        "mask_view": "figures.attention_figures",
        "next_token_view": "figures.charts",
        "decoding_view": "figures.charts",
        "beams_view": "figures.charts",
        "tokens_view": "figures.charts",
        "curves_view": "figures.charts",
        "loss_view": "figures.charts",
        "grid_view": "figures.charts",
        "spans_view": "figures.task_figures",
        "phrases_view": "figures.task_figures",
        "patches_view": "figures.task_figures",
        "cost_view": "figures.task_figures",
        "bias_view": "figures.task_figures",
        "PooledAttention": "figures.attention_maps",
        "View": "figures.view",
        "bertviz_head": "figures.peers",
        "bertviz_model": "figures.peers",
        "bertviz_neuron": "figures.peers",
        "plot_attention": "figures.peers",
        "explore_model": "figures.explore",
    },
    "The course": {
        "exercise": "course.practice",
        "judge": "course.practice",
        "quiz": "course.practice",
        "course_progress": "course.overview",
        "predict": "course.practice",
        "copy_chapters": "course.lab",
        "load_results": "course.lab",
    },
}
PUBLIC = {name: module for group in GROUPS.values() for name, module in group.items()}


def __dir__() -> list[str]:
    return ["__version__", *sorted(PUBLIC)]


def __getattr__(name: str):
    if name in PUBLIC:
        return getattr(import_module(f"{__name__}.{PUBLIC[name]}"), name)
    from difflib import get_close_matches
    from importlib.util import find_spec

    if not name.startswith("_") and find_spec(f"{__name__}.{name}"):  # `llmlab.attention`, a module
        return import_module(f"{__name__}.{name}")
    near = get_close_matches(name, PUBLIC)
    hint = f"; did you mean {' or '.join(near)}?" if near else ": dir(llmlab) lists its names"
    raise AttributeError(f"llmlab has no {name!r}{hint}")
