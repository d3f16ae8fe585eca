"""Train a tiny GPT-2 from random weights on sentences of a small grammar, and save it along the way.

    python make.py                  # tokens.npz, and runs/checkpoint-25 … runs/checkpoint-200

The checkpoints are those that the Hugging Face Trainer writes: folders of config.json, model.safetensors and
trainer_state.json. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

#: Words: 0 is padding, 1 begins a sentence, 2 ends it, the rest are what it is about.
WORDS, LENGTH, PAD, BEGIN, END = 16, 12, 0, 1, 2


def sentences(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(tokens (N, T), mask (N, T): 1 for tokens, 0 for padding) of a Markov chain: two successors a word."""
    random = np.random.default_rng(seed)
    tokens = np.full((count, LENGTH), PAD)
    for row in tokens:
        row[0], word = BEGIN, int(random.integers(3, WORDS))
        for place in range(1, LENGTH - 1):
            row[place] = word
            if random.random() < 0.12:
                break
            word = 3 + (2 * word + int(random.random() < 0.3)) % (WORDS - 3)
        row[np.flatnonzero(row)[-1] + 1] = END
    return tokens, (tokens != PAD).astype(int)


def model(seed: int) -> GPT2LMHeadModel:
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=WORDS, n_positions=LENGTH, n_embd=16, n_layer=2, n_head=2, n_inner=32,
        bos_token_id=BEGIN, eos_token_id=END, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return GPT2LMHeadModel(config)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(), help="folder to write into")
    parser.add_argument("--steps", type=int, default=200, help="steps of training")
    parser.add_argument("--save-every", type=int, default=25, help="steps between checkpoints")
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tokens, mask = sentences(given.sentences, given.seed)
    given.out.mkdir(parents=True, exist_ok=True)
    np.savez(given.out / "tokens.npz", x=tokens.astype(np.uint8), attention_mask=mask.astype(np.uint8))
    labels = np.where(mask == 1, tokens, -100)
    rows = [
        {"input_ids": x, "attention_mask": m, "labels": y}
        for x, m, y in zip(tokens, mask, labels, strict=True)
    ]
    how = TrainingArguments(
        output_dir=str(given.out / "runs"),
        max_steps=given.steps,
        save_steps=given.save_every,
        logging_steps=given.save_every,
        per_device_train_batch_size=20,
        learning_rate=0.01,
        lr_scheduler_type="constant",
        seed=given.seed,
        save_only_model=True,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )
    Trainer(model=model(given.seed), args=how, train_dataset=rows).train()


if __name__ == "__main__":
    main()
