"""Trains the model of config.json on files of token numbers, with the Trainer of transformers."""

import json

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, HfArgumentParser, Trainer, TrainingArguments


class Sequences(torch.utils.data.Dataset):
    """Sequences of a file of token numbers without a header, one after the other."""

    def __init__(self, path, seq, token_bytes, most=None):
        self.tokens = np.memmap(path, dtype=np.uint16 if token_bytes == 2 else np.uint32, mode="r")
        self.seq, self.count = seq, len(self.tokens) // seq
        if most is not None:
            self.count = min(self.count, -(-most // seq))

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        part = self.tokens[index * self.seq : (index + 1) * self.seq].astype(np.int64)
        return {"input_ids": torch.from_numpy(part), "labels": torch.from_numpy(part.copy())}


def main():
    with open("train_settings.json", encoding="utf-8") as file:
        settings = json.load(file)
    (arguments,) = HfArgumentParser(TrainingArguments).parse_json_file("training_args.json")
    torch.manual_seed(arguments.seed)
    model = AutoModelForCausalLM.from_config(
        AutoConfig.from_pretrained("config.json"), attn_implementation=settings["attn_implementation"]
    )
    of = (settings["seq"], settings["token_bytes"])
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=Sequences(settings["train"], *of),
        eval_dataset=Sequences(settings["validation"], *of, settings["eval_tokens"])
        if arguments.eval_strategy != "no"
        else None,
    )
    trainer.train()


if __name__ == "__main__":
    main()
