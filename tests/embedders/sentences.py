"""The embedder of sentence-transformers with the package itself, from a model's folder to an example that is retrieved.

    python -m pip install -e '.[test,embed]'
    python -m tests.embedders.sentences

The model is made on the spot, two layers with random weights: nothing is downloaded but the package. That is large, so
this is no part of the test suite. Each line that is printed was checked.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from pgflywheel.db import embedded, schema
from pgflywheel.errors import UsageError
from pgflywheel.judge.embed.sentences import Sentences
from tests.sql.exampling import POLITE, group_of, label
from tests.sql.support import activate, insert, value

POSTGRES_VERSION = int(os.environ.get("PGFLYWHEEL_TEST_POSTGRES", "18"))
DIMENSIONS = 32
WORDS = ["cancel", "refund", "please", "thank", "you", "card", "lost", "my", "order", "stupid", "go", "away", "glad"]
ANSWERS = ["thank you glad to help", "stupid go away"] * 4
ADD = ("embedders", "add", "local", "--kind", "sentence-transformers", "--dimensions", str(DIMENSIONS), "--switch")


def make_model(folder: Path) -> Path:
    """Save a model that knows some words and all letters, with the same random weights each time."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(1)
    folder.mkdir()
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocabulary = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *WORDS,
        *letters,
        *(f"##{letter}" for letter in letters),
    ]
    known = folder / "vocab.txt"
    known.write_text("\n".join(dict.fromkeys(vocabulary)) + "\n")
    shape = {"hidden_size": DIMENSIONS, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    BertModel(BertConfig(vocab_size=len(set(vocabulary)), max_position_embeddings=128, **shape)).save_pretrained(folder)
    BertTokenizer(str(known), model_max_length=128).save_pretrained(folder)
    return folder


def check_vectors(model: Path) -> str:
    """Vectors have length one, are those of their texts, and hostile texts have one, too."""
    embedder = Sentences("local", str(model), DIMENSIONS, {"device": "cpu"})
    texts = ["where is my order", "", "stupid go away", "\x00\u202e\U0001f600", "word " * 50_000, "where is my order"]
    vectors = asyncio.run(embedder.embed(texts))
    assert [len(vector) for vector in vectors] == [DIMENSIONS] * len(texts)
    assert all(abs(sum(number * number for number in vector) - 1) < 1e-4 for vector in vectors)
    assert max(abs(a - b) for a, b in zip(vectors[0], vectors[-1], strict=True)) < 1e-5
    assert max(abs(a - b) for a, b in zip(vectors[0], vectors[2], strict=True)) > 1e-3
    assert asyncio.run(embedder.embed([])) == []
    return f"{len(texts)} texts have vectors of {DIMENSIONS} numbers and length 1"


def check_refusals(model: Path) -> str:
    """What cannot be loaded, or is of another length, is said in words."""
    for broken, said in (
        (Sentences("local", str(model), 8, {}), "got vectors of 32 numbers, not 8"),
        (Sentences("local", str(model / "nowhere"), 8, {"local_files_only": True}), "cannot load the model"),
        (Sentences("local", str(model.parent), 8, {"local_files_only": True}), "cannot load the model"),
    ):
        with pytest.raises(UsageError, match=said):
            asyncio.run(broken.embed(["a"]))
    return "a wrong length and a model that is not there are refused in words"


def check_install(model: Path, dsn: str) -> str:
    """Examples get its vectors, it serves, an application finds the example it asks for, and a vote is by it."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        activate(connection, "polite", **POLITE)
        for number, output in enumerate(ANSWERS):
            asked = f"{WORDS[number]} glad {number}"
            span_id = insert(connection, input=asked, output=output, session_id=group_of(connection, "train", number))
            label(connection, span_id, number % 2 == 0)
        pgflywheel(dsn, *ADD, "--model", str(model))
        pgflywheel(dsn, "worker", "run", "--until-idle")
        connection.execute("select flywheel._queue_embeddings()")  # as workers do each minute: all are done, it serves
        status = "select status || ' ' || embedded || ' ' || waiting from flywheel.embedder_status where name = 'local'"
        assert value(connection, status) == f"serving {len(ANSWERS)} 0", value(connection, status)
        found = json.loads(pgflywheel(dsn, "examples", "retrieve", "default", "app", "you glad 4", "-k", "1", "--json"))
        assert [each["input"] for each in found] == ["you glad 4"], found
        judged = insert(connection, input="refund", output="thank you glad to help you")
        pgflywheel(dsn, "worker", "run", "--until-idle")
        score = "select passed from flywheel.scores where span_id = %s and annotator_kind = 'neighbours'"
        assert value(connection, score, [judged]) is True
    return f"{len(ANSWERS)} examples have its vectors, it serves, is asked by an application and votes"


def pgflywheel(dsn: str, *arguments: str) -> str:
    """Run a command to its end and return what it printed."""
    ran = subprocess.run(
        [sys.executable, "-m", "pgflywheel", *arguments, "--dsn", dsn], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, f"{arguments}: {ran.stderr[-4000:]}"
    return ran.stdout


@contextmanager
def server() -> Iterator[str]:
    """Start one with an install in it; stop it and leave nothing."""
    folder = Path(tempfile.mkdtemp(prefix="pgflywheel-embedders-"))
    folder.chmod(0o755)
    try:
        dsn = embedded.start(folder / "data", POSTGRES_VERSION, {"fsync": "off", "timezone": "UTC"})
        schema.upgrade(dsn)
        yield dsn
    finally:
        embedded.stop(folder / "data", POSTGRES_VERSION)
        shutil.rmtree(folder)


def main() -> int:
    with tempfile.TemporaryDirectory() as folder, server() as dsn:
        model = make_model(Path(folder) / "model")
        print(check_vectors(model), flush=True)
        print(check_refusals(model), flush=True)
        print(check_install(model, dsn), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
