"""Three tasks for lm-evaluation-harness from a text: the next line among four, a missing last word, bits per byte.

python tools/make_lm_tasks.py data/quickstart/valid.txt chinchilla_jax/evaluation/lm_tasks [--items 100] [--name NAME]

The shipped tasks are of Shakespeare's As You Like It and Julius Caesar, the two plays that `prepare` holds out for
validation (public domain). A document of a task is a line of NAME_lines.jsonl, NAME_words.jsonl, NAME_bits.jsonl.
"""

import argparse
import json
import random
import re
from pathlib import Path

HEADS = {
    "lines": "output_type: multiple_choice\n"
    'doc_to_text: "{{context}}"\ntarget_delimiter: ""\ndoc_to_choice: choices\ndoc_to_target: gold\n',
    "words": "output_type: loglikelihood\n"
    'doc_to_text: "{{context}}"\ntarget_delimiter: ""\ndoc_to_target: "{{word}}"\n',
    "bits": 'output_type: loglikelihood_rolling\ndoc_to_text: ""\ndoc_to_target: "{{text}}"\n',
}
METRICS = {  # metric, aggregation, higher is better
    "lines": (("acc", "mean", "true"), ("acc_norm", "mean", "true")),
    "words": (("acc", "mean", "true"), ("perplexity", "perplexity", "false")),
    "bits": (("bits_per_byte", "bits_per_byte", "false"), ("byte_perplexity", "weighted_perplexity", "false")),
}


def lines(text: str, count: int, draw: random.Random) -> list[dict]:
    """Four lines and, among four lines of the text, the one that follows."""
    found = [line.strip() for line in text.splitlines() if len(line.split()) > 4 and line[0].isalpha()]
    starts = draw.sample(range(0, len(found) - 5, 5), count)
    made = []
    for at in sorted(starts):
        choices = [found[at + 4], *draw.sample(found[:at] + found[at + 5 :], 3)]
        draw.shuffle(choices)
        context = "\n".join(found[at : at + 4]) + "\n"
        made.append({"context": context, "choices": choices, "gold": choices.index(found[at + 4])})
    return made


def words(text: str, count: int, draw: random.Random) -> list[dict]:
    """A passage without its last word, which stands in the passage before; 4 letters or more."""
    passages = []
    for part in re.split(r"\n\s*\n", text):
        spoken = " ".join(line.strip() for line in part.splitlines() if line[:1].isalpha())
        for found in re.finditer(r"\b([A-Za-z]{4,})[.!?]", spoken):
            context = spoken[max(0, found.start() - 240) : found.start()]
            context = context[context.find(" ") + 1 :].rstrip()
            if len(context) > 60 and re.search(rf"\b{found[1]}\b", context):
                passages.append({"context": context, "word": " " + found[1]})
    chosen = sorted(draw.sample(range(len(passages)), min(count, len(passages))))
    return [passages[i] for i in chosen]


def documents(text: str, count: int, draw: random.Random, size: int = 400) -> list[dict]:
    """Stretches of whole lines of about `size` characters."""
    rows, made = text.splitlines(keepends=True), []
    for at in sorted(draw.sample(range(0, len(rows) - 60, 30), count)):
        part = ""
        for row in rows[at : at + 60]:
            part += row if len(part) < size else ""
        made.append({"text": part})
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--items", type=int, default=100)
    parser.add_argument("--name", default="shakespeare")
    args = parser.parse_args()
    text, draw = args.text.read_text(encoding="utf-8"), random.Random(0)
    args.folder.mkdir(parents=True, exist_ok=True)
    for kind, make in (("lines", lines), ("words", words), ("bits", documents)):
        name, rows = f"{args.name}_{kind}", make(text, args.items, draw)
        data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (args.folder / f"{name}.jsonl").write_text(data, encoding="utf-8")
        where = f"task: {name}\ndataset_path: json\ndataset_kwargs:\n  data_files:\n    test: {name}.jsonl\n"
        each = [
            f"  - metric: {m}\n    aggregation: {how}\n    higher_is_better: {up}\n" for m, how, up in METRICS[kind]
        ]
        settings = f"{where}test_split: test\n{HEADS[kind]}metric_list:\n{''.join(each)}metadata:\n  version: 1.0\n"
        (args.folder / f"{name}.yaml").write_text(settings, encoding="utf-8")
        print(f"{args.folder / name}: {len(rows)} documents")


if __name__ == "__main__":
    main()
